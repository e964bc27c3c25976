package session

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"time"

	"gobnode/internal/wire"
)

// maxGreeting is how much of a line in place of the greeting is kept for the error.
const maxGreeting = 1 << 10

// A reader reads the connection into a buffer that it holds only while there is something in it, or while a wrapped
// connection makes it wait with one.
type reader struct {
	s    *Session
	buf  *buffer                   // bytes from buf.r on are not yet parsed; nil if there are none
	fill func(fd int) (int, error) // of a socket
	full bool                      // the last read filled the buffer: the next one may be larger
	wide bool                      // the budget holds wideBuffer for it

	landing landing
	spinner
	pace
}

// readLoop reads frames until the connection fails, the session ends or the guard gives the reading to another goroutine. It waits
// for nothing else: what has to be written is left to others or written without blocking, a handler that takes its time gets its
// call through a channel with room. first says that nothing was read yet. What it returns is as of a job.
func (s *Session) readLoop(first bool) (again bool) {
	defer s.leave()
	left := true // by runtime.Goexit in a handler
	var turn uint64
	defer func() {
		if p := recover(); p != nil {
			panic(p) //nolint:forbidigo // a defect of this package's, under the lock most likely: to wait for that would hide it
		}
		if left && s.turn.CompareAndSwap(turn, turn+1) {
			s.startReading()
			s.mu.Lock()
			s.release(true)
		}
	}()
	err := s.reader.read(first, &turn)
	left = false
	if err != errTakenOver && err != errReplaced { //nolint:errorlint // these very errors
		s.endReading(err)
	}
	return err != errReplaced //nolint:errorlint // this very error
}

// Why a goroutine reads no more though the session goes on: another one does.
var (
	errTakenOver = errors.New("the reading was taken over") // while this one ran a handler
	errReplaced  = errors.New("the reader was replaced")
)

// read returns why it ended.
func (r *reader) read(first bool, turn *uint64) (err error) {
	s := r.s
	if first {
		err = r.begin()
	} else {
		s.mu.Lock()
		if !s.quick() {
			s.giveAway()
		}
		s.release(true)
	}
	for err == nil {
		if !s.serveKept(turn) {
			return errTakenOver
		}
		if err = r.more(); err == nil {
			err = r.frames()
		} else if s.replaced(err) {
			return errReplaced
		}
	}
	return err
}

// begin handles what comes first.
func (r *reader) begin() error {
	if err := r.greeting(); err != nil {
		return err
	}
	return r.frames()
}

// greet reads until the peer's HELLO is there.
func (r *reader) greet() error {
	err := r.begin()
	for err == nil && !r.s.greeted() {
		if err = r.more(); err == nil {
			err = r.frames()
		}
	}
	return err
}

func (s *Session) greeted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.helloed
}

// endReading ends the session because of err.
func (s *Session) endReading(err error) {
	defer s.readerGone.happen()
	r := &s.reader
	s.mu.Lock()
	s.giveAway()
	r.leaveLanding()
	r.landing.patience = 0
	s.failReading(err)
	lingers := s.complete
	s.release(false)
	for lingers && r.more() == nil {
		r.buf.r = len(r.buf.b)
	}
	putBuffer(r.buf)
	r.narrow()
}

// failReading ends the session with what the reader found.
func (s *Session) failReading(err error) {
	p, broken := errors.AsType[*protocolError](err)
	switch {
	case s.ended:
	case broken:
		s.fired(p.limit, p.text)
		s.fail(p, &wire.GoAway{Last: s.taken, Code: p.code, Message: []byte(p.text)})
	case (s.goneAway || s.draining) && errors.Is(err, io.EOF) && s.opened == 0 && s.served == 0:
		s.fail(ErrClosed, nil)
	case errors.Is(err, io.EOF):
		// Not as io.EOF, which every stream would hand on: to its user it would be the end of what the peer sends.
		s.fail(io.ErrUnexpectedEOF, nil)
	default:
		s.fail(err, nil)
	}
}

// greeting reads the line before the first frame.
func (r *reader) greeting() error {
	want := r.s.cfg.Greeting
	for len(want) > 0 {
		have := r.bytes()
		n := min(len(have), len(want))
		if string(have[:n]) != want[:n] {
			return r.otherGreeting()
		}
		if n == len(want) {
			r.buf.r += n
			break
		}
		if err := r.more(); err != nil {
			return err
		}
	}
	return nil
}

// A GreetingError is how a session ends whose peer answered the preface with another line: nothing has run.
type GreetingError struct{ Line string }

// Error returns the line, quoted by nothing: it was cut at the first control byte.
func (e *GreetingError) Error() string { return "session refused: " + e.Line }

// otherGreeting reads the rest of a line that is not the greeting.
func (r *reader) otherGreeting() error {
	for {
		line, _, whole := bytes.Cut(r.bytes(), []byte("\n"))
		if !whole && len(line) < maxGreeting {
			if r.more() == nil {
				continue
			}
		}
		text := string(r.bytes()[:min(len(line), maxGreeting)])
		if i := strings.IndexFunc(text, func(c rune) bool { return c < ' ' || c > '~' }); i >= 0 {
			text = text[:i]
		}
		r.s.mu.Lock()
		r.s.nothing = true
		r.s.mu.Unlock()
		return &GreetingError{text}
	}
}

// bytes returns what is read and not parsed.
func (r *reader) bytes() []byte {
	if r.buf == nil {
		return nil
	}
	return r.buf.b[r.buf.r:]
}

// frames handles all whole frames in the buffer, under the lock once for all of them: taking it for each costs the callers
// who want it more than waiting for a few dozen frames does. A frame's bytes are copied to where they belong before the
// next read, so no stream can hold on to the buffer of all.
func (r *reader) frames() error {
	s := r.s
	b := r.bytes()
	if r.landing.chunk != nil {
		if !r.whole() {
			return nil
		}
	} else if len(b) < wire.Overhead {
		if _, err := wire.Size(b); err != nil {
			return forbidden("%v", err)
		}
		return nil
	}
	s.mu.Lock()
	frames := s.stats.Frames
	landed := r.landing.chunk != nil
	var err error
	if landed && !s.ended {
		s.partial = time.Time{}
		s.stats.Frames++
		err = r.landed()
	}
	for err == nil && !s.ended {
		var f wire.Frame
		var n int
		if f, n, err = wire.Parse(r.buf.b[r.buf.r:]); err != nil {
			err = forbidden("%v", err)
			break
		}
		if n == 0 {
			r.land()
			break
		}
		s.partial = time.Time{}
		s.stats.Frames++
		err = s.handle(f)
		r.buf.r += n
	}
	r.pace.frames = int(s.stats.Frames - frames)
	if landed {
		r.pace.frames = 0 // few because no more were asked for: not what yielding is for
	}
	r.lone = r.pace.frames == 1 && len(b) <= smallRead
	if err == nil && s.ended {
		err = s.err
	}
	if s.kept > 0 && !s.worthwhile(s.kept) {
		s.giveAway()
	}
	s.kept = 0
	if s.ready != nil && err == nil {
		s.unlock() // serveKept is next
	} else {
		s.release(false)
	}
	return err
}

// more reads at least one more byte behind what is in the buffer. A frame that is there in part has to become whole in
// Config.Progress from now on.
func (r *reader) more() error {
	partly := r.landing.chunk != nil
	if r.buf != nil && r.buf.r == len(r.buf.b) {
		if r.s.raw != nil {
			// Kept for the next read, which gives it back if there is nothing to read.
			r.buf.b, r.buf.r = r.buf.b[:0], 0
		} else {
			putBuffer(r.buf)
			r.buf = nil
		}
	} else if r.buf != nil {
		partly = true
	}
	if partly {
		r.s.watchFrame()
	}
	var n int
	var err error
	if r.s.cfg.Spin > 0 && r.s.raw != nil {
		n = r.spin()
	}
	if n > 0 {
		// It is there.
	} else if r.s.raw != nil {
		r.yield()
		n, err = r.s.raw.wait(r.fill)
	} else {
		n, err = r.readWrapped()
	}
	if n > 0 {
		r.s.rx.Add(uint64(n))
		r.s.heard.Store(int64(time.Since(r.s.started)))
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// space returns room for a read, in a buffer of at least size bytes. A frame fits into readBuffer, so there is always some.
func (r *reader) space(size int) []byte {
	old := r.buf
	if old == nil || cap(old.b) < size {
		left := r.bytes()
		r.buf = getBuffer(size)
		r.buf.b = append(r.buf.b, left...)
		putBuffer(old)
	} else if old.r > 0 && cap(old.b)-len(old.b) < size/2 {
		old.b = old.b[:copy(old.b, old.b[old.r:])]
		old.r = 0
	}
	return r.buf.b[len(r.buf.b):cap(r.buf.b)]
}

// readSocket reads what a socket has. If it has nothing, the buffer goes back to the pool, and what is in it into one of
// its own size: a peer that leaves half a frame lying costs little more than that half. So only a reader that is at work holds one, and
// it may be large while it is filled, which takes 5 % off the CPU time of bulk. That is charged: many peers may send at once.
func (r *reader) readSocket(fd int) (int, error) {
	if r.landing.chunk != nil {
		return r.readLanding(fd)
	}
	size := readBuffer
	if r.landing.patience > 0 {
		return r.readAhead(fd)
	}
	if r.full && !r.wide {
		r.wide = r.s.cfg.Budget.spare(wideBuffer)
	}
	if r.wide {
		size = wideBuffer
	}
	p := r.space(size)
	n, err := readFD(fd, p)
	r.full = n == len(p) || r.full && n > readBuffer
	if n > 0 {
		r.buf.b = r.buf.b[:len(r.buf.b)+n]
		return n, err
	}
	if isAgain(err) {
		r.shrink()
		r.narrow()
	}
	return n, err
}

// narrow gives back what was taken from the budget for a large buffer, which is gone.
func (r *reader) narrow() {
	if r.wide {
		r.wide = false
		r.s.cfg.Budget.Give(wideBuffer)
	}
}

// shrink keeps no more than what is in the buffer.
func (r *reader) shrink() {
	old, left := r.buf, r.bytes()
	if len(left) == 0 {
		putBuffer(old)
		r.buf = nil
		return
	}
	if cap(old.b) > 4*len(left) && cap(old.b) > 1<<minBuffer {
		r.buf = getBuffer(len(left))
		r.buf.b = append(r.buf.b, left...)
		putBuffer(old)
	}
}

// readWrapped reads from a connection that is no socket. It has to wait with a buffer: a small one, until reads fill it.
func (r *reader) readWrapped() (int, error) {
	want := 2 << 10
	if r.full || len(r.bytes()) >= want/2 {
		want = readBuffer
	}
	p := r.space(want)
	n, err := r.s.conn.Read(p)
	r.full = n == len(p)
	if n > 0 {
		r.buf.b = r.buf.b[:len(r.buf.b)+n]
	}
	return n, err
}
