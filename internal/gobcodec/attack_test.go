package gobcodec_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/gobcodec"
)

// Targets such as an ordinary server has.
type (
	argsTarget struct {
		A int
		S string
	}
	mapTarget       struct{ M map[string]int }
	structMapTarget struct{ M map[argsTarget]argsTarget }
	listTarget      struct {
		V int
		N *listTarget
	}
	treeTarget struct{ Kids []treeTarget }
	fatTarget  struct{ L []fatItem }
	fatItem    struct {
		Buf [65536]byte
		N   int
	}
	wideItem struct { // an ordinary record
		A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y string
	}
	wideTarget        struct{ L []wideItem }
	widePointerTarget struct{ L []*wideItem }
	mapsTarget        struct{ L []map[string]int }
	stringsTarget     struct{ L []string }
	intsTarget        struct{ L []int64 }
	record568         struct {
		wideItem
		Text    [10]string
		N       int
		Strings string
	}
	recordTarget struct{ L []record568 }
)

// The writer's half of the format, apart from the codec's own, so that a mistake in that does not hide itself.

func wUint(x uint64) []byte {
	if x < 128 {
		return []byte{byte(x)}
	}
	var b []byte
	for ; x > 0; x >>= 8 {
		b = slices.Insert(b, 0, byte(x))
	}
	return append([]byte{byte(-len(b))}, b...)
}

func wInt(i int64) []byte {
	if i < 0 {
		return wUint(uint64(^i)<<1 | 1)
	}
	return wUint(uint64(i) << 1)
}

func wString(s string) []byte         { return append(wUint(uint64(len(s))), s...) }
func wMessage(parts ...[]byte) []byte { b := cat(parts...); return append(wUint(uint64(len(b))), b...) }
func cat(parts ...[]byte) []byte      { return bytes.Join(parts, nil) }
func rep(n int, b ...byte) []byte     { return bytes.Repeat(b, n) }

type wField struct {
	name string
	id   int64
}

func wCommon(name string, id int64) []byte {
	return cat([]byte{1}, wString(name), []byte{1}, wInt(id), []byte{0})
}

func wStruct(id int64, name string, fields ...wField) []byte {
	var fs []byte
	for _, f := range fields {
		fs = append(fs, cat([]byte{1}, wString(f.name), []byte{1}, wInt(f.id), []byte{0})...)
	}
	return wMessage(wInt(-id), []byte{3, 1}, wCommon(name, id), []byte{1}, wUint(uint64(len(fields))), fs, []byte{0, 0})
}

func wSlice(id, elem int64) []byte {
	return wMessage(wInt(-id), []byte{2, 1}, wCommon("L", id), []byte{1}, wInt(elem), []byte{0, 0})
}

func wArray(id, elem, n int64) []byte {
	return wMessage(wInt(-id), []byte{1, 1}, wCommon("A", id), []byte{1}, wInt(elem), []byte{1}, wInt(n), []byte{0, 0})
}

func wMap(id, key, elem int64) []byte {
	return wMessage(wInt(-id), []byte{4, 1}, wCommon("M", id), []byte{1}, wInt(key), []byte{1}, wInt(elem), []byte{0, 0})
}

// message is the definitions of T and a value message with the given body.
func message[T any](tb testing.TB, body ...[]byte) []byte {
	tb.Helper()
	c, err := gobcodec.For[T]()
	require.NoError(tb, err)
	defs, id := c.Definitions()
	return cat([]byte(defs), wMessage(wInt(id), cat(body...)))
}

// ignored is a value for argsTarget with a field more, of wire type id.
func ignored(defs []byte, id int64, body ...[]byte) []byte {
	return cat(wStruct(70, "Args", wField{"A", 2}, wField{"Extra", id}), defs, wMessage(wInt(70), []byte{2}, cat(body...)))
}

func extraFields(n int, id int64) []wField {
	fs := []wField{{"A", 2}}
	for i := range n {
		fs = append(fs, wField{fmt.Sprintf("X%d", i), id})
	}
	return fs
}

// nestedSlices defines slice types from 100 on, each of the next, n deep.
func nestedSlices(n int) (b []byte) {
	for i := range int64(n) {
		b = append(b, wSlice(100+i, 101+i)...)
	}
	return append(b, wSlice(100+int64(n), 2)...)
}

const malformed = "malformed"

// An attack is a gob that hurts encoding/gob, or that a codec that keeps decoders could be hurt by.
type attack struct {
	name   string
	target subject
	bytes  func(n int) []byte
	n      int    // its size
	corpus int    // its size in the corpus of the fuzz tests
	want   string // "", malformed, or the Bound
	most   int    // bytes that decoding may allocate
}

const (
	kib = 1 << 10
	mib = 1 << 20
)

func attacks(tb testing.TB) []attack {
	tb.Helper()
	count, decoded, depth := gobcodec.BoundCount.String(), gobcodec.BoundDecoded.String(), gobcodec.BoundDepth.String()
	args, list, tree := of[argsTarget](tb), of[listTarget](tb), of[treeTarget](tb)
	var as []attack
	for _, p := range []int{20, 24, 28, 32, 36, 44, 62} {
		as = append(as, attack{
			fmt.Sprintf("map claims 2^%d entries", p), of[mapTarget](tb),
			func(int) []byte { return message[mapTarget](tb, []byte{1}, wUint(1<<p), []byte{0}) }, 0, 0, count, 8 * kib,
		})
	}
	ones := func(n int) []byte { return cat([]byte{1}, wUint(uint64(n)), rep(n+1, 0)) }
	return append(as,
		attack{"map of structs claims 2^62 entries of no byte", of[structMapTarget](tb), func(int) []byte {
			return message[structMapTarget](tb, []byte{1}, wUint(1<<62))
		}, 0, 0, count, 16 * kib},
		attack{"ignored map of structs claims 2^62 entries of no byte", args, func(int) []byte {
			return ignored(cat(wMap(71, 72, 72), wStruct(72, "E", wField{"X", 2})), 71, wUint(1<<62))
		}, 0, 0, count, 16 * kib},
		attack{"the same, from encoding/gob", args, func(int) []byte {
			return unhex("23ff8b030101044172677301ff8c0001020101410104000105457874726101ff8e00000010ff8d040102ff8e0001ff9001ff90000015ff8f030101014501ff90000101010158010400000" +
				"00cff8c02f84000000000000000")
		}, 0, 0, count, 16 * kib},
		attack{"slice claims 2^29 elements", of[intsTarget](tb), func(int) []byte {
			return message[intsTarget](tb, []byte{1}, wUint(1<<29), []byte{0})
		}, 0, 0, count, 8 * kib},
		attack{"list, levels", list, func(n int) []byte { return message[listTarget](tb, rep(n, 2)) }, 2_000_000, 1200, depth, 128 * kib},
		attack{"list, deeper than a stack", list, func(n int) []byte { return message[listTarget](tb, rep(n, 2)) }, 4_000_000, 2400, depth, 128 * kib},
		attack{"tree, levels", tree, func(n int) []byte { return message[treeTarget](tb, rep(2*n, 1)) }, 2_000_000, 1200, depth, 128 * kib},
		attack{"ignored recursive struct", args, func(n int) []byte {
			return ignored(wStruct(71, "R", wField{"N", 71}), 71, rep(n, 1))
		}, 4_000_000, 1200, depth, 16 * kib},
		attack{"ignored recursive slice", args, func(n int) []byte {
			return ignored(wSlice(71, 71), 71, rep(n, 1))
		}, 4_000_000, 1200, depth, 16 * kib},
		attack{"ignored recursive map, by its keys", args, func(n int) []byte {
			return ignored(wMap(71, 71, 2), 71, rep(n, 1), rep(n, 2))
		}, 1_000_000, 1200, depth, 16 * kib},
		attack{"fat elements of a byte each, under the limit", of[fatTarget](tb), func(n int) []byte {
			return message[fatTarget](tb, ones(n))
		}, 1000, 20, "", 128 * mib},
		attack{"fat elements of a byte each", of[fatTarget](tb), func(n int) []byte {
			return message[fatTarget](tb, ones(n))
		}, 10_000, 300, decoded, 8 * kib},
		attack{"structs of 25 strings, a byte each", of[wideTarget](tb), func(n int) []byte {
			return message[wideTarget](tb, ones(n))
		}, mib, 3_000, decoded, 16 * kib},
		attack{"pointers to structs of 25 strings, a byte each", of[widePointerTarget](tb), func(n int) []byte {
			return message[widePointerTarget](tb, ones(n))
		}, mib, 3_000, decoded, 80 * mib},
		attack{"maps, empty", of[mapsTarget](tb), func(n int) []byte { return message[mapsTarget](tb, ones(n)) }, mib, 3_000, "", 128 * mib},
		attack{"strings, empty", of[stringsTarget](tb), func(n int) []byte { return message[stringsTarget](tb, ones(n)) }, mib, 3_000, "", 32 * mib},
		attack{"strings, a short one to 255 empty ones", of[stringsTarget](tb), func(n int) []byte {
			return message[stringsTarget](tb, []byte{1}, wUint(uint64(n/257*256)), rep(n/257, append([]byte{1, 'a'}, rep(255, 0)...)...), []byte{0})
		}, mib, 3_000, "", 20 * mib},
		attack{"4 MiB of elements that are zero", of[recordTarget](tb), func(n int) []byte {
			return message[recordTarget](tb, ones(n))
		}, 4*mib - 1000, 3_000, decoded, 16 * kib},
		attack{"message claims 10 MiB and has no byte", args, func(int) []byte { return wUint(10<<20 - 1) }, 0, 0, malformed, 2 * kib},
		attack{"message claims 8 GiB and has no byte", args, func(int) []byte { return wUint(8<<30 - 1) }, 0, 0, malformed, 2 * kib},
		attack{"message claims 2^64-1", args, func(int) []byte { return wUint(1<<64 - 1) }, 0, 0, malformed, 2 * kib},
		attack{"definition claims 2^28 fields", args, func(int) []byte {
			return cat(unhex("13ff8b030101014101ff8c0001fc100000000000"), wMessage(wInt(70), []byte{0}))
		}, 0, 0, count, 8 * kib},
		attack{"unused definitions", args, func(n int) []byte {
			var b []byte
			for i := range int64(n) {
				b = append(b, wSlice(100+i, 2)...)
			}
			return append(b, message[argsTarget](tb, []byte{1, 2, 0})...)
		}, 100_000, 300, gobcodec.BoundDefinitions.String(), 8 * kib},
		attack{"definitions of many bytes", args, func(n int) []byte {
			return cat(wStruct(70, strings.Repeat("A", n), wField{"A", 2}), wMessage(wInt(70), []byte{1, 2, 0}))
		}, mib, 65 * kib, gobcodec.BoundDefinitionBytes.String(), 8 * kib},
		attack{"fields times types nested as deep, as many as definitions allow", args, func(n int) []byte {
			return cat(wStruct(70, "Args", extraFields(n, 100)...), nestedSlices(250), wMessage(wInt(70), []byte{1, 2, 0}))
		}, 4000, 1000, "", 4 * mib},
		attack{"ignored fields times types nested as deep", args, func(n int) []byte {
			return cat(wStruct(70, "Args", extraFields(n, 100)...), nestedSlices(n), wMessage(wInt(70), []byte{1, 2, 0}))
		}, 3000, 300, gobcodec.BoundDefinitions.String(), 8 * kib},
		attack{"ignored type nested deep", args, func(n int) []byte {
			return cat(wStruct(70, "Args", wField{"A", 2}, wField{"X", 100}), nestedSlices(n), wMessage(wInt(70), []byte{1, 2, 0}))
		}, 9990, 300, gobcodec.BoundDefinitions.String(), 8 * kib},
		attack{"pairs of received structs and own ones", of[manyTarget](tb), manyPairs, 200, 200, gobcodec.BoundPlan.String(), 8 * mib},
		attack{"interface, ignored", args, func(int) []byte {
			return ignored(nil, 8, wString("main.T"), wInt(2), wUint(2), []byte{0, 2})
		}, 0, 0, malformed, 16 * kib},
		attack{"interface in a slice, nested", args, func(n int) []byte {
			level := cat(wString("[]interface {}"), wInt(71), []byte{1, 0, 1})
			return ignored(wSlice(71, 8), 71, []byte{1}, bytes.Repeat(level, n), []byte{0, 0})
		}, 50_000, 50, malformed, 16 * kib},
		attack{"array of 2^62 in the definition", args, func(int) []byte {
			return ignored(wArray(71, 2, 1<<62), 71, wUint(1<<62), []byte{0})
		}, 0, 0, malformed, 16 * kib},
		attack{"type defined twice", args, func(int) []byte {
			return cat(wStruct(70, "Args", wField{"A", 2}), wStruct(70, "Args", wField{"A", 6}), wMessage(wInt(70), []byte{1, 2, 0}))
		}, 0, 0, malformed, 16 * kib},
		attack{"reserved type defined", args, func(int) []byte {
			return cat(wStruct(2, "int", wField{"A", 2}), wMessage(wInt(2), []byte{0, 2}))
		}, 0, 0, malformed, 16 * kib},
		attack{"value of an undefined type", args, func(int) []byte {
			return cat(wStruct(70, "Args", wField{"A", 2}), wMessage(wInt(71), []byte{1, 2, 0}))
		}, 0, 0, malformed, 16 * kib},
		attack{"field of an undefined type", args, func(int) []byte { return ignored(nil, 99, []byte{2, 0}) }, 0, 0, malformed, 16 * kib},
		attack{"definitions behind the value", args, func(int) []byte {
			return append(message[argsTarget](tb, []byte{1, 2, 0}), wSlice(100, 2)...)
		}, 0, 0, malformed, 8 * kib},
		attack{"two values", args, func(int) []byte {
			m := wMessage(wInt(70), []byte{1, 2, 0})
			return cat(wStruct(70, "Args", wField{"A", 2}), m, m)
		}, 0, 0, malformed, 8 * kib},
		attack{"bytes behind the value's end", args, func(int) []byte { return message[argsTarget](tb, []byte{1, 2, 0, 7}) }, 0, 0, malformed, 8 * kib},
		attack{"definitions without a value", args, func(int) []byte { return wStruct(70, "Args", wField{"A", 2}) }, 0, 0, malformed, 8 * kib},
		attack{"empty message", args, func(int) []byte { return []byte{0} }, 0, 0, malformed, 8 * kib},
		attack{"field number far out of range", args, func(int) []byte {
			return message[argsTarget](tb, wUint(1<<64-1), []byte{2, 0})
		}, 0, 0, malformed, 8 * kib},
		attack{"type id of 40 bits", args, func(int) []byte {
			return cat(wStruct(70, "Args", wField{"A", 2}), wMessage(wInt(1<<40+70), []byte{1, 2, 0}))
		}, 0, 0, malformed, 8 * kib},
		attack{"map entries far fewer than slots", of[[]map[string]wideItem](tb), func(n int) []byte {
			return message[[]map[string]wideItem](tb, []byte{0}, wUint(uint64(n)), rep(n, 1, 0, 0))
		}, 200_000, 3_000, decoded, 128 * mib},
	)
}

func unhex(s string) []byte {
	b, _ := hex.DecodeString(s)
	return b
}

// manyTarget has 100 struct types that each have a field B of each of the received ones.
type manyTarget struct {
	A00, A01, A02, A03, A04, A05, A06, A07, A08, A09 many00
}

type (
	many00 struct{ B many01 }
	many01 struct{ B many02 }
	many02 struct{ B many03 }
	many03 struct{ B many04 }
	many04 struct{ B many05 }
	many05 struct{ B many06 }
	many06 struct{ B many07 }
	many07 struct{ B *many00 }
)

// manyPairs has a cycle of struct types whose length has no divisor in common with the cycle of eight in manyTarget, so that
// every received type meets every own one; each has a hundred fields more.
func manyPairs(n int) []byte {
	const cycle = 51
	var fs []wField
	for i := range n {
		fs = append(fs, wField{fmt.Sprintf("%c", 'a'+rune(i%26)), 2})
	}
	b := wStruct(70, "T", wField{"A00", 100})
	for i := range int64(cycle) {
		b = append(b, wStruct(100+i, "", append([]wField{{"B", 100 + (i+1)%cycle}}, fs[:n/2]...)...)...)
	}
	return append(b, wMessage(wInt(70), []byte{0})...)
}

func TestAttacks(t *testing.T) {
	for _, a := range attacks(t) {
		t.Run(a.name, func(t *testing.T) {
			b := a.bytes(a.n)
			var charged, allocated int
			var err error
			// What the runtime allocates for itself meanwhile is counted as well: several tries.
			for try := 0; try == 0 || try < 5 && allocated > a.most; try++ {
				v := a.target.zero()
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				// The message limit is another test's: what gets past it must be stopped here.
				charged, err = a.target.decode(b, v, gobcodec.Limits{Message: -1})
				runtime.ReadMemStats(&after)
				allocated = int(after.TotalAlloc - before.TotalAlloc)
			}
			t.Logf("%d bytes: %d allocated, %d charged: %v", len(b), allocated, charged, err)
			assert.LessOrEqual(t, allocated, a.most)
			assert.LessOrEqual(t, charged, 64*mib)
			checkRefusal(t, a.want, err)
		})
	}
}

func checkRefusal(t *testing.T, want string, err error) {
	t.Helper()
	switch want {
	case "":
		require.NoError(t, err)
	case malformed:
		require.ErrorAs(t, err, new(*gobcodec.Error))
	default:
		var bound *gobcodec.BoundError
		require.ErrorAs(t, err, &bound)
		assert.Equal(t, want, bound.Bound.String())
		assert.Greater(t, bound.Figure, bound.Limit)
	}
}
