package endpoint_test

import (
	"bufio"
	"context"
	"encoding/gob"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/types"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGoldenTyped plays the transcripts of typed commands, whose gobs a plain
// encoding/gob Encoder made, in the same cuts as those of line mode.
func TestGoldenTyped(t *testing.T) {
	random := seeded(t)
	files, err := filepath.Glob("../testdata/typed/*.hex")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 19)
	for _, file := range files {
		for _, cut := range cutNames {
			for _, wrapped := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s,%s,wrapped=%t", filepath.Base(file), cut, wrapped), func(t *testing.T) {
					n := newNode(typedCommands)
					l, err := net.Listen("tcp", "127.0.0.1:0")
					require.NoError(t, err)
					n.net = l
					if wrapped {
						l = cutListener{l, newCutter(cut, random)}
					}
					n.start(t, l)
					tr, c := readTranscript(t, file), n.dial(t)
					playTyped(t, tr, c, newCutter(cut, random))
					assertReleased(t, n)
				})
			}
		}
	}
}

// playTyped is playClient but for what differs from one process to the next: a
// gob in an answer is compared by its value, since type ids are numbered in each
// process, and a transcript may end within a line, before an incident's id.
func playTyped(t *testing.T, tr *transcript, c *client, cut func() int) {
	for _, s := range tr.steps {
		if s.client {
			for rest := s.bytes; len(rest) > 0; {
				n := min(len(rest), cut())
				if _, err := c.Write(rest[:n]); err != nil {
					break // the server may end the connection before it has all
				}
				rest = rest[n:]
			}
			if s.eof {
				c.closeWrite()
			}
			continue
		}
		want := string(s.bytes)
		switch gobbed, ok := strings.CutPrefix(want, "OK\n"); {
		case ok && strings.Contains(gobbed, "SumReply"):
			c.expect("OK\n")
			assertSameGob[types.SumReply](t, gobbed, c.r)
		case ok && strings.Contains(gobbed, "ComplexData"):
			c.expect("OK\n")
			assertSameGob[types.ComplexData](t, gobbed, c.r)
		case strings.HasSuffix(want, "incident "):
			c.expect(want)
			assert.Regexp(t, "^[0-9a-f]{8}$", c.line())
		default:
			c.expect(want)
		}
		if s.eof {
			assert.Empty(t, c.end())
			return
		}
	}
	c.ping()
}

// assertSameGob reads a gob from r with a plain encoding/gob Decoder.
func assertSameGob[T any](t *testing.T, want string, r *bufio.Reader) {
	t.Helper()
	var wanted, got T
	require.NoError(t, gob.NewDecoder(strings.NewReader(want)).Decode(&wanted))
	require.NoError(t, gob.NewDecoder(r).Decode(&got))
	assert.Equal(t, wanted, got)
}

func typedCommands(e *endpoint.Endpoint) {
	handlers.Register(e)
	empties := func(name string, f func() error) {
		endpoint.Command[empty, empty](name).Handle(e, func(context.Context, empty) (empty, error) { return empty{}, f() })
	}
	empties("NOTHING", func() error { return nil })
	empties("FAILS", func() error { return endpoint.Errorf(endpoint.NotFound, "no such order") })
	empties("PANICS", func() error { panic("a secret") })
	empties("ABORTS", func() error { panic(endpoint.ErrAbort) })
	empties("FORBIDDEN", func() error { return nil })
	e.Interceptors = []endpoint.Interceptor{func(ctx context.Context, info *endpoint.Info, next next) error {
		if info.Command == "FORBIDDEN" {
			return endpoint.Errorf(endpoint.PermissionDenied, "not you")
		}
		return next(ctx)
	}}
}
