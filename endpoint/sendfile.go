package endpoint

import (
	"io"
	"math"
	"net"
	"os"
	"reflect"
	"time"

	"github.com/pkg/errors"
)

// ReadFrom writes what r has to give, until io.EOF. io.Copy to a handler's rw
// comes to here when nothing is buffered there. A file goes from the kernel
// to the socket, by sendfile where the system has it: package net gets it a step
// at a time, so that the limits of time hold as for Write. Everything else is
// copied through a buffer of the size that bufio would have used.
func (t *transport) ReadFrom(r io.Reader) (written int64, err error) {
	file, left := r, int64(math.MaxInt64)
	limited, ok := r.(*io.LimitedReader)
	if ok {
		file, left = limited.R, limited.N
	}
	tcp, ok := t.Conn.(*net.TCPConn)
	if !ok || !isFile(file) {
		return io.CopyBuffer(onlyWriter{t}, onlyReader{r}, make([]byte, writeBuffer))
	}
	for left > 0 && err == nil {
		var n int64
		n, err = t.sendStep(tcp, file, min(left, int64(step-t.writeMoved)))
		if n == 0 {
			break
		}
		written, left = written+n, left-n
	}
	if limited != nil {
		limited.N = left
	}
	return written, err
}

// sendStep sends up to size bytes of a file, which is at most what is left of
// the step. It sends none at the end of the file.
func (t *transport) sendStep(tcp *net.TCPConn, file io.Reader, size int64) (written int64, err error) {
	start := now()
	for current := start; ; current = now() {
		if err := t.armWrite(start-int64(t.writeWaited), current); err != nil {
			return written, err
		}
		n, err := tcp.ReadFrom(&io.LimitedReader{R: file, N: size - written})
		written += n
		if n > 0 {
			t.moved.Store(now())
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.countWrite(int(written), time.Duration(t.moved.Load()-start))
			return written, err
		}
	}
}

// isFile reports whether r is a regular file and nothing more: not a type with
// a Read of its own around one, which package net would pass by.
func isFile(r io.Reader) bool {
	f, ok := r.(interface{ Stat() (os.FileInfo, error) })
	if _, plain := r.(*os.File); !ok || !plain && reflect.TypeOf(r).PkgPath() != "os" { // as File.WriteTo hands itself on
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

// onlyReader and onlyWriter hide what else there is: io.Copy would come back.
type (
	onlyReader struct{ r io.Reader }
	onlyWriter struct{ w io.Writer }
)

func (o onlyReader) Read(p []byte) (int, error)  { return o.r.Read(p) }
func (o onlyWriter) Write(p []byte) (int, error) { return o.w.Write(p) }
