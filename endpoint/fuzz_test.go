package endpoint_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/require"
)

// FuzzLine sends whatever bytes, in whatever cuts and with whatever pauses, to an
// endpoint with the ready commands, half-closes or not, and requires that the
// connection ends within the limits of time and says only what the protocol
// knows, and that nothing of it is left. A goroutine that is left blocked fails
// the bubble; one that spins hangs it.
func FuzzLine(f *testing.F) {
	for _, file := range mustGlob(f, "../testdata/line/*.hex") {
		data, err := os.ReadFile(file)
		require.NoError(f, err)
		var sent []byte
		for line := range strings.Lines(string(data)) {
			if rest, ok := strings.CutPrefix(line, "> "); ok {
				b, _, err := parseBytes(rest)
				require.NoError(f, err)
				sent = append(sent, b...)
			}
		}
		f.Add(sent, []byte{}, true)
		f.Add(sent, []byte{1, 1, 1}, false)
	}
	f.Add([]byte("PING\nPING\n"), []byte{0x83, 0x90, 3}, false)
	f.Fuzz(func(t *testing.T, data, cuts []byte, half bool) {
		if len(data) > 64<<10 {
			t.Skip("nothing new there")
		}
		synctest.Test(t, func(t *testing.T) { fuzzLine(t, data, cuts, half) })
	})
}

func mustGlob(tb testing.TB, pattern string) []string {
	files, err := filepath.Glob(pattern)
	require.NoError(tb, err)
	require.NotEmpty(tb, files)
	return files
}

// fuzzLine is one run. Each of cuts is the length of a write, and, if its top
// bit is set, a pause of seconds behind it.
func fuzzLine(t *testing.T, data, cuts []byte, half bool) {
	e, log := endpoint.New(), new(journal)
	e.Logger = log.logger()
	handlers.Register(e)
	a, b := memnet.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		e.ServeConn(context.Background(), b)
	}()
	answered := make(chan []byte)
	go func() {
		got, err := io.ReadAll(a)
		if err != nil && !ended(err) {
			t.Errorf("reading: %v", err)
		}
		answered <- got
	}()
	for i := 0; len(data) > 0; i++ {
		n := len(data)
		if i < len(cuts) {
			n = min(n, 1+int(cuts[i]&0x7f))
		}
		if _, err := a.Write(data[:n]); err != nil {
			break
		}
		data = data[n:]
		if i < len(cuts) && cuts[i] >= 0x80 {
			time.Sleep(time.Duration(cuts[i]&0x7f) * 100 * time.Millisecond)
		}
	}
	if half {
		_ = a.CloseWrite()
	}
	start := time.Now()
	<-served
	if took := time.Since(start); took > 5*time.Minute+10*time.Second {
		t.Errorf("ended after %v", took)
	}
	_ = a.Close()
	checkAnswer(t, <-answered)
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if lines := log.with("level=ERROR", "panic"); len(lines) > 0 {
		t.Errorf("%q", lines)
	}
}

// checkAnswer checks that an ERR line of the endpoint itself is the last, is
// clean, and is understood.
func checkAnswer(t *testing.T, answer []byte) {
	lines := bytes.SplitAfter(answer, []byte("\n"))
	for i, line := range lines {
		if !bytes.HasPrefix(line, []byte("ERR ")) {
			continue
		}
		e, ok := endpoint.ParseErrLine(string(line))
		if !ok || !bytes.HasSuffix(line, []byte("\n")) {
			t.Errorf("%q", line)
			continue
		}
		if e.Outcome == endpoint.OutcomeNotRun && (e.Code == endpoint.Unimplemented) && i != len(lines)-2 {
			t.Errorf("something behind %q", line)
		}
		for _, r := range e.Message {
			if unicode.IsControl(r) {
				t.Errorf("%q", line)
			}
		}
	}
}

// FuzzParseName compares with an implementation that splits whole lines, and
// checks that no prefix of the bytes is judged otherwise than the whole.
func FuzzParseName(f *testing.F) {
	for _, s := range []string{
		"", "\n", "PING\n", "PING \n", "PING\r\n", "PING  \r\n", "PING x\n", "PING \rx\n", " PING\n", "\r\n", "\r", "PING\r", "PING\rX", "\x16\x03\x01", "\x16", "\x16x",
		strings.Repeat("x", 64) + "\n", strings.Repeat("x", 65), strings.Repeat("x", 64) + " y", "\x00", "a\x7f", "\u00e9", "   \n", "   x",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		name, n, inline, refused := endpoint.ParseName(p)
		checkName(t, p, name, n, inline, refused)
		for i := range p {
			part, k, in, r := endpoint.ParseName(p[:i])
			switch {
			case r != nil:
				if refused == nil || r.Error() != refused.Error() {
					t.Fatalf("%q refused as %v, %q as %v", p[:i], r, p, refused)
				}
			case k != 0:
				if !bytes.Equal(part, name) || k != n || in != inline {
					t.Fatalf("%q parsed as %q %d %t, %q as %q %d %t", p[:i], part, k, in, p, name, n, inline)
				}
			}
		}
	})
}

// checkName compares a result of ParseName with the grammar, taken literally:
// name *SP ( [CR] LF / text LF ).
func checkName(t *testing.T, p, name []byte, n int, inline bool, refused *endpoint.Error) {
	isName := func(b byte) bool { return b > ' ' && b < 0x7f }
	length := 0
	for length < len(p) && isName(p[length]) {
		length++
	}
	spaces := length
	for spaces < len(p) && p[spaces] == ' ' {
		spaces++
	}
	rest := p[spaces:]
	type result struct {
		n               int
		inline, refused bool
	}
	var want result
	switch {
	case length > 64:
		want = result{refused: true}
	case len(rest) == 0 || string(rest) == "\r" || string(p) == "\x16":
		want = result{} // more is needed
	case rest[0] == '\n':
		want = result{n: spaces + 1}
	case strings.HasPrefix(string(rest), "\r\n"):
		want = result{n: spaces + 2}
	case length > 0 && spaces > length:
		want = result{n: spaces, inline: true}
	default:
		want = result{refused: true}
	}
	if got := (result{n, inline, refused != nil}); got != want {
		t.Fatalf("%q: %+v, want %+v", p, got, want)
	}
	if want.n > 0 && !bytes.Equal(name, p[:length]) {
		t.Fatalf("%q: name %q", p, name)
	}
	if refused != nil {
		if refused.Code != endpoint.InvalidArgument || refused.Outcome != endpoint.OutcomeNotRun || len(refused.Message) > 400 {
			t.Fatalf("%q: %v", p, refused)
		}
		for i := range len(refused.Message) {
			if b := refused.Message[i]; b < ' ' || b > '~' {
				t.Fatalf("%q: %q", p, refused.Message)
			}
		}
	}
}

// FuzzErrLine sends errors through an ERR line: what comes out is the same but
// for the text, which is clean, short, and what a second trip leaves alone.
func FuzzErrLine(f *testing.F) {
	f.Add(uint8(5), uint8(2), "no such order")
	f.Add(uint8(16), uint8(0), "a\x00b\u2028c\xffd\r\n")
	f.Add(uint8(1), uint8(1), strings.Repeat("é", 600))
	f.Fuzz(func(t *testing.T, code, outcome uint8, text string) {
		e := &endpoint.Error{Code: endpoint.Code(1 + code%16), Outcome: endpoint.Outcome(outcome % 3), Message: text}
		line := endpoint.AppendErrLine(nil, e)
		if bytes.IndexByte(line, '\n') != len(line)-1 || !utf8.Valid(line) {
			t.Fatalf("%q", line)
		}
		back, ok := endpoint.ParseErrLine(string(line))
		if !ok || back.Code != e.Code || back.Outcome != e.Outcome || len(back.Message) > 1024 {
			t.Fatalf("%q: %+v", line, back)
		}
		for _, r := range back.Message {
			if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == utf8.RuneError {
				t.Fatalf("%q", back.Message)
			}
		}
		if utf8.RuneCountInString(back.Message) > utf8.RuneCountInString(text) {
			t.Fatalf("%q grew to %q", text, back.Message)
		}
		if again := endpoint.AppendErrLine(nil, back); !bytes.Equal(again, line) {
			t.Fatalf("%q, then %q", line, again)
		}
	})
}

// FuzzConnReply has an endpoint say whatever it likes to a Conn.
func FuzzConnReply(f *testing.F) {
	f.Add([]byte("hello\nERR not_found failed x\r\nhalf"), []byte{3})
	f.Add([]byte(strings.Repeat("x", 9000)), []byte{})
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		synctest.Test(t, func(t *testing.T) {
			a, b := memnet.Pipe()
			d := &endpoint.Dialer{NetDial: func(context.Context, string, string) (net.Conn, error) { return a, nil }}
			c, err := d.Open(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				rest := data
				for _, cut := range cuts {
					n := min(len(rest), int(cut))
					_, _ = b.Write(rest[:n])
					rest = rest[n:]
				}
				_, _ = b.Write(rest)
				_ = b.Close()
			}()
			for seen := 0; ; {
				reply, err := c.Reply()
				seen += len(reply) + 1
				var told *endpoint.Error
				if err == nil || errors.As(err, &told) && told.Code != endpoint.ResourceExhausted {
					if seen > len(data)+1 {
						t.Fatalf("%q: more replies than were sent", data)
					}
					continue
				}
				if len(reply) > 0 {
					t.Fatalf("a reply %q with an error %v", reply, err)
				}
				break
			}
			_ = c.Close()
		})
	})
}
