package endpoint_test

import (
	"bufio"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fileOf returns the name of a new file of random bytes, and the bytes.
func fileOf(t *testing.T, size int) (string, []byte) {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	name := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.WriteFile(name, data, 0o600))
	return name, data
}

// oddReader is a file that reads as something else.
type oddReader struct{ *os.File }

func (o oddReader) Read(p []byte) (int, error) {
	n, err := o.File.Read(p)
	for i := range p[:n] {
		p[i] ^= 1
	}
	return n, err
}

// TestFilesGoByTheKernel: a raw handler that copies a file to its rw has it sent by package net, in steps and without a
// buffer: each step that net copied itself would allocate 32 KiB. What is buffered before and written behind stays in order,
// and what only looks like a file is read.
func TestFilesGoByTheKernel(t *testing.T) {
	if raceEnabled || runtime.GOOS != "linux" {
		t.Skip("not a figure of the library")
	}
	const size = 16<<20 + 12345
	name, data := fileOf(t, size)
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Handle("FILE", endpoint.ServeFunc(func(_ context.Context, rw *bufio.ReadWriter) error {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			_, _ = rw.WriteString("begin")
			if _, err := io.CopyN(rw, f, 100_000); err != nil {
				return err
			}
			if _, err := io.Copy(rw, f); err != nil {
				return err
			}
			_, err = rw.WriteString("end")
			return err
		}))
		e.Handle("ODD", endpoint.ServeFunc(func(_ context.Context, rw *bufio.ReadWriter) error {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			_, err = rw.ReadFrom(io.LimitReader(oddReader{f}, 1<<20))
			return err
		}))
	})
	c, err := net.Dial("tcp", n.net.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	got := make([]byte, size+8)
	for range 2 { // the second time pools are warm
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = io.WriteString(c, "FILE\n")
		require.NoError(t, err)
		_, err = io.ReadFull(c, got)
		require.NoError(t, err)
		runtime.ReadMemStats(&after)
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
	}
	assert.Equal(t, "begin", string(got[:5]))
	assert.True(t, string(got[5:5+size]) == string(data))
	assert.Equal(t, "end", string(got[5+size:]))

	_, err = io.WriteString(c, "ODD\n")
	require.NoError(t, err)
	_, err = io.ReadFull(c, got[:1<<20])
	require.NoError(t, err)
	for i := range 1 << 20 {
		if got[i] != data[i]^1 {
			require.Fail(t, "the reader was passed by", "at %d", i)
		}
	}
}

// TestFileToPeerThatDoesNotRead: the limit Progress holds for files.
func TestFileToPeerThatDoesNotRead(t *testing.T) {
	name, _ := fileOf(t, 32<<20)
	failed := make(chan error, 1)
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.Progress = 50 * time.Millisecond
		e.Handle("FILE", endpoint.ServeFunc(func(_ context.Context, rw *bufio.ReadWriter) error {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			_, err = io.Copy(rw, f)
			failed <- err
			return err
		}))
	})
	c, err := net.Dial("tcp", n.net.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "FILE\n")
	require.NoError(t, err)
	require.ErrorIs(t, <-failed, os.ErrDeadlineExceeded)
	require.Eventually(t, func() bool { return len(n.with("limit=Progress")) == 1 }, patience, time.Millisecond)
}
