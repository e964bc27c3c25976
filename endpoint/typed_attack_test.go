package endpoint_test

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/types"

	"github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// attackMap24 is a struct{M map[string]int} that claims 2^24 entries.
const attackMap24 = "1b7f030101074d61704172677301ff8000010101014d01ff820000001eff810401010e6d61705b737472696e675d696e7401ff8200010c0104000008ff8001fc01000000"

// unhex is the bytes of a hexadecimal text with spaces in it.
func unhex(t testing.TB, s string) string {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return string(b)
}

// gobUint is an unsigned number as gob writes it.
func gobUint(n int) string {
	if n < 128 {
		return string([]byte{byte(n)})
	}
	var b []byte
	for x := n; x > 0; x >>= 8 {
		b = append([]byte{byte(x)}, b...)
	}
	return string(append([]byte{byte(-len(b))}, b...))
}

// definitions returns those of a gob, and the type id of its value.
func definitions(gob string) (head, id string) {
	number := func(s string) (x, size int) {
		if s[0] < 128 {
			return int(s[0]), 1
		}
		size = 1 - int(int8(s[0]))
		for _, b := range []byte(s[1:size]) {
			x = x<<8 | int(b)
		}
		return x, size
	}
	for at := 0; ; {
		length, n := number(gob[at:])
		signed, size := number(gob[at+n:])
		if signed&1 == 0 {
			return gob[:at], gob[at+n : at+n+size]
		}
		at += n + length
	}
}

type (
	hasMap  struct{ M map[string]int }
	hasInts struct{ L []int64 }
	hasList struct{ L []struct{ A [4096]byte } }
	linked  struct {
		V int
		N *linked
	}
	hasA     struct{ A int }
	fields25 struct{ A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y string }
	many     struct{ L []fields25 }
	maps     struct{ L []map[string]int }
)

// An attack is a gob that encoding/gob would take all memory, all time or the
// process for, or that a receiver must refuse. ends says that its end can be
// found.
type attack struct {
	name string
	gob  string
	ends bool
	text string // of the refusal; "" if it may be decoded
}

func attacks(t testing.TB) []attack {
	t.Helper()
	mapHead := "1b7f030101074d61704172677301ff8000010101014d01ff820000001eff810401010e6d61705b737472696e675d696e7401ff8200010c01040000"
	levels := func(n int) string {
		head, id := definitions(gobOf(t, linked{N: new(linked)}))
		body := id + strings.Repeat("\x02", n)
		return head + gobUint(len(body)) + body
	}
	ignored := func(n int) string {
		head, id := definitions(gobOf(t, struct {
			A     int
			Extra *linked
		}{Extra: &linked{N: new(linked)}}))
		body := id + "\x02" + strings.Repeat("\x02", n)
		return head + gobUint(len(body)) + body
	}
	deep := func(n int) string {
		// Definitions of slices of slices, n of them, and a value of the first.
		var b strings.Builder
		for i := range n {
			def := gobUint(2*(65+i)-1) + "\x02\x01\x02" + gobUint(2*(65+i)) + "\x00\x01" + gobUint(2*(66+i)) + "\x00\x00"
			b.WriteString(gobUint(len(def)) + def)
		}
		return b.String() + "\x04\xff\x82\x00\x00"
	}
	return []attack{
		{"map of 2^20", unhex(t, mapHead+"07ff8001fd100000"), true, "count"},
		{"map of 2^24", unhex(t, attackMap24), true, "count"},
		{"map of 2^28", unhex(t, mapHead+"08ff8001fc10000000"), true, "count"},
		{"map of 2^32", unhex(t, mapHead+"09ff8001fb0100000000"), true, "count"},
		{"map of 2^62", unhex(t, mapHead+"0cff8001f84000000000000000"), true, "count"},
		{
			"ignored map of 2^62 entries of no byte", unhex(t, "23ff8b030101044172677301ff8c0001020101410104000105457874726101ff8e00000010ff8d040102ff8e0001ff9001ff90000015ff8f030101014501ff9000010101015801040000000c"+
				"ff8c02f84000000000000000"), true, "count",
		},
		{"slice of 2^29", unhex(t, "19ff8903010104496e747301ff8a00010101014c01ff8c00000015ff8b020101075b5d696e74363401ff8c000104000008ff8a01fc20000000"), true, "count"},
		{"length of 10 MiB", unhex(t, "fd9fffff"), false, "message bytes"},
		{"length of 8 GiB", unhex(t, "fb01ffffffff"), false, "message bytes"},
		{"length of 2^64-1", unhex(t, "f8ffffffffffffffff"), false, "message bytes"},
		{"definition of 2^28 fields", unhex(t, "13ff8b030101014101ff8c0001fc100000000000 03ff8c00"), true, "count"},
		{"list of 2,000 levels", levels(2000), true, "depth"},
		{"list of 2,000,000 levels", levels(2_000_000), true, "depth"},
		{"ignored recursive struct", ignored(2_000_000), true, "depth"},
		{"300 definitions", deep(300), true, "definitions"},
		{"100,000 definitions", deep(100_000), true, "definitions"},
		{"no bytes in a message", "\x00", false, "zero"},
		{"no type id", "\x01\xff", false, "type id"},
	}
}

// TestAttacksByReadGob: every attack is refused in bounded memory; where its
// end can be found, the reader stands there.
func TestAttacksByReadGob(t *testing.T) {
	const limit = 4 << 20
	read := func(target any, r *bufio.Reader) error {
		limits := endpoint.Limits{Decoded: limit}
		switch v := target.(type) {
		case *hasMap:
			return endpoint.ReadGob(r, v, limits)
		case *hasInts:
			return endpoint.ReadGob(r, v, limits)
		case *hasA:
			return endpoint.ReadGob(r, v, limits)
		case *linked:
			return endpoint.ReadGob(r, v, limits)
		case *types.ComplexData:
			return endpoint.ReadGob(r, v, limits)
		}
		panic("no such target")
	}
	for _, a := range attacks(t) {
		for _, target := range []any{new(hasMap), new(hasInts), new(hasA), new(linked), new(types.ComplexData)} {
			r := bufio.NewReader(strings.NewReader(a.gob + "NEXT"))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := read(target, r)
			runtime.ReadMemStats(&after)
			name := fmt.Sprintf("%s into %T", a.name, target)
			if !raceEnabled {
				assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2*limit+4*min(len(a.gob), 4<<20)+1<<20), name)
			}
			if err == nil {
				assert.NotContains(t, a.text, "count", name)
				continue
			}
			f := failure(t, err)
			rest, _ := io.ReadAll(r)
			if a.ends {
				assert.Equal(t, endpoint.OutcomeNotRun, f.Outcome, name)
				assert.Equal(t, "NEXT", string(rest), name)
			} else {
				assert.Equal(t, endpoint.OutcomeUnknown, f.Outcome, name)
			}
		}
		assert.Zero(t, endpoint.HeldByReadGob())
	}
}

// TestAttacksOnNode: the same against a node, by GOB and by typed commands. It
// answers as PROTOCOL.md says, and serves on.
func TestAttacksOnNode(t *testing.T) {
	const limit = 4 << 20
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.Decoded = limit
		handlers.Register(e)
		handleSize[hasMap](e, "MAP")
		handleSize[hasInts](e, "INTS")
		handleSize[hasA](e, "A")
		handleSize[linked](e, "LINKED")
	})
	refusals := map[string]int{}
	for _, a := range attacks(t) {
		for _, name := range []string{"MAP", "INTS", "A", "LINKED", "REVERSE", "SUM", "GOB"} {
			c := n.dial(t)
			c.ping()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c.send(name + "\n" + a.gob)
			what := a.name + " at " + name
			if name == "GOB" {
				c.closeWrite()
				_ = c.end() // nothing is answered, and a refused gob ends the connection
			} else {
				answer := c.line()
				switch {
				case !a.ends:
					assert.Regexp(t, `^ERR (invalid_argument|resource_exhausted) not_run `, answer, what)
					assert.Contains(t, answer, a.text, what)
					assert.Empty(t, c.end(), what)
				case answer == "OK" || strings.HasPrefix(answer, "OK"):
					assert.NotEqual(t, "count", a.text, what)
				default:
					refusals[a.text]++
					assert.Regexp(t, `^ERR (invalid_argument|resource_exhausted) not_run `, answer, what)
					c.ping()
				}
			}
			runtime.ReadMemStats(&after)
			if !raceEnabled {
				assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2*limit+4*min(len(a.gob), 4<<20)+1<<20), what)
			}
			_ = c.Close()
		}
	}
	t.Log(refusals)
	for _, text := range []string{"count", "depth", "definitions"} {
		assert.NotZero(t, refusals[text])
	}
	assertReleased(t, n)
}

// TestAmplification: small messages of many large elements.
func TestAmplification(t *testing.T) {
	const limit = 4 << 20
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.Decoded = limit
		handleSize[hasList](e, "LIST")
		handleSize[many](e, "MANY")
		handleSize[maps](e, "MAPS")
	})
	ok, refused := 0, 0
	for _, count := range []int{1, 500, 1000, 1100, 10_000, 100_000} {
		for name, v := range map[string]any{
			"MANY": many{make([]fields25, count)}, "MAPS": maps{make([]map[string]int, count)},
			"LIST": hasList{make([]struct{ A [4096]byte }, min(count, 2000))},
		} {
			if name == "MAPS" {
				for i := range v.(maps).L {
					v.(maps).L[i] = map[string]int{}
				}
			}
			var b bytes.Buffer
			require.NoError(t, gob.NewEncoder(&b).Encode(v))
			if b.Len() > 4<<20 {
				continue
			}
			c := n.dial(t)
			c.ping()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c.send(name + "\n" + b.String())
			answer := c.line()
			runtime.ReadMemStats(&after)
			if answer == "OK" {
				ok++
			} else {
				assert.Regexp(t, `^ERR resource_exhausted not_run .*decoded bytes: \d+, more than 4194304$`, answer)
				refused++
			}
			if !raceEnabled { // tries with less come first: 1/4 + 1/16 + ... of the last
				assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2*limit+4*b.Len()+1<<20), "%s × %d", name, count)
			}
			c.ping()
			_ = c.Close()
		}
	}
	assert.NotZero(t, ok)
	assert.NotZero(t, refused)
	assertReleased(t, n)
}

func TestReadGob(t *testing.T) {
	good := gobOf(t, text{"hello"})
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader,
		"with EOF": iotest.DataErrReader, "halves": iotest.HalfReader,
	} {
		r := bufio.NewReader(wrap(strings.NewReader(good + good + "PING\n")))
		for range 2 {
			var v text
			require.NoError(t, endpoint.ReadGob(r, &v, endpoint.Limits{}), name)
			assert.Equal(t, "hello", v.S)
		}
		rest, err := io.ReadAll(r)
		require.NoError(t, err)
		assert.Equal(t, "PING\n", string(rest), name)
		var v text
		assert.ErrorIs(t, endpoint.ReadGob(r, &v, endpoint.Limits{}), io.EOF, "before the first byte")
		assert.NotErrorIs(t, endpoint.ReadGob(r, &v, endpoint.Limits{}), io.ErrUnexpectedEOF)
	}
	for i := 1; i < len(good); i++ {
		var v text
		err := endpoint.ReadGob(bufio.NewReader(strings.NewReader(good[:i])), &v, endpoint.Limits{})
		assert.ErrorIs(t, err, io.ErrUnexpectedEOF, "after %d bytes", i)
		assert.Equal(t, endpoint.OutcomeUnknown, endpoint.OutcomeOf(err))
	}
	broken := errors.New("broken")
	var v text
	r := bufio.NewReader(io.MultiReader(strings.NewReader(good[:10]), iotest.ErrReader(broken)))
	assert.ErrorIs(t, endpoint.ReadGob(r, &v, endpoint.Limits{}), broken)
	// Refused, read whole.
	r = bufio.NewReader(strings.NewReader(gobOf(t, []int{1}) + "rest"))
	assertFailed(t, endpoint.ReadGob(r, &v, endpoint.Limits{}), endpoint.InvalidArgument, endpoint.OutcomeNotRun, "text")
	rest, _ := io.ReadAll(r)
	assert.Equal(t, "rest", string(rest))
	r = bufio.NewReader(strings.NewReader(gobOf(t, text{strings.Repeat("x", 100)}) + "rest"))
	assertFailed(t, endpoint.ReadGob(r, &v, endpoint.Limits{Decoded: 100}), endpoint.ResourceExhausted, endpoint.OutcomeNotRun, ".S: decoded bytes: 104, more than 100")
	rest, _ = io.ReadAll(r)
	assert.Equal(t, "rest", string(rest))
	r = bufio.NewReader(strings.NewReader(good))
	assertFailed(t, endpoint.ReadGob(r, &v, endpoint.Limits{Message: len(good) - 1}), endpoint.ResourceExhausted, endpoint.OutcomeUnknown, "message bytes")
	// A type that gob cannot hold is found before anything is read.
	r = bufio.NewReader(strings.NewReader(good))
	var bad withInterface
	assertFailed(t, endpoint.ReadGob(r, &bad, endpoint.Limits{}), endpoint.InvalidArgument, endpoint.OutcomeUnknown, "Items[].Value: interface")
	rest, _ = io.ReadAll(r)
	assert.Equal(t, good, string(rest))
	assert.Zero(t, endpoint.HeldByReadGob())
}

// TestReadGobEmptyStruct: no data is written for one, so none is read.
func TestReadGobEmptyStruct(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, endpoint.WriteGob(&b, &empty{}))
	assert.Zero(t, b.Len())
	r := bufio.NewReader(strings.NewReader("PING\n"))
	require.NoError(t, endpoint.ReadGob(r, &empty{}, endpoint.Limits{}))
	rest, _ := io.ReadAll(r)
	assert.Equal(t, "PING\n", string(rest))
}

type writes []string

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, string(p))
	return len(p), nil
}

func TestWriteGob(t *testing.T) {
	v := sample()
	v.Map = map[string][]int{"a": {1}}
	var w writes
	require.NoError(t, endpoint.WriteGob(&w, &v))
	require.Len(t, w, 1, "in one Write")
	assert.Equal(t, gobOf(t, v), w[0], "byte for byte what encoding/gob writes")
	var back everything
	require.NoError(t, gob.NewDecoder(strings.NewReader(w[0])).Decode(&back))
	require.NoError(t, endpoint.ReadGob(bufio.NewReader(strings.NewReader(w[0])), &back, endpoint.Limits{}))
	assert.Equal(t, v, back)
	for name, err := range map[string]error{
		"Items[].Value: interface": endpoint.WriteGob(&w, new(withInterface)),
		"will not":                 endpoint.WriteGob(&w, &holder{brokenGob{"error"}}),
		"panic":                    endpoint.WriteGob(&w, &holder{brokenGob{"panic"}}),
		"nil":                      endpoint.WriteGob[text](&w, nil),
	} {
		assertFailed(t, err, endpoint.InvalidArgument, endpoint.OutcomeNotRun, name)
	}
	loop := &linked{}
	loop.N = loop
	assertFailed(t, endpoint.WriteGob(&w, loop), endpoint.ResourceExhausted, endpoint.OutcomeNotRun, "depth")
	assert.Len(t, w, 1, "nothing is written of what fails")
	broken := errors.New("broken")
	assert.ErrorIs(t, endpoint.WriteGob(failing{broken}, &v), broken)
	var nowhere text
	assertFailed(t, endpoint.ReadGob[text](bufio.NewReader(strings.NewReader(gobOf(t, nowhere))), nil, endpoint.Limits{}), endpoint.InvalidArgument, endpoint.OutcomeNotRun, "nil pointer")
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
