package main_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	node "gobnode/cmd/node"
	"gobnode/endpoint"
	"gobnode/types"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A chatter is a run of the program in a room, in this process.
type chatter struct {
	stdin          *io.PipeWriter
	stdout, stderr transcript
	code           chan int
	stop           context.CancelCauseFunc
}

// chat joins the room at addr; it is left at the end of the test.
func chat(t *testing.T, addr, name string, args ...string) *chatter {
	t.Helper()
	r, w := io.Pipe()
	ctx, stop := context.WithCancelCause(context.Background())
	c := &chatter{stdin: w, code: make(chan int, 1), stop: stop}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.code <- node.Run(ctx, append([]string{"-connect", addr, "-chat", name}, args...), r, &c.stdout, &c.stderr)
	}()
	t.Cleanup(func() {
		stop(nil)
		_ = w.Close()
		<-ended
	})
	return c
}

func (c *chatter) enter(t *testing.T, text string) {
	t.Helper()
	_, err := io.WriteString(c.stdin, text)
	require.NoError(t, err)
}

// TestChatTwo has two talk through a third.
func TestChatTwo(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	ann := chat(t, addr, "ann")
	ann.stdout.await(t, `\A\* nobody else is here\n\z`)
	ann.stderr.await(t, `INFO msg="joined: .* Ctrl-D leaves" name=ann peer=`)
	bob := chat(t, addr, "bob")
	bob.stdout.await(t, `\A\* here: ann\n\z`)
	ann.stdout.await(t, `\* bob came\n\z`)
	ann.enter(t, "Hello Bob.\n\n")
	bob.stdout.await(t, `\nann: Hello Bob\.\n\z`)
	bob.enter(t, "Hello\tAnn.\r\n")
	ann.stdout.await(t, `\nbob: Hello Ann\.\n\z`)
	eve := chat(t, addr, "eve", "-q")
	eve.stdout.await(t, `\A\* here: ann, bob\n\z`)
	require.NoError(t, bob.stdin.Close())
	require.Zero(t, <-bob.code)
	ann.stdout.await(t, `\* eve came\n\* bob left\n\z`)
	require.Equal(t, "* here: ann\nann: Hello Bob.\n* eve came\n", bob.stdout.String())
	eve.stop(errors.New("enough"))
	require.Equal(t, 5, <-eve.code)
	require.Equal(t, "node: CHAT: enough\n", eve.stderr.String())
	ann.stdout.await(t, `\* eve left\n\z`)
}

// TestChatDelivers: all that was said before the input's end is heard, long lines
// in pieces.
func TestChatDelivers(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	ann := chat(t, addr, "ann")
	ann.stdout.await(t, "nobody")
	var want strings.Builder
	for i := range 300 { // more than go at once
		fmt.Fprintf(&want, "bob: line %d\n", i)
	}
	input := strings.ReplaceAll(want.String(), "bob: ", "")
	r := run(t, strings.NewReader(input+strings.Repeat("é", 600)+"\nno line's end"), "-connect", addr, "-chat", "bob", "-q")
	require.Equal(t, result{stdout: "* here: ann\n"}, r)
	fmt.Fprintf(&want, "bob: %s\nbob: %s\nbob: no line's end\n* bob left\n", strings.Repeat("é", 512), strings.Repeat("é", 88))
	ann.stdout.await(t, `bob left\n`)
	require.Equal(t, "* nobody else is here\n* bob came\n"+want.String(), ann.stdout.String())
}

func TestChatLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", types.MaxChatText)
	for in, want := range map[string][]string{
		"":                    nil,
		"\n":                  {""},
		"a":                   {"a"},
		"a\nb\r\nc\r":         {"a", "b", "c\r"},
		long + "\n":           {long},
		long + "y\nz":         {long, "y", "z"},
		long[1:] + "é\nz":     {long[1:], "é", "z"},
		long + long:           {long, long},
		long + "\xff\xff":     {long, "\xff\xff"},
		long[1:] + "\x80\x80": {long[1:] + "\x80", "\x80"},
		strings.Repeat("\x80", 3000): { // no character's beginning anywhere
			strings.Repeat("\x80", 1020), strings.Repeat("\x80", 1020), strings.Repeat("\x80", 960),
		},
	} {
		for _, r := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in)), iotest.DataErrReader(strings.NewReader(in))} {
			s := bufio.NewScanner(r)
			s.Split(node.ChatLines)
			var got []string
			for s.Scan() {
				got = append(got, s.Text())
			}
			require.NoError(t, s.Err())
			if in == long[1:]+"\x80\x80" { // the cut looks for a beginning as far back as one can be
				require.Equal(t, in, strings.Join(got, ""))
				continue
			}
			require.Equal(t, want, got, "%.20q", in)
		}
	}
}

// fakeRoom serves CHAT by f until the end of the test.
func fakeRoom(t *testing.T, f func(context.Context, *endpoint.Stream[types.ChatLine, types.ChatEvent]) error) string {
	t.Helper()
	e := endpoint.New()
	types.Chat.Handle(e, f)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = e.Serve(l)
	}()
	t.Cleanup(func() {
		_ = e.Close()
		<-served
	})
	return l.Addr().String()
}

// hold is a room that never says anything.
func hold(ctx context.Context, _ *endpoint.Stream[types.ChatLine, types.ChatEvent]) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestChatFailures(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	ann := chat(t, addr, "ann")
	ann.stdout.await(t, "nobody")
	open, end := io.Pipe() // an input that does not end
	t.Cleanup(func() { _ = end.Close() })
	for name, c := range map[string]struct {
		addr  string
		stdin io.Reader
		args  string
		code  int
		says  string
	}{
		"name taken": {addr, open, "-chat ANN", 64 + 6, "node: CHAT: the name ann is taken: try another (already_exists, failed)\n"},
		"bad name":   {addr, open, "-chat a:b", 64 + 3, `in the header "name", has 1 to 32 printable characters`},
		"no room":    {fakeEndpoint(t), open, "-chat x", 64 + 12, `CHAT: unknown command "CHAT" (unimplemented, not_run); HELP lists`},
		"raw CHAT":   {fakeEndpoint(t, "CHAT"), open, "-chat x", 64 + 9, "raw"},
		"no sessions": {
			fake(t, func(c *net.TCPConn, r *bufio.Reader) {
				_, _ = r.ReadString('\n')
				_, _ = io.WriteString(c, "ERR unimplemented not_run unknown command \"SESSION\"\n")
			}), open, "-chat x", 64 + 12, `CHAT: unknown command "SESSION"`,
		},
		"full": {
			fake(t, func(c *net.TCPConn, r *bufio.Reader) {
				_, _ = r.ReadString('\n')
				_, _ = io.WriteString(c, "ERR resource_exhausted not_run too many connections\n")
			}), open, "-chat x", 64 + 8, `CHAT: too many connections (resource_exhausted, not_run); try again later`,
		},
		"something else": {
			fake(t, func(c *net.TCPConn, r *bufio.Reader) {
				_, _ = r.ReadString('\n')
				_, _ = io.WriteString(c, "220 mail ready\n")
			}), open, "-chat x", 64 + 9, "does not speak SESSION 1",
		},
		"gone at once":  {fake(t, func(*net.TCPConn, *bufio.Reader) {}), open, "-chat x", 3, "no session with 127.0.0.1"},
		"nobody there":  {"127.0.0.1:1", open, "-chat x", 3, "is an endpoint listening there? Try: node -listen"},
		"silent":        {fake(t, nil), open, "-chat x -timeout 200ms", 4, "not done within -timeout 200ms"},
		"slow to leave": {fakeRoom(t, hold), strings.NewReader("hello\n"), "-chat x -timeout 200ms", 4, "CHAT: not done within -timeout 200ms"},
		"room ends early": {fakeRoom(t, func(_ context.Context, s *endpoint.Stream[types.ChatLine, types.ChatEvent]) error {
			return s.Send(types.ChatEvent{Kind: types.ChatHere})
		}), open, "-chat x", 3, "CHAT: lost the connection to 127.0.0.1"},
		"bad input": {addr, iotest.ErrReader(errors.New("bad disk")), "-chat x", 1, "node: cannot read standard input: bad disk\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, c.stdin, append([]string{"-connect", c.addr, "-q"}, strings.Fields(c.args)...)...)
			assert.Equal(t, c.code, r.code, r.stderr)
			assert.Contains(t, r.stderr, c.says)
			assert.Equal(t, 1, strings.Count(r.stderr, "\n"), r.stderr)
		})
	}
}

// fakeEndpoint serves raw commands that do nothing until the end of the test.
func fakeEndpoint(t *testing.T, names ...string) string {
	t.Helper()
	e := endpoint.New()
	for _, name := range names {
		e.AddHandleFunc(name, func(*bufio.ReadWriter) {})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = e.Serve(l)
	}()
	t.Cleanup(func() {
		_ = e.Close()
		<-served
	})
	return l.Addr().String()
}

// TestChatUnwritable has no place to print what is said.
func TestChatUnwritable(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	var stderr transcript
	require.Equal(t, 1, node.Run(t.Context(), []string{"-connect", addr, "-chat", "ann"}, r, badWriter{}, &stderr))
	require.Contains(t, stderr.String(), "cannot write to standard output: disk full")
}

// TestChatEvents: each event is one line whatever is in it, and kinds of the
// future are left out.
func TestChatEvents(t *testing.T) {
	t.Parallel()
	addr := fakeRoom(t, func(_ context.Context, s *endpoint.Stream[types.ChatLine, types.ChatEvent]) error {
		for _, ev := range []types.ChatEvent{
			{Kind: types.ChatHere, Names: []string{"a\nb: forged", "c"}},
			{Kind: "moved", Name: "x"},
			{Kind: types.ChatSaid, Name: "eve", Text: "one\r\nbob: forged"},
			{Kind: types.ChatLeft, Name: "eve\n"},
		} {
			if err := s.Send(ev); err != nil {
				return err
			}
		}
		_, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
	r := run(t, strings.NewReader(""), "-connect", addr, "-chat", "ann", "-q")
	require.Equal(t, result{stdout: "* here: a b: forged, c\neve: one  bob: forged\n* eve  left\n"}, r)
}

// TestChatProcesses has the server of a room end, in order and at once, and a
// member stand still while others talk.
func TestChatProcesses(t *testing.T) {
	t.Parallel()
	skipWithoutSignals(t)
	for sig, want := range map[syscall.Signal]struct {
		code int
		says string
	}{
		syscall.SIGTERM: {78, "node: CHAT: the room has closed (unavailable, failed); try again later\n"},
		syscall.SIGKILL: {3, "node: CHAT: lost the connection to "},
	} {
		server, addr := startServer(t)
		ann, bob := start(t, "-connect", addr, "-chat", "ann"), start(t, "-connect", addr, "-chat", "bob")
		for _, p := range []*process{ann, bob} {
			p.stdout.await(t, `(ann|bob) came|here: `)
		}
		_, err := io.WriteString(ann.stdin, "last words\n")
		require.NoError(t, err)
		bob.stdout.await(t, "ann: last words\n")
		begin := time.Now()
		server.signal(t, sig)
		for _, p := range []*process{ann, bob} {
			require.Equal(t, want.code, p.wait(t))
			require.Contains(t, p.stderr.String(), want.says)
		}
		server.wait(t)
		require.Less(t, time.Since(begin), 20*time.Second, "they are not waited for as long as commands are")
		if sig == syscall.SIGTERM {
			require.Zero(t, server.cmd.ProcessState.ExitCode(), &server.stderr)
		}
	}
}

// TestChatSignals: a member that gets a signal leaves.
func TestChatSignals(t *testing.T) {
	t.Parallel()
	skipWithoutSignals(t)
	addr, _ := serve(t)
	ann := chat(t, addr, "ann")
	ann.stdout.await(t, "nobody")
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		p := start(t, "-connect", addr, "-chat", "bob")
		p.stdout.await(t, "here: ann")
		p.signal(t, sig)
		if code := p.wait(t); sig != syscall.SIGKILL {
			require.Equal(t, 5, code)
			require.Regexp(t, "^node: CHAT: interrupted by SIG(TERM|INT)\n$", withoutLog(p.stderr.String()))
		}
		ann.stdout.await(t, `\* bob left\n\z`)
		require.True(t, strings.HasSuffix(ann.stdout.String(), "* bob came\n* bob left\n"))
	}
}
