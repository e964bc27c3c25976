package endpoint_test

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestUnusableNames(t *testing.T) {
	f := handle("")
	for name, text := range map[string]string{
		"":                      "an empty command name",
		strings.Repeat("x", 65): "longer than 64 bytes",
		"A B":                   "only printable ASCII without spaces",
		" A":                    "only printable ASCII without spaces",
		"A\n":                   "only printable ASCII without spaces",
		"A\x00":                 "only printable ASCII without spaces",
		"gr\u00fc\u00df":        "only printable ASCII without spaces",
		"\x7f":                  "only printable ASCII without spaces",
	} {
		var said any
		func() {
			defer func() { said = recover() }()
			new(endpoint.Endpoint).AddHandleFunc(name, f)
		}()
		require.IsType(t, "", said, "%q", name)
		assert.Contains(t, said, text, "%q", name)
		assert.True(t, strings.HasPrefix(said.(string), "endpoint: "), said)
		assert.Panics(t, func() { endpoint.New().Handle(name, f) })
	}
	for _, name := range []string{"x", strings.Repeat("x", 64), "!", "~", "a/b.c-d_e", "\"", "ERR"} {
		assert.NotPanics(t, func() { endpoint.New().AddHandleFunc(name, f) }, name)
	}
}

func TestNilHandlers(t *testing.T) {
	for name, register := range map[string]func(e *endpoint.Endpoint){
		"HandleFunc":       func(e *endpoint.Endpoint) { e.AddHandleFunc("X", nil) },
		"Handler":          func(e *endpoint.Endpoint) { e.Handle("X", nil) },
		"ServeFunc":        func(e *endpoint.Endpoint) { e.Handle("X", endpoint.ServeFunc(nil)) },
		"HandleFunc value": func(e *endpoint.Endpoint) { e.Handle("X", endpoint.HandleFunc(nil)) },
	} {
		e := endpoint.New()
		assert.Panics(t, func() { register(e) }, name)
		assert.Empty(t, e.Commands(), name)
	}
}

func TestCommands(t *testing.T) {
	var e endpoint.Endpoint // the zero value is ready
	assert.Empty(t, e.Commands())
	e.Describe("B", "second")
	assert.Empty(t, e.Commands(), "a description is no command")
	e.AddHandleFunc("B", handle("b"))
	e.AddHandleFunc("a", handle("a"))
	e.AddHandleFunc("A", handle("A"))
	e.Describe("A", "first")
	e.Describe("A", "the first")
	e.AddHandleFunc("B", handle("b again")) // keeps its description
	assert.Equal(t, []endpoint.CommandInfo{{Name: "A", Doc: "the first"}, {Name: "B", Doc: "second"}, {Name: "a"}}, e.Commands())
}

// TestReplaceWhileServing adds and replaces commands under connections that use
// them.
func TestReplaceWhileServing(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.AddHandleFunc("SLOW", func(rw *bufio.ReadWriter) {
			close(started)
			<-release
			_, _ = rw.WriteString("as it began\n")
		})
		e.AddHandleFunc("V", handle("0\n"))
	})
	slow := n.dial(t)
	slow.send("SLOW\nSLOW\n")
	c := n.dial(t)
	c.send("V\nLATER\n")
	c.expect("0\n")
	assert.Contains(t, c.end(), "ERR unimplemented not_run unknown command \"LATER\"")
	n.AddHandleFunc("LATER", handle("now\n"))
	c = n.dial(t)
	c.send("LATER\n")
	c.expect("now\n")
	<-started
	n.AddHandleFunc("SLOW", handle("replaced\n"))
	close(release)
	slow.expect("as it began\nreplaced\n")

	var wg sync.WaitGroup
	stop := make(chan struct{})
	for w := range 3 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				n.AddHandleFunc("V", handle(fmt.Sprintf("%d\n", i)))
				n.Describe("V", strconv.Itoa(w))
				n.AddHandleFunc(fmt.Sprintf("NEW-%d-%d", w, i%100), handle("new\n"))
				_ = n.Commands()
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			c := n.dial(t)
			for range 200 {
				c.send("V\n")
				c.line()
			}
		})
	}
	time.AfterFunc(200*time.Millisecond, func() { close(stop) })
	wg.Wait()
}

// TestManyCommands has 10,000 commands, finds each, and asks for names that are
// none in a table of near ones.
func TestManyCommands(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		for i := range 10_000 {
			e.AddHandleFunc(fmt.Sprintf("COMMAND-%05d", i), handle(fmt.Sprintf("%d\n", i)))
		}
	})
	c := n.dial(t)
	go func() {
		var b strings.Builder
		for i := range 10_000 {
			fmt.Fprintf(&b, "COMMAND-%05d\n", i)
		}
		_, _ = c.Write([]byte(b.String()))
	}()
	for i := range 10_000 {
		require.Equal(t, strconv.Itoa(i), c.line())
	}
	commands := n.Commands()
	assert.Len(t, commands, 10_002)
	assert.True(t, slices.IsSortedFunc(commands, func(a, b endpoint.CommandInfo) int { return strings.Compare(a.Name, b.Name) }))

	// The search looks at 1024 names and no more, so it takes a tenth of what
	// 10,000 would; it finds one of the near ones, and never fails.
	for _, name := range []string{"COMMAND-0000x", "COMMNAD-00000", "command-00000", strings.Repeat("COMMAND-", 8)} {
		near := n.Near(name)
		if near != "" {
			assert.LessOrEqual(t, endpoint.Distance(strings.ToUpper(near), strings.ToUpper(name)), 1, "%s for %s", near, name)
		}
	}
	c = n.dial(t)
	c.send("COMMAND-0000x\n")
	assert.Regexp(t, `^ERR unimplemented not_run unknown command "COMMAND-0000x"(; did you mean COMMAND-\d{5}\?)?\n$`, c.end())
}

func TestNear(t *testing.T) {
	e := endpoint.New()
	for _, name := range []string{"STRING", "GOB", "ECHO", "PING", "HELP", "A", "LongCommandName"} {
		e.AddHandleFunc(name, handle(""))
	}
	for name, want := range map[string]string{
		"string": "STRING", "String": "STRING", "STRNG": "STRING", "STRINGS": "STRING", "SRTING": "STRING", "STRONG": "STRING",
		"STRXYZ": "", "GOBB": "GOB", "gob": "GOB", "GO": "", "OGB": "GOB", "XYZ": "", "PONG": "PING", "EHLO": "", "a": "A", "B": "", "": "",
		"longcommandname": "LongCommandName", "LongComandName": "LongCommandName", strings.Repeat("S", 64): "", "HEPL": "HELP", "ECH": "ECHO",
	} {
		assert.Equal(t, want, e.Near(name), "%q", name)
	}
	assert.Empty(t, endpoint.New().Near("X"))
}

// TestNearIsBounded: a name that no other is like is found among 1,024 of its
// length each time, and among 10,000 only when the search comes upon it.
func TestNearIsBounded(t *testing.T) {
	found := func(names int) (times int) {
		e := endpoint.New()
		e.AddHandleFunc("QQQQQQQQQQQQ", handle(""))
		for i := range names - 1 {
			e.AddHandleFunc(fmt.Sprintf("COMMAND-%04d", i), handle(""))
		}
		for range 50 {
			if e.Near("QQQQQQQQQQQx") == "QQQQQQQQQQQQ" {
				times++
			}
		}
		return times
	}
	assert.Equal(t, 50, found(1024))
	assert.Less(t, found(10_000), 40) // 5 are to be expected; 40 once in more years than there are
}

// TestDistance compares with the definition, computed without a table.
func TestDistance(t *testing.T) {
	random := seeded(t)
	word := func() string {
		b := make([]byte, random.IntN(7))
		for i := range b {
			b[i] = "ABC"[random.IntN(3)]
		}
		return string(b)
	}
	for range 2000 {
		a, b := word(), word()
		assert.Equal(t, slowDistance(a, b), endpoint.Distance(a, b), "%q %q", a, b)
	}
	long := strings.Repeat("x", 64)
	assert.Equal(t, 64, endpoint.Distance(long, ""))
	assert.Equal(t, 64, endpoint.Distance("", long))
	assert.Equal(t, 2, endpoint.Distance(long[:62], long))
}

func slowDistance(a, b string) int {
	if a == "" || b == "" {
		return len(a) + len(b)
	}
	cost := 1
	if a[0] == b[0] {
		cost = 0
	}
	d := min(slowDistance(a[1:], b[1:])+cost, slowDistance(a[1:], b)+1, slowDistance(a, b[1:])+1)
	if len(a) > 1 && len(b) > 1 && a[0] == b[1] && a[1] == b[0] {
		d = min(d, slowDistance(a[2:], b[2:])+1)
	}
	return d
}

// TestServeFuncTypes: each of the types is a Handler.
func TestServeFuncTypes(t *testing.T) {
	var rw bufio.ReadWriter
	called := 0
	f := endpoint.HandleFunc(func(got *bufio.ReadWriter) {
		assert.Same(t, &rw, got)
		called++
	})
	require.NoError(t, f.ServeCommand(t.Context(), &rw))
	g := endpoint.ServeFunc(func(ctx context.Context, got *bufio.ReadWriter) error {
		assert.Same(t, &rw, got)
		called++
		return ctx.Err()
	})
	require.NoError(t, g.ServeCommand(t.Context(), &rw))
	assert.Equal(t, 2, called)
}
