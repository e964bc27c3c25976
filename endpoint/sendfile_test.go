package endpoint_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sending is a connection that keeps what its ReadFrom is given.
type sending struct {
	net.Conn
	files int
	most  int64
}

func (s *sending) ReadFrom(r io.Reader) (int64, error) {
	l := r.(*io.LimitedReader) // as net.TCPConn takes it for sendfile
	if _, ok := l.R.(syscall.Conn); ok {
		s.files++
	}
	s.most = max(s.most, l.N)
	return io.Copy(s.Conn, r)
}

func testFile(t *testing.T, size int) (*os.File, []byte) {
	t.Helper()
	content := make([]byte, size)
	r := seeded(t)
	for i := range content {
		content[i] = byte(r.Uint32())
	}
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, f.Close()) })
	return f, content
}

// TestSendfile: what a handler copies from a file reaches the connection as the
// file itself, in steps of the limit Progress, whatever was written before.
func TestSendfile(t *testing.T) {
	const size = 1<<20 + 12345
	for name, test := range map[string]struct {
		head string
		from func(f *os.File) io.Reader
		size int
		file bool
	}{
		"file":         {from: func(f *os.File) io.Reader { return f }, size: size, file: true},
		"behind text":  {head: "some text\n", from: func(f *os.File) io.Reader { return f }, size: size, file: true},
		"part":         {from: func(f *os.File) io.Reader { return io.LimitReader(f, 100_000) }, size: 100_000, file: true},
		"nothing":      {from: func(f *os.File) io.Reader { return io.LimitReader(f, 0) }, file: true},
		"more than is": {from: func(f *os.File) io.Reader { return io.LimitReader(f, 2*size) }, size: size, file: true},
		"other reader": {from: func(f *os.File) io.Reader { return struct{ io.Reader }{f} }, size: size},
	} {
		t.Run(name, func(t *testing.T) {
			f, content := testFile(t, size)
			near, far := net.Pipe()
			got := make(chan []byte, 1)
			go func() {
				b, _ := io.ReadAll(far)
				got <- b
			}()
			conn := &sending{Conn: near}
			w := bufio.NewWriter(endpoint.NewTransport(conn, endpoint.Limits{}))
			_, err := w.WriteString(test.head)
			require.NoError(t, err)
			n, err := io.Copy(w, test.from(f))
			require.NoError(t, err)
			assert.EqualValues(t, test.size, n)
			require.NoError(t, w.Flush())
			require.NoError(t, near.Close())
			assert.True(t, bytes.Equal(append([]byte(test.head), content[:test.size]...), <-got))
			assert.Equal(t, test.file && test.size > 0, conn.files > 0)
			assert.LessOrEqual(t, conn.most, int64(64<<10))
			require.NoError(t, far.Close())
		})
	}
}

// TestSendfileServed: a raw command that copies a file, to a caller that reads
// it slowly and to one that reads nothing and is cut.
func TestSendfileServed(t *testing.T) {
	f, content := testFile(t, 8<<20)
	failed := make(chan error, 2)
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.Progress = 500 * time.Millisecond
		e.Handle("FILE", endpoint.ServeFunc(func(_ context.Context, rw *bufio.ReadWriter) error {
			_, err := f.Seek(0, io.SeekStart)
			if err == nil {
				_, err = io.Copy(rw, f)
			}
			failed <- err
			return err
		}))
	})
	conn, err := endpoint.Open(n.net.Addr().String())
	require.NoError(t, err)
	require.NoError(t, conn.Command("FILE"))
	require.NoError(t, conn.Flush())
	got := make([]byte, len(content))
	for i := 0; i < len(got); i += 1 << 20 {
		_, err := io.ReadFull(conn, got[i:min(i+1<<20, len(got))])
		require.NoError(t, err)
		time.Sleep(20 * time.Millisecond)
	}
	assert.True(t, bytes.Equal(content, got))
	require.NoError(t, <-failed)
	require.NoError(t, conn.Command("FILE"))
	require.NoError(t, conn.Flush())
	err = <-failed
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	assert.Contains(t, err.Error(), "limit Progress")
	require.NoError(t, conn.Close())
	assert.Eventually(t, func() bool {
		return strings.Contains(strings.Join(n.all(), ""), "Progress")
	}, 5*time.Second, 10*time.Millisecond)
}
