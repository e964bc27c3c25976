package handlers_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/types"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A run is a command run by itself on bytes.
type run struct {
	in   *strings.Reader
	rw   *bufio.ReadWriter
	out  bytes.Buffer
	fail error // of writing
}

func newRun(in string) *run {
	r := &run{in: strings.NewReader(in)}
	r.rw = bufio.NewReadWriter(bufio.NewReaderSize(r.in, 8<<10), bufio.NewWriter(r))
	return r
}

func (r *run) Write(p []byte) (int, error) {
	if r.fail != nil {
		return 0, r.fail
	}
	return r.out.Write(p)
}

// rest returns what the command left unread.
func (r *run) rest(t *testing.T) string {
	rest, err := io.ReadAll(r.rw)
	require.NoError(t, err)
	return string(rest)
}

var errWrite = errors.New("cannot write")

func TestPing(t *testing.T) {
	r := newRun("not read")
	handlers.Ping(r.rw)
	assert.Equal(t, "PONG\n", r.out.String(), "flushed")
	assert.Equal(t, "not read", r.rest(t))
	r.fail = errWrite
	assert.NotPanics(t, func() { handlers.Ping(r.rw) })
}

func TestString(t *testing.T) {
	long := strings.Repeat("x", 8<<10-1)
	for name, tt := range map[string]struct{ in, rest, fails string }{
		"line":             {"hello\nrest", "rest", ""},
		"CRLF":             {"hello\r\nrest", "rest", ""},
		"empty":            {"\nrest", "rest", ""},
		"without an end":   {"hello", "", ""},
		"CR at the end":    {"hello\r", "", ""},
		"as long as it is": {long + "\nrest", "rest", ""},
		"nothing":          {"", "", "STRING data: EOF"},
		"too long":         {long + "x\n", "", "STRING data: a line of more than 8192 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRun(tt.in)
			err := handlers.String(t.Context(), r.rw)
			if tt.fails != "" {
				require.ErrorContains(t, err, tt.fails)
				assert.Empty(t, r.out.String())
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "Thank you.\n", r.out.String(), "flushed")
			assert.Equal(t, tt.rest, r.rest(t))
		})
	}
	r := newRun("hello\n")
	r.fail = errWrite
	assert.ErrorIs(t, handlers.String(t.Context(), r.rw), errWrite)
	assert.ErrorIs(t, handlers.String(t.Context(), newRun("").rw), io.EOF)
}

func TestEcho(t *testing.T) {
	for name, tt := range map[string]struct{ in, out, rest string }{
		"exit":              {"one\ntwo\nexit\nrest", "Message received: one\nMessage received: two\n", "rest"},
		"quit":              {"one\nquit\nrest", "Message received: one\n", "rest"},
		"exit with CR":      {"exit\r\nrest", "", "rest"},
		"CRLF":              {"one\r\nquit\n", "Message received: one\n", ""},
		"empty line":        {"\nquit\n", "Message received: \n", ""},
		"end":               {"one\n", "Message received: one\n", ""},
		"end within a line": {"one", "Message received: one\n", ""},
		"exit without end":  {"exit", "", ""},
		"nothing":           {"", "", ""},
		"not quite exit":    {"exit \nEXIT\n exit\nquit\n", "Message received: exit \nMessage received: EXIT\nMessage received:  exit\n", ""},
		"bytes":             {"\x00\xff\r\r\n", "Message received: \x00\xff\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRun(tt.in)
			require.NoError(t, handlers.Echo(t.Context(), r.rw))
			assert.Equal(t, tt.out, r.out.String())
			assert.Equal(t, tt.rest, r.rest(t))
		})
	}
	assert.ErrorContains(t, handlers.Echo(t.Context(), newRun(strings.Repeat("x", 9000)).rw), "ECHO data: a line of more than 8192 bytes")
	r := newRun("one\ntwo\n")
	r.fail = errWrite
	assert.ErrorIs(t, handlers.Echo(t.Context(), r.rw), errWrite)
}

func TestGob(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, gob.NewEncoder(&b).Encode(types.Sample()))
	sample := b.String()
	r := newRun(sample + "rest")
	require.NoError(t, handlers.Gob(t.Context(), r.rw))
	assert.Empty(t, r.out.String())
	assert.Equal(t, "rest", r.rest(t), "not a byte too many")

	b.Reset()
	require.NoError(t, gob.NewEncoder(&b).Encode("a string"))
	for name, in := range map[string]string{"nothing": "", "cut": sample[:len(sample)-1], "definitions only": sample[:60], "another type": b.String(), "text": "hello\n", "zeros": "\x00\x00\x00"} {
		err := handlers.Gob(t.Context(), newRun(in).rw)
		assert.ErrorContains(t, err, "GOB data", name)
	}
	assert.ErrorIs(t, handlers.Gob(t.Context(), newRun("").rw), io.EOF)
}

func TestHelp(t *testing.T) {
	e := endpoint.New()
	r := newRun("")
	handlers.Help(e)(r.rw)
	assert.Empty(t, r.out.String(), "no commands, no lines")

	e.AddHandleFunc("B", handlers.Ping)
	e.AddHandleFunc("LONGER", handlers.Ping)
	e.AddHandleFunc("A", handlers.Ping)
	e.Describe("A", "Does a.")
	e.Describe("LONGER", "Does something\nthat takes two lines to say,\r\n\tand a tab.")
	e.Describe("NONE", "is not registered")
	r = newRun("not read")
	handlers.Help(e)(r.rw)
	assert.Equal(t, "A       Does a.\nB\nLONGER  Does something that takes two lines to say, and a tab.\n", r.out.String(), "a line for each command")
	assert.Equal(t, "not read", r.rest(t))
}

func TestListAndDescribe(t *testing.T) {
	e := endpoint.New()
	handlers.Register(e)
	e.AddHandleFunc("PLAIN", handlers.Ping)
	list, err := handlers.List(e)(t.Context(), types.ListRequest{})
	require.NoError(t, err)
	var names []string
	for _, c := range list.Commands {
		names = append(names, c.Name)
		assert.Equal(t, c.Name == "PLAIN", c.Doc == "", "%s has a text", c.Name)
	}
	assert.Equal(t, []string{"CHAT", "DESCRIBE", "ECHO", "GOB", "HELP", "LIST", "PING", "PLAIN", "REVERSE", "STRING", "SUM"}, names)

	describe := handlers.Describe(e)
	d, err := describe(t.Context(), types.DescribeRequest{Name: "SUM"})
	require.NoError(t, err)
	assert.Equal(t, "SUM unary", d.Name+" "+d.Kind)
	assert.NotEmpty(t, d.Request)
	assert.NotEmpty(t, d.Reply)
	assert.NotEmpty(t, d.Example)
	d, err = describe(t.Context(), types.DescribeRequest{Name: "PING"})
	require.NoError(t, err)
	assert.Equal(t, types.CommandDescription{Name: "PING", Kind: "raw", Doc: d.Doc}, d)
	_, err = describe(t.Context(), types.DescribeRequest{Name: "NONE"})
	assert.ErrorIs(t, err, endpoint.NotFound)
}

func TestSumAndReverse(t *testing.T) {
	for want, numbers := range map[float64][]float64{0: nil, 6: {1, 2, 3}, -1.5: {-2, 0.5}} {
		reply, err := handlers.Sum(t.Context(), types.SumRequest{Numbers: numbers})
		require.NoError(t, err)
		assert.Equal(t, want, reply.Total)
	}
	chain := func(names string) *types.ComplexData {
		var c *types.ComplexData
		for i := len(names) - 1; i >= 0; i-- {
			c = &types.ComplexData{S: names[i : i+1], C: c}
		}
		return c
	}
	for in, want := range map[string]string{"a": "a", "ab": "ba", "abcd": "dcba"} {
		got, err := handlers.Reverse(t.Context(), *chain(in))
		require.NoError(t, err)
		assert.Equal(t, *chain(want), got)
	}
}

// TestLogs runs the commands that log in an endpoint: each says what came and
// from whom, in one line.
func TestLogs(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	e := endpoint.New()
	e.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))
	handlers.Register(e)
	a, b := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { e.ServeConn(context.Background(), b) })
	_, err := io.WriteString(a, "STRING some \x1b[1mtext\n")
	require.NoError(t, err)
	reply := make([]byte, len("Thank you.\n"))
	_, err = io.ReadFull(a, reply)
	require.NoError(t, err)
	_, err = io.WriteString(a, "GOB\n")
	require.NoError(t, err)
	require.NoError(t, gob.NewEncoder(a).Encode(types.ComplexData{N: 7, S: "outer", M: map[string]int{"k": 1}, P: []byte{1, 2}, C: &types.ComplexData{N: 8, S: "inner"}}))
	require.NoError(t, a.Close())
	wg.Wait()
	require.NoError(t, e.Close())
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	require.Len(t, lines, 2)
	for _, part := range []string{`msg="string received"`, `text="some \x1b[1mtext"`, "peer=pipe"} {
		assert.Contains(t, lines[0], part)
	}
	for _, part := range []string{`msg="gob received"`, "n=7", "s=outer", "m=map[k:1]", "inner", "peer=pipe"} {
		assert.Contains(t, lines[1], part)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}
