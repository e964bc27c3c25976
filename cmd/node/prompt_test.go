package main_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	node "gobnode/cmd/node"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPipedPrompt(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	for _, c := range []struct{ in, out string }{
		{"", ""},
		{"PING\n", "PONG\n"},
		{"PING", "PONG\n"},
		{"\n\nPING\r\n\n", "PONG\n"},
		{"STRING\nhello\nPING\n", "Thank you.\nPONG\n"},
		{"PING\nexit\nPING\n", "PONG\n"},
		{"PING\n quit \nPING\n", "PONG\n"},
		{"PING\nexit", "PONG\n"},
		{"ECHO one\ntwo\n\n", "Message received: one\nMessage received: two\nMessage received: \n"},
		{"SUM {\"Numbers\":[1,2]}\nSUM {\"x\":1}\nPING\n", "OK {\"Total\":3}\nERR invalid_argument not_run unknown field \"x\"\nPONG\n"},
	} {
		assert.Equal(t, result{stdout: c.out}, run(t, strings.NewReader(c.in), "-connect", addr, "-i"), "%q", c.in)
	}
}

// TestPromptBytes checks that lines go out as they come in, and that replies to
// a pipe come out as they came.
func TestPromptBytes(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	reply := "\x1b[31m\x00\xff no line's end"
	r := run(t, strings.NewReader("A b\r\n\n\x1b\xff\nlast"), "-connect", fake(t, recorder(got, reply)), "-i")
	assert.Equal(t, result{stdout: reply}, r)
	assert.Equal(t, "A b\r\n\n\x1b\xff\nlast\n", <-got)
}

// TestPromptGoesOn checks that replies come while the input is open.
func TestPromptGoesOn(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	p := start(t, "-connect", addr, "-i")
	for n, want := range []string{`\APONG\n\z`, `\APONG\nPONG\n\z`} {
		_, err := io.WriteString(p.stdin, "PING\n")
		require.NoError(t, err, n)
		p.stdout.await(t, want)
	}
	require.NoError(t, p.stdin.Close())
	require.Zero(t, p.wait(t))
	require.Empty(t, p.stderr.String())
}

func TestPromptFailures(t *testing.T) {
	t.Parallel()
	open, hold := io.Pipe()
	defer func() { _ = hold.Close() }()
	for name, c := range map[string]struct {
		peer         func(*net.TCPConn, *bufio.Reader)
		stdin        io.Reader
		code         int
		stdout, says string
	}{
		"hung up": {
			func(c *net.TCPConn, _ *bufio.Reader) { _, _ = io.WriteString(c, "bye\n") }, open,
			3, "bye\n", "the prompt: lost the connection to 127.0.0.1",
		},
		"reset":          {reset, io.MultiReader(strings.NewReader("PING\n"), open), 3, "", "the prompt: lost the connection to 127.0.0.1"},
		"reset at leave": {reset, strings.NewReader("PING\n"), 3, "", "lost the connection to 127.0.0.1"},
		"refused": {
			func(c *net.TCPConn, _ *bufio.Reader) {
				_, _ = io.WriteString(c, "ERR resource_exhausted not_run full\n")
			}, open,
			72, "ERR resource_exhausted not_run full\n", "the last reply: full (resource_exhausted, not_run); try again later",
		},
		"error at leave": {
			answer("ok\nERR not_found failed no\n"), strings.NewReader("X\n"),
			69, "ok\nERR not_found failed no\n", "the last reply: no (not_found, failed)",
		},
		"error before the last": {answer("ERR not_found failed no\nok\n"), strings.NewReader("X\n"), 0, "ERR not_found failed no\nok\n", ""},
		"silent at leave":       {nil, strings.NewReader("X\n"), 4, "", "not done within -timeout 300ms"},
		"bad input": {
			nil, io.MultiReader(strings.NewReader("X\n"), iotest.ErrReader(errors.New("bad disk"))),
			1, "", "cannot read standard input: bad disk",
		},
	} {
		t.Run(name, func(t *testing.T) {
			timeout := "1m"
			if strings.HasPrefix(name, "silent") {
				timeout = "300ms"
			}
			stdin := c.stdin
			if stdin == open { // fake waits for the first bytes, to see whether they are a LIST
				stdin = io.MultiReader(strings.NewReader("FIRST\n"), open)
			}
			r := run(t, stdin, "-connect", fake(t, c.peer), "-timeout", timeout, "-i")
			assert.Equal(t, c.code, r.code, r.stderr)
			assert.Equal(t, c.stdout, r.stdout)
			assert.Contains(t, r.stderr, c.says)
		})
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	var listed strings.Builder
	complete := node.Completion([]string{"DESCRIBE", "PING", "PINT", "STRING"}, &listed)
	for _, c := range []struct {
		line string
		pos  int
		key  rune
		want string
		at   int
		ok   bool
	}{
		{"D", 1, '\t', "DESCRIBE ", 9, true},
		{"str", 3, '\t', "STRING ", 7, true},
		{"p", 1, '\t', "PIN", 3, true},
		{"ping", 4, '\t', "PING ", 5, true},
		{"Dx", 1, '\t', "DESCRIBEx", 8, true},
		{"", 0, '\t', "", 0, false},
		{"X", 1, '\t', "", 0, false},
		{"PING ", 5, '\t', "", 0, false},
		{"PING P", 6, '\t', "", 0, false},
		{"D", 1, 'x', "", 0, false},
		{"PINGPONG", 8, '\t', "", 0, false},
	} {
		line, at, ok := complete(c.line, c.pos, c.key)
		assert.Equal(t, c.ok, ok, "%q", c.line)
		assert.Equal(t, c.want, line)
		assert.Equal(t, c.at, at)
	}
	assert.Empty(t, listed.String())
	_, _, ok := complete("PIN", 3, '\t')
	assert.True(t, ok)
	assert.Equal(t, "PING  PINT\n", listed.String())
}
