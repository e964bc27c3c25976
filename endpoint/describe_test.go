package endpoint_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/types"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type (
	count       int
	level       uint8 // goes as a number by gob and as text by JSON
	color       struct{ R, G, B uint8 }
	colors      []color
	byName      map[string]*color
	page[T any] struct {
		Items []T
		Next  *page[T]
	}
	base   struct{ ID int64 }
	hidden struct{ Inside string }
	mixed  struct {
		base2
		*base
		Base
		count //nolint:unused // not sent, and so not shown
		Count
		hidden
		Plain   string `json:"plain,omitempty" note:"x"`
		private int    //nolint:unused // not sent, and so not shown
	}
	Base      struct{ Kind string }
	base2     struct{ Two int }
	Count     int
	self      struct{ N *self }
	ring      struct{ To map[string][]ring }
	a         struct{ B []b }
	b         struct{ A *a }
	keys      struct{ M map[color]int }
	big1      struct{ A [1 << 24]byte }
	big2      struct{ L []big1 }
	doubling0 struct{ A, B []doubling1 }
	doubling1 struct{ A, B []doubling2 }
	doubling2 struct{ A, B []doubling3 }
	doubling3 struct{ A, B []doubling4 }
	doubling4 struct{ A, B []doubling5 }
	doubling5 struct{ A, B []doubling6 }
	doubling6 struct{ A, B []doubling7 }
	doubling7 struct{ A, B []doubling8 }
	doubling8 struct{ A, B [][4]color }
	panicky   struct{ When explosive }
	explosive string
	picky     struct{ P onlyYes }
	onlyYes   string
)

func (l level) MarshalText() ([]byte, error) { return fmt.Append(nil, "level-", int(l)), nil }
func (l *level) UnmarshalText(p []byte) error {
	_, err := fmt.Sscanf(string(p), "level-%d", (*uint8)(l))
	return err
}
func (explosive) MarshalJSON() ([]byte, error) { panic("a secret") }
func (p *onlyYes) UnmarshalJSON(b []byte) error {
	if string(b) != `"yes"` {
		return errors.New("not yes")
	}
	*p = "yes"
	return nil
}

// described returns what Commands says of a command with the request T, and
// checks that its example decodes by the JSON form.
func described[T any](t *testing.T) endpoint.CommandInfo {
	t.Helper()
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		endpoint.Command[T, empty]("D").Handle(e, func(context.Context, T) (empty, error) { return empty{}, nil })
	})
	info := n.Commands()[0]
	require.Equal(t, "D", info.Name)
	if info.Example != "" {
		c := n.dial(t)
		c.send("D " + info.Example + "\n")
		assert.Equal(t, "OK {}", c.line(), "%s", info.Example)
		assert.NotContains(t, info.Example, "\n")
	}
	return info
}

func TestDescribe(t *testing.T) {
	for _, test := range []struct {
		info          endpoint.CommandInfo
		text, example string
	}{
		{described[empty](t), "type empty struct{}", "{}"},
		{described[struct{}](t), "struct{}", "{}"},
		{described[int](t), "int", "0"},
		{described[count](t), "int", "0"},
		{described[[]byte](t), "[]byte", `"AA=="`},
		{described[string](t), "string", `"text"`},
		{described[*color](t), "*color\ntype color struct {\n\tR uint8\n\tG uint8\n\tB uint8\n}", `{"R":0,"G":0,"B":0}`},
		{described[colors](t), "type colors []color\ntype color struct {\n\tR uint8\n\tG uint8\n\tB uint8\n}", `[{"R":0,"G":0,"B":0}]`},
		{described[byName](t), "type byName map[string]*color\ntype color struct {\n\tR uint8\n\tG uint8\n\tB uint8\n}", `{"text":{"R":0,"G":0,"B":0}}`},
		{described[[2][]int](t), "[2][]int", `[[0],null]`},
		{described[map[int][]string](t), "map[int][]string", `{"0":["text"]}`},
		{described[struct {
			A int `json:"a"`
			B struct{ C *bool }
		}](t), "struct {\n\tA int `json:\"a\"`\n\tB struct {\n\t\tC *bool\n\t}\n}", `{"a":0,"B":{"C":false}}`},
		{
			described[page[color]](t), "type page[color] struct {\n\tItems []color\n\tNext *page[color]\n}\ntype color struct {\n\tR uint8\n\tG uint8\n\tB uint8\n}",
			`{"Items":[{"R":0,"G":0,"B":0}],"Next":null}`,
		},
		{
			described[page[map[string]types.SumRequest]](t),
			"type page[map[string]SumRequest] struct {\n\tItems []map[string]SumRequest\n\tNext *page[map[string]SumRequest]\n}\ntype SumRequest struct {\n\tNumbers []float64\n}",
			`{"Items":[{"text":{"Numbers":[0]}}],"Next":null}`,
		},
		{described[self](t), "type self struct {\n\tN *self\n}", `{"N":null}`},
		{described[ring](t), "type ring struct {\n\tTo map[string][]ring\n}", `{"To":{"text":null}}`},
		{described[a](t), "type a struct {\n\tB []b\n}\ntype b struct {\n\tA *a\n}", `{"B":[{"A":null}]}`},
		{described[time.Time](t), "time.Time", `"0001-01-01T00:00:00Z"`},
		{described[struct {
			At   time.Time
			From netip.Addr
			N    *big.Int
		}](t), "struct {\n\tAt time.Time\n\tFrom netip.Addr\n\tN *big.Int\n}", `{"At":"0001-01-01T00:00:00Z","From":"","N":0}`},
		{described[struct{ L level }](t), "struct {\n\tL uint8\n}", `{"L":"level-0"}`},
		{described[mixed](t), "type mixed struct {\n\tBase\n\tCount int\n\tPlain string `json:\"plain,omitempty\" note:\"x\"`\n}\ntype Base struct {\n\tKind string\n}", `{"Two":0,"Kind":"text","Count":0,"Inside":"","plain":"text"}`},
		{described[complex128](t), "complex128", ""},
		{described[keys](t), "type keys struct {\n\tM map[color]int\n}\ntype color struct {\n\tR uint8\n\tG uint8\n\tB uint8\n}", ""},
		{described[big1](t), "type big1 struct {\n\tA [16777216]uint8\n}", ""},
		{described[panicky](t), "type panicky struct {\n\tWhen string\n}", ""},
		{described[picky](t), "type picky struct {\n\tP string\n}", ""},
		{
			described[types.ComplexData](t),
			"type ComplexData struct {\n\tN int\n\tS string\n\tM map[string]int\n\tP []byte\n\tC *ComplexData\n}",
			`{"N":0,"S":"text","M":{"text":0},"P":"AA==","C":null}`,
		},
	} {
		assert.Equal(t, test.text, test.info.Request)
		assert.Equal(t, test.example, test.info.Example, "%s", test.text)
		assert.Equal(t, "type empty struct{}", test.info.Reply)
	}
}

// TestDescribeSameName: two types of one name are told apart.
func TestDescribeSameName(t *testing.T) {
	type SumRequest struct{ Other int }
	info := described[struct {
		A SumRequest
		B types.SumRequest
	}](t)
	assert.Equal(t, "struct {\n\tA SumRequest\n\tB types.SumRequest\n}\ntype SumRequest struct {\n\tOther int\n}\ntype types.SumRequest struct {\n\tNumbers []float64\n}", info.Request)
}

// TestDescribeIsBounded: huge and many-branched types take neither memory nor
// time worth mentioning.
func TestDescribeIsBounded(t *testing.T) {
	var before, after runtime.MemStats
	e := endpoint.New()
	handleSize[big2](e, "BIG")
	handleSize[doubling0](e, "DOUBLING")
	runtime.ReadMemStats(&before)
	infos := e.Commands()
	runtime.ReadMemStats(&after)
	if !raceEnabled {
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
	}
	for _, info := range infos {
		assert.Less(t, len(info.Example), 1<<10+1, info.Name)
		assert.True(t, info.Example == "" || json.Valid([]byte(info.Example)))
		assert.NotEmpty(t, info.Request)
	}
}

// TestDescribeAgrees: Commands, LIST, DESCRIBE and HELP tell the same.
func TestDescribeAgrees(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		handlers.Register(e)
		handleSize[mixed](e, "MIXED")
		e.Describe("MIXED", "Takes a bit of everything.")
	})
	infos := n.Commands()
	c := openConn(t, n, nil)
	list, err := types.List.Call(t.Context(), c, types.ListRequest{})
	require.NoError(t, err)
	require.Len(t, list.Commands, len(infos))
	require.NoError(t, c.Command("HELP"))
	require.NoError(t, c.CloseWrite())
	help, err := io.ReadAll(c)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSuffix(string(help), "\n"), "\n")
	require.Len(t, lines, len(infos))
	for i, info := range infos {
		assert.Equal(t, types.CommandSummary{Name: info.Name, Kind: info.Kind.String(), Doc: info.Doc}, list.Commands[i])
		d, err := types.Describe.Call(t.Context(), n.Endpoint, types.DescribeRequest{Name: info.Name})
		require.NoError(t, err)
		assert.Equal(t, types.CommandDescription{
			Name: info.Name, Kind: info.Kind.String(), Doc: info.Doc, Request: info.Request, Reply: info.Reply, Example: info.Example,
		}, d)
		name, doc, _ := strings.Cut(lines[i], " ")
		assert.Equal(t, info.Name, name)
		assert.Equal(t, info.Doc, strings.TrimLeft(doc, " "))
		assert.Equal(t, info.Kind == endpoint.KindRaw, info.Request == "")
	}
	_, err = types.Describe.Call(t.Context(), n.Endpoint, types.DescribeRequest{Name: "NO"})
	assertFailed(t, err, endpoint.NotFound, endpoint.OutcomeFailed, `no command "NO" here`)
}

// TestRegisterRefused: a type that gob cannot hold is found when the program
// starts, with the path of the field.
func TestRegisterRefused(t *testing.T) {
	e := endpoint.New()
	for path, register := range map[string]func(){
		`endpoint: command "X": endpoint_test.withInterface.Items[].Value: interface`: func() { handleSize[withInterface](e, "X") },
		`endpoint: command "X": []chan int[]: chan`:                                   func() { handleSize[[]chan int](e, "X") },
		`endpoint: command "X": func(): func`: func() {
			endpoint.Command[empty, func()]("X").Handle(e, func(context.Context, empty) (func(), error) { return nil, nil })
		},
		`endpoint: command "X": struct { x int }: struct without exported fields`: func() { handleSize[struct{ x int }](e, "X") },
		`endpoint: nil function for command "X"`:                                  func() { endpoint.Command[empty, empty]("X").Handle(e, nil) },
	} {
		assert.PanicsWithValue(t, path, register)
	}
	assert.Panics(t, func() { handleSize[empty](e, "two words") })
	assert.Empty(t, e.Commands())
}

// TestRegisterWarns: what gob cannot tell apart is logged, once.
func TestRegisterWarns(t *testing.T) {
	type inner struct{ Flag *bool }
	type lossy struct {
		Count *int
		List  []inner
		Fine  *struct{ X int }
	}
	log := new(journal)
	e := endpoint.New()
	e.Logger = log.logger()
	endpoint.Command[lossy, lossy]("LOSSY").Handle(e, func(_ context.Context, l lossy) (lossy, error) { return l, nil })
	assert.Len(t, log.all(), 2, "%q", log.all())
	assert.Len(t, log.with("level=WARN", "LOSSY", "lossy.Count: pointer to a zero value arrives as nil"), 1)
	assert.Len(t, log.with("level=WARN", "LOSSY", "Flag: pointer to a zero value arrives as nil"), 1)
	zero := 0
	reply, err := endpoint.Command[lossy, lossy]("LOSSY").Call(t.Context(), e, lossy{Count: &zero})
	require.NoError(t, err)
	assert.Nil(t, reply.Count, "and it is true")
	require.NoError(t, e.Close())
}

// TestDescribeCallsNobodyUnderLock: describing calls methods of the types.
func TestDescribeCallsNobodyUnderLock(t *testing.T) {
	e := endpoint.New()
	inside = func() { e.AddHandleFunc("ADDED", handle("")) }
	defer func() { inside = func() {} }()
	handleSize[struct{ N nosy }](e, "NOSY")
	done := make(chan int)
	go func() { done <- len(e.Commands()) }()
	select {
	case n := <-done:
		assert.Equal(t, 1, n)
	case <-time.After(patience):
		t.Fatal("deadlock")
	}
	assert.Len(t, e.Commands(), 2)
}

var inside = func() {}

type nosy string

func (nosy) MarshalJSON() ([]byte, error) { inside(); return []byte(`"x"`), nil }

// moody is a request whose JSON cannot be made while it says so.
type moody struct{ A int }

var moodyNow atomic.Value

func (moody) MarshalJSON() ([]byte, error) {
	switch moodyNow.Load() {
	case "panic":
		panic("a secret")
	case "goexit":
		runtime.Goexit()
	}
	return []byte(`{"A":1}`), nil
}

// TestDescribePanicsOnce: what a first look at a command's types ran into is
// not kept.
func TestDescribePanicsOnce(t *testing.T) {
	for _, how := range []string{"panic", "goexit"} {
		e := endpoint.New()
		handleSize[moody](e, "D")
		moodyNow.Store(how)
		done := make(chan string, 1)
		go func() {
			defer close(done)
			done <- e.Commands()[0].Example
		}()
		assert.Empty(t, <-done)
		moodyNow.Store("")
		info := e.Commands()[0]
		assert.Equal(t, `{"A":1}`, info.Example, how)
		assert.Equal(t, "type moody struct {\n\tA int\n}", info.Request, how)
	}
}
