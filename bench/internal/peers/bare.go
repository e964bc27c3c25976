package peers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"

	"gobnode/bench/internal/echo"
)

// Bare is the name of the floor.
const Bare = "bare"

// bare is what a multiplexer cannot be cheaper than: frames of a length and the number of a caller, no codec, context, deadline,
// dispatch, flow control or limit. Its streams are plain TCP. Its bytes are those of echo's message, put together once.
func bare() *Peer {
	return &Peer{
		Name: Bare, About: "the floor: frames of bytes, handled by the reader; writes shared as far as one yield lets; streams are plain TCP",
		Streams: true, Buffers: true,
		NewServer: func(h *echo.Handler) (Server, error) { return bareServer{h}, nil },
		Dial: func(ctx context.Context, addr string) (Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			b := &bareConn{c: c, w: bareWriter{c: c}}
			go b.read()
			return b, nil
		},
	}
}

const (
	bareHeader  = 8              // length and slot, of 4 bytes each
	bareStream  = 1<<32 - 1      // the slot that turns a connection into a stream, with the size of its messages in place of the length
	bareLast    = 1<<64 - 1      // the ID of the message that ends a stream, and is not counted
	bareLongest = 16 << 20       // of a frame
	bareBuffer  = 32 << 10       // for reading
	bareBatch   = 2 * bareBuffer // replies gathered before they are written, at most
)

func appendFrame(dst []byte, slot uint32, payload []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(payload)))
	dst = binary.BigEndian.AppendUint32(dst, slot)
	return append(dst, payload...)
}

// readHeader returns the length and slot of the next frame.
func readHeader(r *bufio.Reader) (n int, slot uint32, err error) {
	h, err := r.Peek(bareHeader)
	if err != nil {
		return 0, 0, err
	}
	length := binary.BigEndian.Uint32(h)
	if length > bareLongest {
		return 0, 0, fmt.Errorf("a frame of %d bytes", length)
	}
	slot = binary.BigEndian.Uint32(h[4:])
	_, err = r.Discard(bareHeader)
	return int(length), slot, err
}

type bareServer struct{ h *echo.Handler }

func (s bareServer) Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go s.serve(c)
	}
}

// serve ends with the connection. What is wrong with it the client finds out. Replies gather while there are requests in the buffer, so
// that a batch of requests costs one write.
func (s bareServer) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, bareBuffer)
	var out []byte
	for {
		n, slot, err := readHeader(r)
		if err != nil {
			return
		}
		if slot == bareStream {
			if s.pour(c, r, n) != nil {
				return
			}
			continue
		}
		at := len(out) + bareHeader
		out = append(appendFrame(out, slot, nil), make([]byte, n)...)
		binary.BigEndian.PutUint32(out[at-bareHeader:], uint32(n))
		if _, err := io.ReadFull(r, out[at:]); err != nil {
			return
		}
		s.h.Pause()
		if r.Buffered() >= bareHeader && len(out) < bareBatch {
			continue
		}
		if _, err := c.Write(out); err != nil {
			return
		}
		out = out[:0]
	}
}

// pour reads messages of size bytes, their ID in front, up to the one that says it is the last.
func (s bareServer) pour(c net.Conn, r *bufio.Reader, size int) error {
	var total echo.Total
	for m := make([]byte, size); ; {
		if _, err := io.ReadFull(r, m); err != nil {
			return err
		}
		id := binary.BigEndian.Uint64(m)
		if id == bareLast {
			break
		}
		if err := total.Take(id, m); err != nil {
			return err
		}
	}
	reply := binary.BigEndian.AppendUint64(nil, total.Messages)
	_, err := c.Write(appendFrame(nil, 0, binary.BigEndian.AppendUint64(reply, total.Bytes)))
	return err
}

// A bareWriter lets whoever finds nobody writing write for all who come meanwhile.
type bareWriter struct {
	c net.Conn

	mu         sync.Mutex
	buf, spare []byte
	writing    bool
	err        error
}

// send writes a frame, or leaves it to who is writing. If others have calls under way it yields once before, so that they join.
func (w *bareWriter) send(slot uint32, payload []byte, others bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = appendFrame(w.buf, slot, payload)
	if w.writing {
		return w.err
	}
	w.writing = true
	if others {
		w.mu.Unlock()
		runtime.Gosched()
		w.mu.Lock()
	}
	for len(w.buf) > 0 && w.err == nil {
		b := w.buf
		w.buf = w.spare[:0]
		w.mu.Unlock()
		_, err := w.c.Write(b)
		w.mu.Lock()
		w.spare, w.err = b, err
	}
	w.writing = false
	return w.err
}

type bareConn struct {
	c     net.Conn
	w     bareWriter
	calls atomic.Int32 // under way

	mu    sync.Mutex
	slots []*bareSlot
	ended bool
}

// A bareSlot is one caller's place. reply belongs to the reader until it has told done, then to the caller until its next call.
type bareSlot struct {
	number uint32
	reply  []byte
	done   chan struct{} // closed when the connection has ended
}

func (c *bareConn) Close() error { return c.c.Close() }

func (c *bareConn) newSlot() *bareSlot {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &bareSlot{number: uint32(len(c.slots)), done: make(chan struct{}, 1)}
	c.slots = append(c.slots, s)
	if c.ended {
		close(s.done)
	}
	return s
}

func (c *bareConn) slot(number uint32) *bareSlot {
	c.mu.Lock()
	defer c.mu.Unlock()
	if uint64(number) >= uint64(len(c.slots)) {
		return nil
	}
	return c.slots[number]
}

// read hands the replies out; it ends with the connection.
func (c *bareConn) read() {
	r := bufio.NewReaderSize(c.c, bareBuffer)
	for {
		n, number, err := readHeader(r)
		s := c.slot(number)
		if err != nil || s == nil {
			break
		}
		if cap(s.reply) < n {
			s.reply = make([]byte, n)
		}
		s.reply = s.reply[:n]
		if _, err := io.ReadFull(r, s.reply); err != nil {
			break
		}
		s.done <- struct{}{}
	}
	c.c.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for _, s := range c.slots {
		close(s.done)
	}
}

var errBareEnded = errors.New("the connection ended")

func (c *bareConn) NewCaller(body int) Caller {
	m := echo.New(body)
	payload := append(make([]byte, 8), m.Name...)
	for _, tag := range m.Tags {
		payload = append(payload, tag...)
	}
	payload = append(payload, m.Body...)
	s := c.newSlot()
	return func(_ context.Context, id uint64) error {
		binary.BigEndian.PutUint64(payload, id)
		others := c.calls.Add(1) > 1
		defer c.calls.Add(-1)
		if err := c.w.send(s.number, payload, others); err != nil {
			return err
		}
		if _, ok := <-s.done; !ok {
			return errBareEnded
		}
		if !bytes.Equal(s.reply, payload) {
			return fmt.Errorf("a reply of %d bytes differs from its request of %d", len(s.reply), len(payload))
		}
		return nil
	}
}

// Stream turns the connection into a stream; no calls may be under way, and none come after it but on its slot.
func (c *bareConn) Stream(_ context.Context, body int) (Stream, error) {
	if body < 16 {
		return nil, errors.New("a message has no room for its ID")
	}
	st := &bareStreamSender{c: c, m: echo.New(body).Body, s: c.slot(0)}
	if st.s == nil {
		st.s = c.newSlot()
	}
	var h [bareHeader]byte
	binary.BigEndian.PutUint32(h[:], uint32(body))
	binary.BigEndian.PutUint32(h[4:], bareStream)
	_, err := c.c.Write(h[:])
	return st, err
}

type bareStreamSender struct {
	c *bareConn
	m []byte
	s *bareSlot
}

func (s *bareStreamSender) Send(id uint64) error {
	binary.BigEndian.PutUint64(s.m, id)
	_, err := s.c.c.Write(s.m)
	return err
}

func (s *bareStreamSender) Finish() (echo.Total, error) {
	if err := s.Send(bareLast); err != nil {
		return echo.Total{}, err
	}
	if _, ok := <-s.s.done; !ok || len(s.s.reply) != 16 {
		return echo.Total{}, errBareEnded
	}
	return echo.Total{Messages: binary.BigEndian.Uint64(s.s.reply), Bytes: binary.BigEndian.Uint64(s.s.reply[8:])}, nil
}
