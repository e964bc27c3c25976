package endpoint_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A transcript is one exchange of testdata/line. Its lines are
//
//	> BYTES    the client sends
//	> eof      the client closes its half
//	< BYTES    the server answers
//	< eof      the server closes; without it the connection is still in use
//	@ WORDS    what a Conn does to be that client
//	! TEXT     some line of the server's log contains it
//	# ...      is a comment, behind bytes too
//
// BYTES are in hex, 61*8 for eight times 61, or quoted as in Go. Steps wait for
// each other: what follows a "<" is sent when that has been read.
type transcript struct {
	steps  []step
	script []string
	logged []string
}

type step struct {
	client bool // else of the server
	bytes  []byte
	eof    bool
}

func readTranscript(t *testing.T, file string) *transcript {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	tr := new(transcript)
	for i, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		kind, rest, ok := strings.Cut(line, " ")
		require.True(t, ok && len(kind) == 1, "%s:%d", file, i+1)
		switch kind {
		case "@":
			tr.script = append(tr.script, rest)
		case "!":
			tr.logged = append(tr.logged, rest)
		case ">", "<":
			b, eof, err := parseBytes(rest)
			require.NoError(t, err, "%s:%d", file, i+1)
			tr.add(step{client: kind == ">", bytes: b, eof: eof})
		default:
			t.Fatalf("%s:%d: %q", file, i+1, kind)
		}
	}
	require.NotEmpty(t, tr.steps, file)
	return tr
}

// add joins s to the last step if it is of the same side.
func (tr *transcript) add(s step) {
	if n := len(tr.steps); n > 0 && tr.steps[n-1].client == s.client && !tr.steps[n-1].eof {
		last := &tr.steps[n-1]
		last.bytes, last.eof = append(last.bytes, s.bytes...), s.eof
		return
	}
	tr.steps = append(tr.steps, s)
}

// parseBytes reads the bytes of a line.
func parseBytes(s string) (b []byte, eof bool, err error) {
	for s = strings.TrimSpace(s); s != "" && s[0] != '#'; s = strings.TrimSpace(s) {
		if s[0] == '"' {
			q, err := strconv.QuotedPrefix(s)
			if err != nil {
				return nil, false, err
			}
			text, err := strconv.Unquote(q)
			if err != nil {
				return nil, false, err
			}
			b, s = append(b, text...), s[len(q):]
			continue
		}
		token, rest, _ := strings.Cut(s, " ")
		s = rest
		if token == "eof" {
			eof = true
			continue
		}
		token, times, repeated := strings.Cut(token, "*")
		part, err := hex.DecodeString(token)
		if err != nil {
			return nil, false, err
		}
		n := 1
		if repeated {
			if n, err = strconv.Atoi(times); err != nil {
				return nil, false, err
			}
		}
		b = append(b, bytes.Repeat(part, n)...)
	}
	return b, eof, nil
}

// goldenNode is an endpoint with what the transcripts call.
func goldenNode(t *testing.T) (*endpoint.Endpoint, *journal) {
	e, log := endpoint.New(), new(journal)
	e.Logger = log.logger()
	handlers.Register(e)
	e.AddHandleFunc(strings.Repeat("N", 64), handle("64\n"))
	refusals := map[string]error{
		"ERR-CONTROL":    endpoint.Errorf(endpoint.PermissionDenied, "a\x00b\x1bc\td\x7fe\rf"),
		"ERR-SEPARATORS": endpoint.Errorf(endpoint.PermissionDenied, "a\u2028b\u2029c\u0085d\u009fé世"),
		"ERR-INVALID":    endpoint.Errorf(endpoint.PermissionDenied, "a\xffb\xe4\xb8c"),
		"ERR-LONG":       endpoint.Errorf(endpoint.PermissionDenied, "x%s", strings.Repeat("é", 2000)),
		"ERR-LINE-END":   endpoint.Errorf(endpoint.NotFound, "one\n OK two"),
	}
	for name := range refusals {
		e.AddHandleFunc(name, handle("the interceptor let it through\n"))
	}
	e.Interceptors = []endpoint.Interceptor{func(ctx context.Context, info *endpoint.Info, next func(context.Context) error) error {
		if err := refusals[info.Command]; err != nil {
			return err
		}
		return next(ctx)
	}}
	t.Cleanup(func() { assert.NoError(t, e.Close()) })
	return e, log
}

func goldenFiles(t *testing.T) []string {
	files, err := filepath.Glob("../testdata/line/*.hex")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 40)
	return files
}

// The ways to cut bytes into writes or reads. Each call of a cutter says how
// many bytes to take at most.
var cutNames = []string{"whole", "bytes", "random"}

func newCutter(name string, random *rand.Rand) func() int {
	switch name {
	case "bytes":
		return func() int { return 1 }
	case "random":
		own := rand.New(rand.NewPCG(random.Uint64(), 0))
		return func() int { return 1 + own.IntN(1<<own.IntN(12)) }
	}
	return func() int { return 1 << 20 }
}

// TestGoldenServer plays what clients send against an endpoint on TCP: as it
// stands, one byte at a time, and in random cuts, both as the client writes and
// as the endpoint reads.
func TestGoldenServer(t *testing.T) {
	random := seeded(t)
	for _, name := range cutNames {
		for _, wrapped := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,wrapped=%t", name, wrapped), func(t *testing.T) {
				for _, file := range goldenFiles(t) {
					t.Run(filepath.Base(file), func(t *testing.T) {
						playOnTCP(t, readTranscript(t, file), name, wrapped, random)
					})
				}
			})
		}
	}
}

func playOnTCP(t *testing.T, tr *transcript, cut string, wrapped bool, random *rand.Rand) {
	e, log := goldenNode(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	if wrapped {
		l = cutListener{l, newCutter(cut, random)}
	}
	go func() { _ = e.Serve(l) }()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	tr.playClient(t, newClient(t, c), newCutter(cut, random))
	require.NoError(t, e.Close()) // so that all is logged
	for _, text := range tr.logged {
		assert.NotEmpty(t, log.with(text), "no log line with %q in %q", text, log.all())
	}
}

// playClient is the transcript's client. It fails unless the server answers as
// it says.
func (tr *transcript) playClient(t *testing.T, c *client, cut func() int) {
	for i, s := range tr.steps {
		if !s.client {
			c.expect(string(s.bytes))
			if s.eof {
				assert.Empty(t, c.end())
				return
			}
			continue
		}
		for rest := s.bytes; len(rest) > 0; {
			n := min(len(rest), cut())
			if _, err := c.Write(rest[:n]); err != nil {
				// The server may end the connection before it has all.
				require.True(t, ended(err) && tr.steps[len(tr.steps)-1].eof, "step %d: %v", i, err)
				break
			}
			rest = rest[n:]
		}
		if s.eof {
			c.closeWrite()
		}
	}
	c.ping()
}

// A cutListener hands out connections whose reads return at most read() bytes.
// The endpoint cannot tell them for sockets, so it reads with a buffer at hand.
type cutListener struct {
	net.Listener
	read func() int
}

func (l cutListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &cutConn{c.(*net.TCPConn), l.read}, nil
}

type cutConn struct {
	*net.TCPConn
	read func() int
}

func (c *cutConn) Read(p []byte) (int, error) { return c.TCPConn.Read(p[:min(len(p), c.read())]) }

// TestGoldenClient has a Conn do what the scripts in the transcripts say, and
// compares what it writes. The server is played from the same file.
func TestGoldenClient(t *testing.T) {
	random := seeded(t)
	played := 0
	for _, file := range goldenFiles(t) {
		tr := readTranscript(t, file)
		if len(tr.script) == 0 {
			continue
		}
		played++
		for _, name := range cutNames {
			t.Run(filepath.Base(file)+","+name, func(t *testing.T) {
				cut := newCutter(name, random)
				l := memnet.Listen()
				served := make(chan error, 1)
				go func() { served <- tr.playServer(l, cut) }()
				d := endpoint.Dialer{NetDial: func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Dial(ctx) }}
				c, err := d.Open(t.Context(), "anywhere")
				require.NoError(t, err)
				require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
				for _, line := range tr.script {
					runScript(t, c, line)
				}
				require.NoError(t, <-served)
				require.NoError(t, c.Close())
			})
		}
	}
	require.GreaterOrEqual(t, played, 10)
}

// playServer is the transcript's server, for one connection.
func (tr *transcript) playServer(l net.Listener, cut func() int) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for i, s := range tr.steps {
		if s.client {
			got := make([]byte, len(s.bytes))
			n, err := io.ReadFull(c, got)
			if !bytes.Equal(got[:n], s.bytes) || err != nil {
				return fmt.Errorf("step %d: the Conn wrote %q (%w), not %q", i, got[:n], err, s.bytes)
			}
			if s.eof {
				if more, err := io.ReadAll(c); len(more) > 0 || err != nil {
					return fmt.Errorf("step %d: the Conn went on with %q, %w", i, more, err)
				}
			}
			continue
		}
		for rest := s.bytes; len(rest) > 0; {
			n := min(len(rest), cut())
			if _, err := c.Write(rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		if s.eof {
			return nil
		}
	}
	return nil
}

// runScript does with c what a line of a script says.
func runScript(t *testing.T, c *endpoint.Conn, line string) {
	t.Helper()
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "repeat":
		times, again, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(times)
		require.NoError(t, err, line)
		for range n {
			runScript(t, c, again)
		}
	case "command":
		require.NoError(t, c.Command(rest), line)
	case "text", "bytes":
		if verb == "text" {
			require.Equal(t, byte('"'), rest[0], line)
		}
		b, _, err := parseBytes(rest)
		require.NoError(t, err, line)
		_, err = c.Write(b)
		require.NoError(t, err, line)
	case "flush":
		require.NoError(t, c.Flush(), line)
	case "closewrite":
		require.NoError(t, c.CloseWrite(), line)
	case "reply":
		want, _, err := parseBytes(rest)
		require.NoError(t, err, line)
		got, err := c.Reply()
		require.NoError(t, err, line)
		require.Equal(t, string(want), got, line)
	case "refused":
		words := strings.SplitN(rest, " ", 3)
		text, _, err := parseBytes(words[2])
		require.NoError(t, err, line)
		_, err = c.Reply()
		var e *endpoint.Error
		require.ErrorAs(t, err, &e, line)
		require.Equal(t, []string{words[0], words[1], string(text)}, []string{e.Code.String(), e.Outcome.String(), e.Message}, line)
	case "end":
		_, err := c.Reply()
		require.ErrorIs(t, err, io.EOF, line)
	default:
		t.Fatalf("script %q", line)
	}
}
