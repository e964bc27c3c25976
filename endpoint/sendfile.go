package endpoint

import (
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/pkg/errors"
)

// ReadFrom writes what r has, under the limits of Write. It is what io.Copy and
// bufio.Writer look for: a file goes from the kernel's cache to a TCP socket by
// sendfile(2), without a copy to this process.
func (t *transport) ReadFrom(r io.Reader) (written int64, err error) {
	to, ok := t.Conn.(io.ReaderFrom)
	f, left := fileOf(r)
	if !ok || f == nil {
		return io.Copy(writerOnly{t}, r)
	}
	if limited, ok := r.(*io.LimitedReader); ok {
		defer func() { limited.N -= written }()
	}
	for written < left {
		want := min(left-written, int64(step-t.writeMoved))
		n, err := t.sendPart(to, f, want)
		written += n
		if err != nil || n < want {
			return written, err
		}
	}
	return written, nil
}

// A file is what package net uses sendfile for: an *os.File, which comes in a
// wrapper from its own WriteTo.
type file interface {
	fs.File
	io.Seeker
	syscall.Conn
}

// fileOf returns the file that r reads, and how much of it at most; nil for
// another reader.
func fileOf(r io.Reader) (f file, most int64) {
	if limited, ok := r.(*io.LimitedReader); ok {
		r, most = limited.R, limited.N
	} else {
		most = 1<<63 - 1
	}
	f, _ = r.(file)
	return f, most
}

// sendPart sends so much of f, at most what is left of the step, and less
// only at the file's end. Unlike writeOne's its deadline is never one that fires
// too early: of a file that the kernel cannot send net reads a part before it
// writes it, and what was read could not be written again.
func (t *transport) sendPart(to io.ReaderFrom, f file, want int64) (int64, error) {
	start := now()
	t.writeArmed = 0
	if err := t.armWrite(start-int64(t.writeWaited), start); err != nil {
		return 0, err
	}
	n, err := to.ReadFrom(&io.LimitedReader{R: f, N: want})
	if n > 0 {
		t.moved.Store(now())
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && t.writeBy == 0 {
		return n, t.fail("Progress", t.limits.Progress, "the peer took too little")
	}
	t.countWrite(int(n), time.Duration(now()-start))
	return n, err
}

// writerOnly hides ReadFrom from io.Copy.
type writerOnly struct{ io.Writer }
