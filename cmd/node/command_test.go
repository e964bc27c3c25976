package main_test

import (
	"bufio"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	node "gobnode/cmd/node"
	"gobnode/endpoint"
	"gobnode/types"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// recorder is a peer that keeps what a connection brings and answers text when
// the other side has hung up.
func recorder(got chan<- string, text string) func(*net.TCPConn, *bufio.Reader) {
	return func(c *net.TCPConn, r *bufio.Reader) {
		p, _ := io.ReadAll(r)
		_, _ = io.WriteString(c, text)
		got <- string(p)
	}
}

func TestJoinBytes(t *testing.T) {
	t.Parallel()
	got := make(chan string, 2)
	addr := fake(t, func(c *net.TCPConn, r *bufio.Reader) {
		name, _ := r.ReadString('\n')
		data, _ := r.ReadString('\n')
		got <- name + data
		// The reply comes in pieces, and the GOB only behind it.
		_, _ = io.WriteString(c, "Thank")
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, err := r.Peek(1)
		if _, timeout := errors.AsType[net.Error](err); !timeout {
			got <- "sent before the reply"
			return
		}
		_ = c.SetReadDeadline(time.Time{})
		_, _ = io.WriteString(c, " you.\n")
		rest, _ := io.ReadAll(r) // up to the end: it hangs up by itself
		got <- string(rest)
	})
	r := run(t, nil, "-connect", addr)
	require.Zero(t, r.code, r.stderr)
	assert.Equal(t, "Thank you.\n", r.stdout)
	assert.Regexp(t, `INFO msg="sent STRING; the reply follows" text="Additional data."`, r.stderr)
	assert.Regexp(t, `INFO msg="sent GOB; it has no reply" n=61000 .*c="\{N:-1 S:and the value inside it`, r.stderr)

	assert.Equal(t, "STRING\nAdditional data.\n", <-got)
	data, ok := strings.CutPrefix(<-got, "GOB\n")
	require.True(t, ok)
	rest := strings.NewReader(data)
	var value types.ComplexData
	require.NoError(t, gob.NewDecoder(rest).Decode(&value))
	assert.Equal(t, types.Sample(), value)
	assert.Zero(t, rest.Len(), "more than one gob")
}

func TestJoinFailures(t *testing.T) {
	t.Parallel()
	thanks := func(after func(*net.TCPConn, *bufio.Reader)) func(*net.TCPConn, *bufio.Reader) {
		return func(c *net.TCPConn, r *bufio.Reader) {
			_, _ = r.ReadString('\n')
			_, _ = r.ReadString('\n')
			_, _ = io.WriteString(c, "Thank you.\n")
			after(c, r)
		}
	}
	for name, c := range map[string]struct {
		peer   func(*net.TCPConn, *bufio.Reader)
		code   int
		stdout string
		says   string
	}{
		"no STRING": {
			func(c *net.TCPConn, r *bufio.Reader) {
				_, _ = r.ReadString('\n')
				_, _ = io.WriteString(c, "ERR unimplemented not_run unknown command \"STRING\"\n")
			}, 76, "", `STRING: unknown command "STRING" (unimplemented, not_run); HELP lists`,
		},
		"no GOB":          {thanks(answer("ERR unimplemented not_run unknown command \"GOB\"\n")), 76, "Thank you.\n", `GOB: unknown command "GOB"`},
		"a reply to GOB":  {thanks(answer("who are you?")), 0, "Thank you.\nwho are you?", ""},
		"gone at once":    {func(*net.TCPConn, *bufio.Reader) {}, 3, "", "STRING: lost the connection"},
		"gone half way":   {func(c *net.TCPConn, r *bufio.Reader) { _, _ = r.ReadString('\n'); _, _ = io.WriteString(c, "Than") }, 3, "Than", "STRING: lost the connection"},
		"reset at STRING": {reset, 3, "", "lost the connection"},
		"reset at GOB":    {thanks(reset), 3, "Thank you.\n", "GOB: lost the connection"},
		"silent":          {nil, 4, "", "not done within -timeout 200ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := "1m"
			if c.peer == nil {
				timeout = "200ms"
			}
			r := run(t, nil, "-connect", fake(t, c.peer), "-timeout", timeout)
			assert.Equal(t, c.code, r.code, r.stderr)
			assert.Equal(t, c.stdout, r.stdout)
			assert.Contains(t, r.stderr, c.says)
		})
	}
}

// reset reads something and breaks the connection.
func reset(c *net.TCPConn, r *bufio.Reader) {
	_, _ = r.ReadByte()
	_ = c.SetLinger(0)
}

// TestCommandBytes checks what one command sends, on one connection, before it
// hangs up.
func TestCommandBytes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args  []string
		stdin string
		want  string
	}{
		{[]string{"PING"}, "never read", "PING\n"},
		{[]string{"STRING", "Hello", "there"}, "", "STRING Hello there\n"},
		{[]string{"STRING", "Hello  there\t "}, "", "STRING Hello  there\t \n"},
		{[]string{"STRING", "x", "-"}, "never read", "STRING x -\n"},
		{[]string{"STRING", "-v"}, "", "STRING -v\n"},
		{[]string{"ECHO", "-"}, "one\r\ntwo\x00\xff", "ECHO\none\r\ntwo\x00\xff"},
		{[]string{"ECHO", "-"}, "", "ECHO\n"},
		{[]string{"x\"y"}, "", "x\"y\n"},
	} {
		got := make(chan string, 1)
		r := run(t, strings.NewReader(c.stdin), append([]string{"-connect", fake(t, recorder(got, "done\n"))}, c.args...)...)
		assert.Equal(t, result{stdout: "done\n"}, r)
		assert.Equal(t, c.want, <-got)
	}
}

// TestReplies checks what becomes of a reply that is not a terminal's: it is
// passed on to the byte, unless it begins with a whole ERR line.
func TestReplies(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"PONG", "PONG\n", "PONG\r\n", "\n", "\x1b[31mred\x07\x9b\x00", "ERR", "ERR ", "ERR \n", "ERR not_found failed no LF",
		"ERR no_such_code failed x\n", "ERR not_found no_such_outcome x\n", "ERR ok failed x\n", "ERROR not_found failed x\n",
		"one\nERR not_found failed x\n", "ERR unknown unknown " + strings.Repeat("x", 8<<10) + "\n", strings.Repeat("long ", 1<<20),
	} {
		r := run(t, nil, "-connect", fake(t, answer(reply)), "PING")
		require.Equal(t, 0, r.code, r.stderr)
		require.Equal(t, reply, r.stdout)
		require.Empty(t, r.stderr)
	}
	r := run(t, nil, "-connect", fake(t, answer("")), "PING")
	require.Zero(t, r.code)
	require.Regexp(t, `WARN msg="no reply: .*" command=PING`, r.stderr)
}

func TestAnsweredCodes(t *testing.T) {
	t.Parallel()
	for code := endpoint.OK + 1; code <= endpoint.Unauthenticated; code++ {
		line := fmt.Sprintf("ERR %s failed an \x1b[31merror\r\n", code)
		addr := fake(t, func(c *net.TCPConn, r *bufio.Reader) {
			_, _ = io.Copy(io.Discard, r)
			for i := range len(line) { // segments of a byte
				_, _ = io.WriteString(c, line[i:i+1])
			}
			_, _ = io.WriteString(c, "more\x07\n")
		})
		r := run(t, nil, "-connect", addr, "PING")
		assert.Equal(t, 64+int(code), r.code)
		assert.Empty(t, r.stdout)
		assert.Regexp(t, `^more\\x07\nnode: PING: an \\x1b\[31merror \(`+code.String()+`, failed\)[^\n]*\n$`, r.stderr)
	}
}

func TestTypedCommands(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	for _, c := range []struct {
		args  []string
		stdin string
		want  result
	}{
		{[]string{"SUM", `{"Numbers":[1,2,3]}`}, "", result{0, `{"Total":6}` + "\n", ""}},
		{[]string{"SUM", "-"}, "{\n \"Numbers\": [1,\n2]\n}\n", result{0, `{"Total":3}` + "\n", ""}},
		{[]string{"SUM"}, "", result{0, `{"Total":0}` + "\n", ""}},
		{[]string{"SUM", `{"Number":1}`}, "", result{67, "", "node: SUM: unknown field \"Number\" (invalid_argument, not_run)\n"}},
		{[]string{"DESCRIBE", `{"Name":"X"}`}, "", result{69, "", "node: DESCRIBE: no command \"X\" here; LIST {} tells what there is (not_found, failed)\n"}},
		{[]string{"CHAT"}, "", result{73, "", "node: CHAT: \"CHAT\" is a stream of messages: it needs a session (failed_precondition, not_run); try -chat NAME\n"}},
		{[]string{"SUM", "-"}, `{"Numbers":`, result{2, "", "node: standard input, the request of SUM, is no JSON: unexpected end of JSON input\n"}},
	} {
		assert.Equal(t, c.want, run(t, strings.NewReader(c.stdin), append([]string{"-connect", addr}, c.args...)...))
	}
}

// TestTypedReplyCut has a peer go away within the reply of a typed command.
func TestTypedReplyCut(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{"", "O", "OK ", "OK {", "OK {}"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		e := endpoint.New()
		types.List.Handle(e, func(context.Context, types.ListRequest) (types.ListReply, error) {
			return types.ListReply{Commands: []types.CommandSummary{{Name: "NEW", Kind: "unary"}}}, nil
		})
		served := make(chan struct{})
		go func() {
			defer close(served)
			first, _ := l.Accept()
			e.ServeConn(context.Background(), first)
			second, _ := l.Accept()
			line, _ := io.ReadAll(second)
			assert.Equal(t, "NEW {}\n", string(line))
			_, _ = io.WriteString(second, reply)
			_ = second.Close()
		}()
		r := run(t, nil, "-connect", l.Addr().String(), "NEW")
		<-served
		require.NoError(t, l.Close())
		require.Equal(t, 3, r.code, r.stderr)
		require.Contains(t, r.stderr, "NEW: lost the connection")
	}
}

// TestPeerWithoutList has a peer that neither knows LIST nor says so.
func TestPeerWithoutList(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		first, _ := l.Accept()
		second, _ := l.Accept()
		_, _ = io.Copy(io.Discard, second)
		_, _ = io.WriteString(second, "PONG\n")
		_ = second.Close()
		_ = first.Close()
	}()
	r := run(t, nil, "-connect", l.Addr().String(), "-v", "PING")
	require.Equal(t, "PONG\n", r.stdout)
	require.Contains(t, r.stderr, "the peer does not tell its commands")
	<-served
}

// TestLargeEcho moves much more than any buffer holds, both ways at once.
func TestLargeEcho(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	const lines = 200_000
	input := strings.Repeat("0123456789 0123456789\n", lines)
	for _, args := range [][]string{{"ECHO", "-"}, {"-i"}} {
		stdin := input
		if args[0] == "-i" {
			stdin = "ECHO\n" + input
		}
		r := run(t, strings.NewReader(stdin), append([]string{"-connect", addr, "-timeout", "0"}, args...)...)
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, strings.Repeat("Message received: 0123456789 0123456789\n", lines), r.stdout)
	}
}

func TestCommandFailures(t *testing.T) {
	t.Parallel()
	open, hold := io.Pipe() // an input that does not end
	defer func() { _ = hold.Close() }()
	for name, c := range map[string]struct {
		peer  func(*net.TCPConn, *bufio.Reader)
		stdin io.Reader
		code  int
		says  string
	}{
		"hung up before the input's end": {
			func(c *net.TCPConn, r *bufio.Reader) {
				_, _ = r.ReadString('\n')
				_, _ = io.WriteString(c, "reply\n")
			}, open, 3, "ECHO: lost the connection to 127.0.0.1",
		},
		"refused before the input's end": {
			func(c *net.TCPConn, r *bufio.Reader) {
				_, _ = r.ReadString('\n')
				_, _ = io.WriteString(c, "ERR unavailable not_run later\n")
			}, open, 78, "ECHO: later (unavailable, not_run); try again later",
		},
		"reset":  {reset, strings.NewReader("x"), 3, "ECHO: lost the connection"},
		"silent": {nil, strings.NewReader("x"), 4, "not done within -timeout 200ms; try a longer -timeout"},
		"bad input": {
			func(_ *net.TCPConn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) },
			iotest.ErrReader(errors.New("bad disk")), 1, "cannot read standard input: bad disk",
		},
	} {
		t.Run(name, func(t *testing.T) {
			timeout := "1m"
			if c.peer == nil {
				timeout = "200ms"
			}
			r := run(t, c.stdin, "-connect", fake(t, c.peer), "-timeout", timeout, "ECHO", "-")
			assert.Equal(t, c.code, r.code, r.stderr)
			assert.Contains(t, r.stderr, c.says)
		})
	}
}

type badWriter struct{}

func (badWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// TestUnwritableOutput has no place for results, in every form.
func TestUnwritableOutput(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	for _, args := range [][]string{
		{"-help"}, {"-version"}, {"-connect", addr}, {"-connect", addr, "PING"}, {"-connect", addr, "SUM"}, {"-connect", addr, "-i"}, {"-connect", addr, "-watch"},
	} {
		var stderr transcript
		code := node.Run(t.Context(), args, strings.NewReader("PING\n"), badWriter{}, &stderr)
		assert.Equal(t, 1, code, "%v", args)
		assert.Contains(t, stderr.String(), "cannot write to standard output: disk full")
	}
}

func TestCannotConnect(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := l.Addr().String()
	require.NoError(t, l.Close())
	for _, form := range [][]string{nil, {"PING"}, {"-i"}} {
		r := run(t, strings.NewReader(""), append([]string{"-connect", closed}, form...)...)
		assert.Equal(t, result{3, "", "node: cannot connect to " + closed +
			": connection refused: is an endpoint listening there? Try: node -listen " + closed + " there\n"}, r)
	}
	r := run(t, nil, "-connect", "unix:/nonexistent/sock", "PING")
	assert.Equal(t, 3, r.code)
	assert.Contains(t, r.stderr, "no such file or directory")
	r = run(t, nil, "-connect", "no-such-host.invalid", "PING")
	assert.Equal(t, 3, r.code)
	assert.Contains(t, r.stderr, "no-such-host.invalid")
}

// TestInterrupted ends the context, as a signal does, in every form that waits.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	open, hold := io.Pipe()
	defer func() { _ = hold.Close() }()
	addr := fake(t, nil)
	for _, args := range [][]string{{"-connect", addr}, {"-connect", addr, "PING"}, {"-connect", addr, "ECHO", "-"}, {"-connect", addr, "-i"}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(errors.New("enough")) })
		var stderr transcript
		assert.Equal(t, 5, node.Run(ctx, args, open, io.Discard, &stderr), "%v", args)
		assert.Contains(t, stderr.String(), ": enough\n")
	}
}

func TestCannotListen(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	addr := l.Addr().String()
	r := run(t, nil, "-listen", addr)
	assert.Equal(t, result{1, "", "node: cannot listen on " + addr +
		": address already in use; another node may run there: try another -listen, or port 0 for a free one\n"}, r)
	r = run(t, nil, "-listen", "unix:/nonexistent/sock")
	assert.Equal(t, 1, r.code)
	assert.Contains(t, r.stderr, "no such file or directory; try another -listen")
}

// TestVerboseServer checks the line that -v adds for every command.
func TestVerboseServer(t *testing.T) {
	t.Parallel()
	addr, stderr := serve(t, "-v")
	run(t, nil, "-connect", addr, "PING")
	run(t, strings.NewReader("nonsense"), "-connect", addr, "GOB", "-")
	stderr.await(t, `level=DEBUG msg=command command=PING peer=127.0.0.1:\d+ took=\S+\n`)
	stderr.await(t, `level=DEBUG msg=command command=GOB peer=127.0.0.1:\d+ took=\S+ error=`)
}
