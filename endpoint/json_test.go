package endpoint_test

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"strings"
	"testing"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type (
	fat       struct{ A [64 << 10]byte }
	fatList   struct{ L []fat }
	fatPtrs   struct{ L []*fat }
	fatMaps   struct{ M map[string]fat }
	opaqueFat struct{ L []fat } // sends itself as a gob in two bytes; JSON looks inside
	opaqueAny struct{ V any }
	wide      struct {
		L []struct{ A, B, C, D, E, F, G, H string }
	}
	tree struct{ L []tree }
)

func (o opaqueFat) GobEncode() ([]byte, error)   { return []byte("x"), nil }
func (o *opaqueFat) GobDecode([]byte) error      { return nil }
func (o opaqueAny) GobEncode() ([]byte, error)   { return []byte("x"), nil }
func (o *opaqueAny) GobDecode(data []byte) error { return nil }

// handleSize registers a command that takes a T.
func handleSize[T any](e *endpoint.Endpoint, name string) {
	endpoint.Command[T, empty](name).Handle(e, func(context.Context, T) (empty, error) { return empty{}, nil })
}

// repeat returns n times s, separated by commas.
func repeat(s string, n int) string { return strings.TrimSuffix(strings.Repeat(s+",", n), ",") }

func distinct(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
		b.WriteByte(',')
	}
	return strings.TrimSuffix(b.String(), ",")
}

// TestJSONBound types lines of all sizes at commands whose types are large, or
// look small to gob: what a line makes the process allocate stays within
// Limits.Decoded, refused or not.
func TestJSONBound(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	const limit = 4 << 20
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.Decoded, e.Limits.Line = limit, 64<<10
		handleSize[fatList](e, "LIST")
		handleSize[fatPtrs](e, "PTRS")
		handleSize[fatMaps](e, "MAPS")
		handleSize[struct{ O opaqueFat }](e, "OPAQUE")
		handleSize[opaqueAny](e, "ANY")
		handleSize[wide](e, "WIDE")
		handleSize[tree](e, "TREE")
		handleSize[string](e, "TEXT")
		handleSize[[]map[string]int](e, "LISTMAPS")
		handleSize[map[string]map[string]bool](e, "MAPMAPS")
		handleSize[[]big.Int](e, "BIG")
		handleSize[[][]int8](e, "SMALL")
	})
	refused, accepted := map[string]int{}, map[string]int{}
	for name, line := range map[string]func(int) string{
		"LIST":     func(n int) string { return `{"L":[` + repeat("null", n) + `]}` },
		"PTRS":     func(n int) string { return `{"L":[` + repeat("{}", n) + `]}` },
		"MAPS":     func(n int) string { return `{"M":{` + distinct(`"%d":{}`, n) + `}}` },
		"OPAQUE":   func(n int) string { return `{"O":{"L":[` + repeat("{}", n) + `]}}` },
		"ANY":      func(n int) string { return `{"V":[` + repeat(`{"":[{}]}`, n) + `]}` },
		"WIDE":     func(n int) string { return `{"L":[` + repeat(`{}`, n) + `]}` },
		"TREE":     func(n int) string { return strings.Repeat(`{"L":[`, n) + strings.Repeat(`]}`, n) },
		"TEXT":     func(n int) string { return `"` + strings.Repeat("\xff", n) + `"` },
		"LISTMAPS": func(n int) string { return `[` + repeat(`{"":0}`, n) + `]` },
		"MAPMAPS":  func(n int) string { return `{` + distinct(`"%d":{"":true}`, n) + `}` },
		"BIG":      func(n int) string { return `[` + repeat(`1`, n) + `]` },
		"SMALL":    func(n int) string { return `[` + repeat(`[1]`, n) + `]` },
	} {
		for count := 1; count < 12_000; count = count*3/2 + 1 {
			request := name + " " + line(count) + "\n"
			if len(request) > n.Limits.Line {
				break
			}
			c := n.dial(t)
			c.ping()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c.send(request)
			answer := c.line()
			runtime.ReadMemStats(&after)
			allocated := int(after.TotalAlloc - before.TotalAlloc)
			if strings.HasPrefix(answer, "OK ") {
				accepted[name]++
			} else {
				refused[name]++
				assert.Regexp(t, `^ERR (resource_exhausted not_run JSON that may take \d+ bytes decoded, more than 4194304: send a gob|`+
					`invalid_argument not_run JSON nested more than 1000 deep)$`, answer)
			}
			// The buffers of a line of this size are apart from what it decodes to.
			assert.Less(t, allocated, limit+4*len(request)+256<<10, "%s × %d: %s", name, count, answer)
			c.ping()
			_ = c.Close()
		}
	}
	t.Log("accepted", accepted, "refused", refused)
	for _, name := range []string{"LIST", "PTRS", "MAPS", "OPAQUE", "ANY", "WIDE"} {
		assert.NotZero(t, refused[name], name)
	}
	for _, name := range []string{"LIST", "PTRS", "OPAQUE", "ANY", "WIDE", "TREE", "TEXT", "LISTMAPS", "BIG", "SMALL"} {
		assert.NotZero(t, accepted[name], name)
	}
	assertReleased(t, n)
}

// TestJSONOf8KiB is the attack itself: 8 KB of JSON for which encoding/json
// alone allocates hundreds of MiB, against the default limits.
func TestJSONOf8KiB(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	n := tcpNode(t, func(e *endpoint.Endpoint) { handleSize[fatList](e, "FAT") })
	c := n.dial(t)
	c.ping()
	line := "FAT " + `{"L":[` + repeat("{}", 2700) + `]}` + "\n"
	require.Less(t, len(line), 8<<10)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.send(line)
	assert.Contains(t, c.line(), "ERR resource_exhausted not_run JSON that may take")
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
	c.ping()
	c.send("FAT " + `{"L":[` + repeat("null", 100) + `]}` + "\n")
	assert.Equal(t, "OK {}", c.line(), "100 elements of 64 KiB may be typed")
	c.ping()
}

// TestJSONInFlight: what a line may decode to is charged before it is decoded.
func TestJSONInFlight(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.InFlight = 4 << 20
		endpoint.Command[fatList, empty]("HOLD").Handle(e, func(context.Context, fatList) (empty, error) {
			entered <- struct{}{}
			<-release
			return empty{}, nil
		})
	})
	first, second := n.dial(t), n.dial(t)
	first.send(`HOLD {"L":[{},{}]}` + "\n")
	<-entered
	assert.Greater(t, n.Held(), int64(128<<10))
	second.send(`HOLD {"L":[{},{}]}` + "\n")
	assert.Contains(t, second.line(), "ERR resource_exhausted not_run the calls under way hold")
	second.ping()
	close(release)
	assert.Equal(t, "OK {}", first.line())
	assertReleased(t, n)
	go func() { <-entered }()
	second.send(`HOLD {"L":[{},{}]}` + "\n")
	assert.Equal(t, "OK {}", second.line())
}

// TestJSONPanics: methods that JSON calls may panic too.
func TestJSONPanics(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		endpoint.Command[jsonBomb, jsonBomb]("BOMB").Handle(e, func(_ context.Context, b jsonBomb) (jsonBomb, error) { return b, nil })
	})
	c := n.dial(t)
	for _, test := range [][2]string{
		{`BOMB {"When":"later"}`, `^OK \{"When":"later"\}$`},
		{`BOMB {"When":"in"}`, `^ERR internal not_run .*incident [0-9a-f]{8}$`},
		{`BOMB {"When":"out"}`, `^ERR internal failed .*incident [0-9a-f]{8}$`},
		{`BOMB {"When":"error in"}`, `^ERR invalid_argument not_run will not$`},
		{`BOMB {"When":"error out"}`, `^ERR internal failed the reply cannot be encoded: .*will not$`},
		{`BOMB {"When":"later"}`, `^OK \{"When":"later"\}$`},
	} {
		c.send(test[0] + "\n")
		assert.Regexp(t, test[1], c.line())
	}
	assert.Len(t, n.with("a secret", "incident", "fuse"), 2, "%q", n.all())
	c.send(`BOMB {"When":"exit out"}` + "\n")
	assert.Regexp(t, `^ERR internal failed .*incident`, c.line())
	assert.Empty(t, c.end())
	assertReleased(t, n)
}

type jsonBomb struct{ When fuse }

type fuse string

func (f *fuse) UnmarshalJSON(p []byte) error {
	*f = fuse(strings.Trim(string(p), `"`))
	switch *f {
	case "in":
		panic("a secret")
	case "error in":
		return endpoint.Errorf(endpoint.DataLoss, "will not")
	}
	return nil
}

func (f fuse) MarshalJSON() ([]byte, error) {
	switch f {
	case "out":
		panic("a secret")
	case "exit out":
		runtime.Goexit()
	case "error out":
		return nil, errors.New("will not")
	}
	return []byte(`"` + f + `"`), nil
}

// TestJSONDepth: values inside values are bounded as those of gobs are, in
// strings they do not count, and the connection goes on.
func TestJSONDepth(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.Line = 64 << 10
		handleSize[tree](e, "TREE")
		handleSize[text](e, "TEXT")
	})
	c := n.dial(t)
	nested := func(levels int) string { // two levels each
		return strings.Repeat(`{"L":[`, levels) + strings.Repeat(`]}`, levels)
	}
	c.send("TREE " + nested(500) + "\n")
	c.expect("OK {}\n")
	for _, deep := range []string{nested(501), strings.Repeat("[", 1001), strings.Repeat(`{"L":`, 5000), `{"S":"\\",` + strings.Repeat("[", 2000)} {
		c.send("TREE " + deep + "\n")
		c.expect("ERR invalid_argument not_run JSON nested more than 1000 deep\n")
	}
	c.send(`TEXT {"S":"\"` + strings.Repeat("[", 2000) + "\"}\n")
	c.expect("OK {}\n")
	c.ping()
	assertReleased(t, n)
}
