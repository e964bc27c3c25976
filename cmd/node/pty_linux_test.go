package main_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/types"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A terminal is a process on a pseudo terminal of 24 lines of 80 characters.
type terminal struct {
	*process
	keyboard *os.File   // the other end of the terminal
	screen   transcript // what the terminal was told to show
	slave    *os.File
	before   unix.Termios
}

// onTerminal starts the binary with a terminal for its standard streams.
func onTerminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	return onTerminalWith(t, nil, args...)
}

// onTerminalWith is onTerminal, but for a standard input that is not nil.
func onTerminalWith(t *testing.T, stdin io.Reader, args ...string) *terminal {
	t.Helper()
	master, slave := openPTY(t)
	p := &terminal{process: &process{cmd: command(args...), ended: make(chan struct{})}, keyboard: master, slave: slave}
	p.before = *termios(t, slave)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = stdin, slave, slave
	if stdin == nil {
		p.cmd.Stdin = slave
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	watched := make(chan struct{})
	go p.watch(watched)
	t.Cleanup(func() { // after the process has been killed
		_ = slave.Close()
		_ = master.Close()
		<-watched
	})
	p.begin(t)
	return p
}

// watch ends when the terminal is closed.
func (p *terminal) watch(done chan<- struct{}) {
	defer close(done)
	_, _ = io.Copy(&p.screen, p.keyboard)
}

// openPTY opens both ends of a new terminal, without the help of libc.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("this system has no /dev/ptmx, and so no pseudo terminals")
	}
	require.NoError(t, err)
	raw, err := master.SyscallConn() // not Fd, which would make Close wait for Read
	require.NoError(t, err)
	var number int
	var ioctlErr error
	require.NoError(t, raw.Control(func(fd uintptr) {
		if ioctlErr = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); ioctlErr == nil {
			number, ioctlErr = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
		if ioctlErr == nil {
			ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
		}
	}))
	require.NoError(t, ioctlErr)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	return master, slave
}

func termios(t *testing.T, f *os.File) *unix.Termios {
	t.Helper()
	var state *unix.Termios
	raw, err := f.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { state, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) }))
	require.NoError(t, err)
	return state
}

func (p *terminal) typeKeys(t *testing.T, keys string) {
	t.Helper()
	_, err := io.WriteString(p.keyboard, keys)
	require.NoError(t, err)
}

// leave waits for the end of the process and checks that it has left the
// terminal as it was.
func (p *terminal) leave(t *testing.T, code int) {
	t.Helper()
	require.Equal(t, code, p.wait(t), &p.screen)
	require.Equal(t, p.before, *termios(t, p.slave))
}

const (
	tab   = "\t"
	enter = "\r"
	up    = "\x1b[A"
	ctrlC = "\x03"
	ctrlD = "\x04"
)

func TestTerminal(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	p := onTerminal(t, "-connect", addr, "-i")
	p.screen.await(t, addr+"> $")
	p.typeKeys(t, "pin"+tab+enter) // completed, whatever the case
	p.screen.await(t, `(?s)PING \r\n.*PONG\r\n`)
	p.typeKeys(t, "S"+tab+tab) // there are two that begin so
	p.screen.await(t, `STRING  SUM\r\n`)
	p.typeKeys(t, "tr"+tab+"hello"+enter)
	p.screen.await(t, `Thank you\.\r\n`)
	p.typeKeys(t, up+up+enter) // history: PING again
	p.screen.await(t, `(?s)PONG\r\n.*PONG\r\n`)

	// A mistyped command ends the connection, but not the prompt.
	p.typeKeys(t, "PINGG"+enter)
	p.screen.await(t, `ERR unimplemented not_run unknown command "PINGG"; did you mean PING\?\r\n`)
	p.screen.await(t, "node: the peer has hung up after the error; connected again to "+addr+`\r\n`)
	p.typeKeys(t, "REVERSE {\"S\":\"alive\"}"+enter)
	p.screen.await(t, `OK \{.*"alive"`)

	p.typeKeys(t, ctrlD)
	p.leave(t, 0)
}

// TestTerminalLeave tries the ways out.
func TestTerminalLeave(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	for keys, code := range map[string]int{"exit" + enter: 0, "quit" + enter: 0, ctrlD: 0, ctrlC: 5, "half a line" + ctrlC: 5} {
		p := onTerminal(t, "-connect", addr, "-i")
		p.screen.await(t, addr+"> $")
		p.typeKeys(t, keys)
		p.leave(t, code)
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := onTerminal(t, "-connect", addr, "-i")
		p.screen.await(t, addr+"> $")
		p.signal(t, sig)
		p.leave(t, 5)
		p.screen.await(t, "node: the prompt: interrupted by SIG")
	}
}

// TestTerminalReconnects kills the peer under a prompt, and starts it again.
func TestTerminalReconnects(t *testing.T) {
	t.Parallel()
	server, addr := startServer(t)
	p := onTerminal(t, "-connect", addr, "-i")
	p.screen.await(t, addr+"> $")
	p.typeKeys(t, "ECHO one"+enter)
	p.screen.await(t, `Message received: one\r\n`)
	p.typeKeys(t, "half a li")
	p.screen.await(t, `half a li$`)
	kill(t, server)
	p.screen.await(t, "node: lost the connection to "+addr+`: closed by the peer; the last line sent was "ECHO one": `+
		"if its answer is not above, it may have run or not\r\n")
	p.screen.await(t, `node: cannot connect to `+addr+`: connection refused; trying again\r\n`)
	p.screen.await(t, regexp.QuoteMeta(addr)+` \(reconnecting( \ds)?\)> half a li$`) // the line is still there
	p.typeKeys(t, "ne"+enter)
	p.screen.await(t, `node: not sent: "half a line": cannot connect to `+addr+`: connection refused\r\n`)
	p.screen.await(t, regexp.QuoteMeta(addr)+` \(reconnecting [2-5]s\)> $`)

	startServer(t, "-listen", addr)
	p.typeKeys(t, "PING"+enter) // sent at once, or when it is connected by itself
	p.screen.await(t, `(?s)node: connected again to `+addr+`\r\n.*PONG\r\n.*`+addr+"> $")
	require.NotContains(t, p.screen.String(), "unknown command") // no line was sent late
	p.typeKeys(t, ctrlD)
	p.leave(t, 0)
}

// TestTerminalOfSeveral has the prompt go over to another node.
func TestTerminalOfSeveral(t *testing.T) {
	t.Parallel()
	first, a := startServer(t)
	_, b := startServer(t)
	p := onTerminal(t, "-connect", a+","+b, "-i")
	p.screen.await(t, a+"> $")
	kill(t, first)
	p.screen.await(t, b+"> $")
	p.typeKeys(t, "PING"+enter)
	p.screen.await(t, `PONG\r\n`)
	require.NotContains(t, p.screen.String(), "lost") // nothing had been sent
	p.typeKeys(t, ctrlD)
	p.leave(t, 0)
}

// TestTerminalLeavesWithoutPeer leaves while there is no connection: between two
// attempts, and while one is under way that is never answered.
func TestTerminalLeavesWithoutPeer(t *testing.T) {
	t.Parallel()
	for _, silent := range []bool{false, true} {
		for keys, code := range map[string]int{"exit" + enter: 0, ctrlD: 0, ctrlC: 5, "": 5} {
			server, addr := startServer(t)
			p := onTerminal(t, "-connect", addr, "-i")
			p.screen.await(t, addr+"> $")
			kill(t, server)
			if silent {
				deaf(t, addr)
			}
			p.screen.await(t, `\(reconnecting( \ds)?\)> $`)
			if silent {
				p.typeKeys(t, "PING"+enter+"PING"+enter) // wait for the attempt
				p.screen.await(t, `(?s)PING\r\n.*PING\r\n`)
			}
			if p.typeKeys(t, keys); keys == "" {
				p.signal(t, syscall.SIGTERM)
			}
			p.leave(t, code)
		}
	}
}

// TestTerminalHungUpAtOnce has a peer that hangs up on whoever comes, once the
// first connection is lost: it is not pressed.
func TestTerminalHungUpAtOnce(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var connections atomic.Int64
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-accepted
	})
	p := onTerminal(t, "-connect", l.Addr().String(), "-i")
	p.screen.await(t, `\(reconnecting [2-5]s\)> $`)
	require.Less(t, connections.Load(), int64(100)) // seven or so
	p.typeKeys(t, ctrlD)
	p.leave(t, 0)
}

// deaf listens at addr and answers nobody, not even with a connection.
func deaf(t *testing.T, addr string) {
	t.Helper()
	to, err := netip.ParseAddrPort(addr)
	require.NoError(t, err)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}))
	require.NoError(t, unix.Listen(fd, 0))
	for range 2 { // what a backlog of 0 holds, and one more
		c, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
	}
}

// TestTerminalLeavesSilentPeer leaves one that never answers, not even HELP: it
// is not waited for.
func TestTerminalLeavesSilentPeer(t *testing.T) {
	t.Parallel()
	p := onTerminal(t, "-connect", fake(t, nil), "-v", "-i")
	p.screen.await(t, "> $")
	p.typeKeys(t, "SOMETHING"+enter+"exit"+enter)
	p.leave(t, 0)
}

// hostile is what a peer sends to a terminal that it wants to take over.
const hostile = "\x1b]0;owned\x07\x1b[2J\u009b31mred\x9b\roverwritten\u202e\ttab\n"

const shielded = `\x1b]0;owned\x07\x1b[2J\u009b31mred\x9b\x0doverwritten\u202e` + "\ttab\r\n"

// TestTerminalIsShielded has a hostile peer talk to a terminal, in every form.
func TestTerminalIsShielded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args  []string
		reply string
		want  string
	}{
		{nil, hostile, shielded},
		{[]string{"PING"}, hostile, shielded},
		{[]string{"-i"}, hostile, shielded},
		{[]string{"PING"}, "ERR internal failed " + hostile, strings.TrimSuffix(shielded, "\r\n") + " (internal, failed)\r\n"},
		{[]string{"-i"}, "ERR internal failed " + hostile, `ERR internal failed ` + shielded},
	} {
		addr := fake(t, func(conn *net.TCPConn, r *bufio.Reader) {
			if name, _ := r.ReadString('\n'); name != "HELP\n" {
				_, _ = io.WriteString(conn, c.reply)
			}
			_, _ = io.Copy(io.Discard, r)
		})
		p := onTerminal(t, append([]string{"-connect", addr}, c.args...)...)
		if len(c.args) > 0 && c.args[0] == "-i" {
			p.screen.await(t, "> $")
			p.typeKeys(t, "HELLO"+enter)
		}
		p.screen.await(t, regexp.QuoteMeta(c.want))
		require.NotContains(t, p.screen.String(), "\x1b]0;")
		require.NotContains(t, p.screen.String(), "\x1b[2J")
		require.NotContains(t, p.screen.String(), "\x07")
	}
}

// TestTerminalShowsJSON looks at the reply of a typed command.
func TestTerminalShowsJSON(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	p := onTerminal(t, "-connect", addr, "SUM", `{"Numbers":[1,2]}`)
	p.leave(t, 0)
	p.screen.await(t, `\A\{\r\n  "Total": 3\r\n\}\r\n\z`)
}

// TestTerminalOutputOnly has a file for standard input: no prompt is shown, and
// lines are plain.
func TestTerminalOutputOnly(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	p := onTerminalWith(t, strings.NewReader("PING\n"), "-connect", addr, "-i")
	p.leave(t, 0)
	p.screen.await(t, `\APONG\r\n\z`)
}

// TestTerminalsChat has two terminals talk through a third node, three processes
// in all.
func TestTerminalsChat(t *testing.T) {
	t.Parallel()
	server, addr := startServer(t)
	ann := onTerminal(t, "-connect", addr, "-chat", "ann", "-q")
	ann.screen.await(t, `\A\* nobody else is here\r\n\z`)
	bob := onTerminal(t, "-connect", addr, "-chat", "bob", "-q")
	bob.screen.await(t, `\A\* here: ann\r\n\z`)
	ann.screen.await(t, `\* bob came\r\n\z`)
	ann.typeKeys(t, "Hello, Bob."+enter)
	bob.screen.await(t, `\r\nann: Hello, Bob\.\r\n\z`)
	bob.typeKeys(t, "Hello, \u4e16\u754c."+enter)
	ann.screen.await(t, `\r\nbob: Hello, \x{4e16}\x{754c}\.\r\n\z`)
	// What one types stands on one's own screen once, as the terminal shows it.
	require.Equal(t, "* nobody else is here\r\n* bob came\r\nHello, Bob.\r\nbob: Hello, \u4e16\u754c.\r\n", ann.screen.String())

	eve := onTerminal(t, "-connect", addr, "-chat", "eve", "-q")
	eve.screen.await(t, `\* here: ann, bob\r\n\z`)
	ann.screen.await(t, `\* eve came\r\n\z`)
	bob.screen.await(t, `\* eve came\r\n\z`)
	eve.typeKeys(t, "half a line"+ctrlC)
	eve.leave(t, 5)
	eve.screen.await(t, "node: CHAT: interrupted by SIGINT\r\n")
	ann.screen.await(t, `\* eve left\r\n\z`)

	bob.typeKeys(t, "Good bye."+enter+ctrlD)
	bob.leave(t, 0)
	ann.screen.await(t, `\r\nbob: Good bye\.\r\n\* bob left\r\n\z`)

	server.signal(t, syscall.SIGTERM)
	ann.leave(t, 78)
	ann.screen.await(t, `node: CHAT: the room has closed \(unavailable, failed\); try again later\r\n\z`)
	require.Zero(t, server.wait(t), &server.stderr)
}

// TestTerminalChatIsShielded joins the room of a hostile peer, and that of an
// honest one with a hostile member.
func TestTerminalChatIsShielded(t *testing.T) {
	t.Parallel()
	text := strings.TrimSuffix(hostile, "\n")
	room := fakeRoom(t, func(_ context.Context, s *endpoint.Stream[types.ChatLine, types.ChatEvent]) error {
		if err := s.Send(types.ChatEvent{Kind: types.ChatSaid, Name: "eve" + text, Text: text}); err != nil {
			return err
		}
		return endpoint.Errorf(endpoint.Internal, "%s", text)
	})
	honest, _ := serve(t)
	for _, addr := range []string{room, honest} {
		p := onTerminal(t, "-connect", addr, "-chat", "ann")
		if addr == honest {
			p.screen.await(t, "nobody")
			run(t, strings.NewReader(hostile), "-connect", addr, "-chat", "eve")
		}
		p.screen.await(t, `eve.*\[2J.*overwritten`)
		for _, bad := range []string{"\x1b]0;", "\x1b[2J", "\x07", "\u009b", "\x9b", "\u202e"} {
			require.NotContains(t, p.screen.String(), bad)
		}
	}
}
