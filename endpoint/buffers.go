package endpoint

import "bufio"

// writeBuffer is the size of a handler's write buffer in bytes.
const writeBuffer = 4 << 10

// buffers are what a connection holds while a command is under way.
type buffers struct {
	r  *bufio.Reader
	w  *bufio.Writer
	rw bufio.ReadWriter // what the handler is given, made anew for every command
}

// take gives c buffers, if it has none.
func (c *lineConn) take() {
	if c.b != nil {
		return
	}
	c.b = c.e.takeBuffers()
	c.b.r.Reset(source{c})
	c.b.w.Reset(c.stream)
}

func (e *Endpoint) takeBuffers() *buffers {
	b, _ := e.buffers.Get().(*buffers)
	if b == nil {
		b = &buffers{
			r: bufio.NewReaderSize(nil, e.readBuffer()),
			w: bufio.NewWriterSize(nil, writeBuffer),
		}
	}
	return b
}

// drop gives c's buffers back. Nothing may be left in them.
func (c *lineConn) drop() {
	if b := c.b; b != nil {
		c.b = nil
		c.e.dropBuffers(b)
	}
}

func (e *Endpoint) dropBuffers(b *buffers) {
	if b.r.Size() != e.readBuffer() {
		return // a reader that grew for a long line is not kept
	}
	b.r.Reset(nil)
	b.w.Reset(nil)
	b.rw = bufio.ReadWriter{}
	e.buffers.Put(b)
}

// readBuffer is the size that read buffers begin with.
func (e *Endpoint) readBuffer() int {
	if e.limits.Line < 0 {
		return defaultLine
	}
	return max(16, min(e.limits.Line, defaultLine)) // 16 is bufio's least
}
