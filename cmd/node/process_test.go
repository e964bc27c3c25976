package main_test

import (
	"bufio"
	"flag"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/types"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the outputs that TestTwoNodes compares")

// transcripts is where the outputs of two nodes are.
const transcripts = "../../testdata/node"

// normal replaces what differs from run to run: times, and the ports of both
// sides.
func normal(text, addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	text = regexp.MustCompile(`time=\S+`).ReplaceAllString(text, "time=TIME")
	text = strings.NewReplacer(addr, "127.0.0.1:PORT", "nc 127.0.0.1 "+port, "nc 127.0.0.1 PORT").Replace(text)
	return regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(text, "127.0.0.1:CALLER")
}

// TestTwoNodes lets one node join another.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	skipWithoutSignals(t)
	server, addr := startServer(t)
	caller := start(t, "-connect", addr)
	require.Zero(t, caller.wait(t), &caller.stderr)
	server.stderr.await(t, "gob received")
	server.signal(t, syscall.SIGTERM)
	require.Zero(t, server.wait(t), &server.stderr)

	for name, got := range map[string]*transcript{
		"serve.stdout": &server.stdout, "serve.stderr": &server.stderr,
		"join.stdout": &caller.stdout, "join.stderr": &caller.stderr,
	} {
		text := normal(got.String(), addr)
		file := filepath.Join(transcripts, name)
		if *update {
			require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Equal(t, string(want), text, name)
	}
}

func skipWithoutSignals(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("a process on Windows cannot be sent SIGINT or SIGTERM")
	}
}

// dial connects a plain socket until the end of the test.
func dial(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c, bufio.NewReader(c)
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
}

func receive(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	p := make([]byte, len(want))
	_, err := io.ReadFull(r, p)
	require.NoError(t, err)
	require.Equal(t, want, string(p))
}

// running starts a command on a plain socket. When it returns the command runs,
// and waits for data.
func running(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, r := dial(t, addr)
	send(t, c, "ECHO\nfirst\n")
	receive(t, r, "Message received: first\n")
	return c, r
}

// TestDrain sends a signal while a command runs: it finishes, a connection
// without one is closed at once, newcomers are refused, and the node ends.
func TestDrain(t *testing.T) {
	t.Parallel()
	skipWithoutSignals(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		server, addr := startServer(t)
		c, r := running(t, addr)
		idle, idleReader := dial(t, addr)
		send(t, idle, "PING\n")
		receive(t, idleReader, "PONG\n")

		server.signal(t, sig)
		server.stderr.await(t, `msg="ending: running commands may finish, a second signal ends at once" why="interrupted by SIG(TERM|INT)" within=25s`)
		_, err := idleReader.ReadByte()
		require.ErrorIs(t, err, io.EOF)
		late, err := net.Dial("tcp", addr)
		if err == nil { // the system may have taken it before it was told not to
			_, err = late.Read(make([]byte, 1))
			_ = late.Close()
		}
		require.Error(t, err)

		send(t, c, "second\nexit\n")
		receive(t, r, "Message received: second\n")
		_, err = r.ReadByte()
		require.ErrorIs(t, err, io.EOF)
		require.Zero(t, server.wait(t), &server.stderr)
		require.Contains(t, server.stderr.String(), `msg="ended in order"`)
	}
}

// TestSecondSignal ends a node that drains.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	skipWithoutSignals(t)
	server, addr := startServer(t)
	_, r := running(t, addr)
	server.signal(t, syscall.SIGTERM)
	server.stderr.await(t, "ending")
	select {
	case <-server.ended:
		require.Fail(t, "ended with a command that runs")
	case <-time.After(50 * time.Millisecond):
	}
	server.signal(t, syscall.SIGINT)
	require.Equal(t, 5, server.wait(t))
	require.Contains(t, server.stderr.String(), "node: interrupted by SIGINT again: ending at once\n")
	_, err := r.ReadByte()
	require.Error(t, err)
}

// TestDrainCut has commands that never end, in line mode and in a session. It takes
// 25 s of waiting, beside the other tests.
func TestDrainCut(t *testing.T) {
	t.Parallel()
	skipWithoutSignals(t)
	if testing.Short() {
		t.Skip("takes 25 s")
	}
	server, addr := startServer(t)
	_, r := running(t, addr)
	c, err := (&endpoint.Dialer{Logger: slog.New(slog.DiscardHandler)}).Dial(t.Context(), addr)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	echo, err := c.Open(t.Context(), types.EchoCommand)
	require.NoError(t, err)
	defer func() { _ = echo.Close() }()
	_, err = echo.WriteString("first\n")
	require.NoError(t, err)
	_, err = echo.Reply()
	require.NoError(t, err)
	begin := time.Now()
	server.signal(t, syscall.SIGTERM)
	require.Equal(t, 1, server.wait(t))
	require.GreaterOrEqual(t, time.Since(begin), 25*time.Second)
	require.Contains(t, server.stderr.String(), "node: shutdown cut off 2 running commands: context deadline exceeded, after 25s\n")
	_, err = r.ReadByte()
	require.Error(t, err)
	_, err = echo.ReadByte()
	require.Error(t, err)
}

// TestKilledServer kills a node under each form of talking to it.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	server, addr := startServer(t)
	prompt := start(t, "-connect", addr, "-i")
	echo := start(t, "-connect", addr, "ECHO", "-")
	for p, first := range map[*process]string{prompt: "ECHO\nfirst\n", echo: "first\n"} {
		_, err := io.WriteString(p.stdin, first)
		require.NoError(t, err)
		p.stdout.await(t, `\AMessage received: first\n\z`)
	}
	require.NoError(t, server.cmd.Process.Kill())
	for p, doing := range map[*process]string{prompt: "the prompt", echo: "ECHO"} {
		require.Equal(t, 3, p.wait(t), &p.stderr)
		require.Contains(t, p.stderr.String(), "node: "+doing+": lost the connection to "+addr+": closed by the peer; ")
	}
}

// TestInterruptedClients sends each form of talking a signal while it waits.
func TestInterruptedClients(t *testing.T) {
	t.Parallel()
	skipWithoutSignals(t)
	connected := make(chan struct{}, 8)
	addr := fake(t, func(_ *net.TCPConn, r *bufio.Reader) {
		connected <- struct{}{}
		_, _ = io.Copy(io.Discard, r)
	})
	for _, args := range [][]string{nil, {"ECHO", "-"}, {"-i"}} {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			p := start(t, append([]string{"-connect", addr}, args...)...)
			_, err := io.WriteString(p.stdin, "something\n")
			require.NoError(t, err)
			<-connected
			p.signal(t, sig)
			require.Equal(t, 5, p.wait(t), "%v %s", args, &p.stderr)
			require.Regexp(t, "^node: .*: interrupted by SIG(TERM|INT)\n$", withoutLog(p.stderr.String()))
		}
	}
}

// withoutLog is stderr without the lines of the logger.
func withoutLog(stderr string) string {
	return regexp.MustCompile(`(?m)^time=.*\n`).ReplaceAllString(stderr, "")
}

// TestLostLog has a server's standard error go away: it serves on.
func TestLostLog(t *testing.T) {
	t.Parallel()
	skipWithoutSignals(t)
	server := &process{cmd: command("-listen", "127.0.0.1:0"), ended: make(chan struct{})}
	stderr, err := server.cmd.StderrPipe()
	require.NoError(t, err)
	server.begin(t)
	line, err := bufio.NewReader(stderr).ReadString('\n')
	require.NoError(t, err)
	m := regexp.MustCompile(listening).FindStringSubmatch(line)
	require.NotNil(t, m, line)
	require.NoError(t, stderr.Close())
	for range 3 { // each of which is logged
		require.Equal(t, "Thank you.\n", run(t, nil, "-connect", m[1], "STRING", "x").stdout)
	}
	server.signal(t, syscall.SIGTERM)
	require.Zero(t, server.wait(t))
}

// TestUnixSocketFile looks after the file of a unix socket: it goes with the
// node, and one that a killed node has left is no obstacle.
func TestUnixSocketFile(t *testing.T) {
	t.Parallel()
	skipWithoutSignals(t)
	path := filepath.Join(t.TempDir(), "sock")
	killed, addr := startServer(t, "-listen", "unix:"+path)
	require.Equal(t, path, addr)
	require.Contains(t, killed.stderr.String(), "`node -connect unix:"+path+" HELP`, or `nc -U "+path+"`")
	require.NoError(t, killed.cmd.Process.Kill())
	killed.wait(t)
	require.FileExists(t, path)

	server, _ := startServer(t, "-listen", "unix:"+path)
	second := start(t, "-listen", "unix:"+path)
	require.Equal(t, 1, second.wait(t))
	require.Contains(t, second.stderr.String(), "address already in use")
	require.Equal(t, "PONG\n", run(t, nil, "-connect", "unix:"+path, "PING").stdout)
	server.signal(t, syscall.SIGINT)
	require.Zero(t, server.wait(t))
	require.NoFileExists(t, path)
}

// TestWhatToType runs the command that a node names when it starts.
func TestWhatToType(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"127.0.0.1:0", ":0"} {
		server, _ := startServer(t, "-listen", listen)
		m := server.stderr.await(t, "`node (-connect .*?)`, or `nc (\\S+) (\\d+)` and type HELP")
		r := run(t, nil, strings.Fields(m[1])...)
		require.Zero(t, r.code)
		require.Regexp(t, `(?m)^PING +Answers PONG\.$`, r.stdout)
		c, in := dial(t, net.JoinHostPort(m[2], m[3]))
		send(t, c, "HELP\n")
		line, err := in.ReadString('\n')
		require.NoError(t, err)
		require.Contains(t, r.stdout, line)
	}
}

// TestRestartUnderLoad replaces a node that is in use. What it took it finishes;
// callers see a success, or an error that says what became of the command.
func TestRestartUnderLoad(t *testing.T) {
	t.Parallel()
	skipWithoutSignals(t)
	path := "unix:" + filepath.Join(t.TempDir(), "sock")
	server, _ := startServer(t, "-listen", path)
	stop := make(chan struct{})
	results := make(chan result, 1000)
	go func() {
		defer close(results)
		for {
			select {
			case <-stop:
				return
			default:
				results <- run(t, nil, "-connect", path, "STRING", "x")
			}
		}
	}()
	for range 3 {
		time.Sleep(50 * time.Millisecond)
		server.signal(t, syscall.SIGTERM)
		require.Zero(t, server.wait(t), &server.stderr)
		server, _ = startServer(t, "-listen", path)
	}
	close(stop)
	done := 0
	for r := range results {
		switch r.code {
		case 0:
			if r.stdout == "Thank you.\n" {
				done++
			} else { // closed before the command ran: line mode cannot say so
				require.Contains(t, r.stderr, "no reply")
			}
		case 3:
			require.Empty(t, r.stdout)
		case 64 + 14: // told in time that it does not run
			require.Contains(t, r.stderr, "shutting down")
			require.Contains(t, r.stderr, "not_run")
		default:
			require.Fail(t, "unexpected", "%+v", r)
		}
	}
	require.NotZero(t, done)
}
