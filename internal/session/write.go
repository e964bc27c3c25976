package session

import (
	"errors"
	"os"
	"runtime"
	"time"

	"gobnode/internal/wire"
)

const minControl = 1 << 10

// writer is the part of the state that has to do with writing. Frames that belong to streams are staged in order: a CALL
// before its CANCEL, data before the last word. Frames that belong to the session (PING, PONG, GOAWAY, refusals) and credit
// go before everything that is staged.
type writer struct {
	writing bool    // somebody writes, or is about to: he alone takes from what follows
	broken  bool    // a write failed, maybe half way
	rest    *buffer // begun and not finished: the flusher goes on with it

	control  *buffer // frames to go first
	owed     int     // of them, answers to the peer, and those being written
	inFlight int     // answers being written
	credits  *Stream // streams that have credit to grant
	staged   *buffer // frames of streams
	ring     queue   // streams that have something to send but found no room: they take turns

	swift bool // the connection took all of the last long write at once
	wide  bool // the budget holds wideCharge for what is staged
	most  int  // bytes that may be staged in this buffer before a writer has to wait; a frame may go over it

	stagedEnd uint64 // bytes ever staged, the preface and the HELLO included
	sentEnd   uint64 // of them, those that may have reached the peer

	writerGone chan struct{} // closed and cleared by the writer when it stops after the end
}

// pendingOutput reports whether there is something to write.
func (s *Session) pendingOutput() bool {
	return s.rest != nil || s.control != nil || s.credits != nil || s.staged != nil
}

// stage returns the buffer that a stream's next frame is to be added to. Where the connection takes what it is given it is a larger one, which
// takes 12 % off the CPU time of a stream of 1 MiB messages and off that of calls of 64 KiB. Where it does not, small calls would have to wait behind
// more, and a peer that reads slowly would hold more.
func (s *Session) stage() *buffer {
	if s.staged == nil {
		s.most = maxStaged
		if s.swift && !s.wide {
			s.wide = s.cfg.Budget.spare(wideCharge)
		}
		if s.swift && s.wide {
			s.most = wideStaged
		}
		s.staged = getBuffer(s.most + wire.MaxPayload)
	}
	return s.staged
}

// narrow gives back what stage has taken from the budget. No buffer is left that it was taken for.
func (s *Session) narrow() {
	if s.wide {
		s.wide = false
		s.cfg.Budget.Give(wideCharge)
	}
}

// room reports whether another frame may be staged: any that is will fit into the buffer without making it grow.
func (s *Session) room() bool {
	return s.staged == nil || len(s.staged.b) < s.most-wire.Overhead
}

// push gives a stream its turn if it has something that can be sent, at once if there is room and nobody before it.
func (s *Session) push(st *Stream) {
	if !st.queued && st.ready() {
		s.ring.push(st)
	}
	s.fill()
}

// fill stages frames, one of each stream in turn, while there is room. Small calls are not delayed by large messages beyond
// a frame of each.
func (s *Session) fill() {
	for s.ring.len > 0 && s.room() && !s.ended {
		st := s.ring.pop()
		s.emit(st)
		if st.ready() {
			s.ring.push(st)
		}
	}
}

// controlFrame returns the buffer for a frame of the session's.
func (s *Session) controlFrame() *buffer {
	if s.control == nil {
		s.control = getBuffer(minControl)
	}
	return s.control
}

// owe counts an answer that the peer has to read before it may cause more.
func (s *Session) owe() error {
	if s.owed >= maxOwed {
		return exceeded(LimitControl, "more than %d answers that are not read", maxOwed)
	}
	s.owed++
	return nil
}

// take returns what is to be written next, nil if there is nothing. Control frames go alone if what is staged is long, for
// copying it costs more than another write.
func (s *Session) take() *buffer {
	if s.rest != nil {
		b := s.rest
		s.rest = nil
		return b
	}
	s.appendCredits()
	b := s.control
	switch {
	case b == nil:
		b, s.staged = s.staged, nil
		if b == nil {
			return nil
		}
	case s.staged == nil:
		b.ctl = len(b.b)
		s.control = nil
	default:
		b.ctl = len(b.b)
		s.control = nil
		if len(s.staged.b) <= 4<<10 {
			b.b = append(b.b, s.staged.b...)
			putBuffer(s.staged)
			s.staged = nil
		}
	}
	if b.ctl > 0 {
		s.inFlight = s.owed
	}
	if s.raw == nil {
		// What a wrapped connection really sent of a Write that failed is not known: all of it may have arrived.
		s.sentEnd += uint64(len(b.b) - b.ctl)
	}
	s.fill()
	return b
}

// appendCredits writes the CREDIT frames that are due: how much is decided only now, so there is one for a stream at most,
// however slowly the peer reads them.
func (s *Session) appendCredits() {
	for st := s.credits; st != nil; st = s.credits {
		s.credits, st.nextCredit, st.creditDue = st.nextCredit, nil, false
		if n := st.in.room(s.window(st)); n > 0 && !st.closed && st.id != 0 {
			st.in.granted += n
			c := s.controlFrame()
			c.b = wire.AppendCredit(c.b, st.id, uint32(n))
			s.watchProgress(st)
		}
	}
}

// grant has credit for st sent if it is worth a frame.
func (s *Session) grant(st *Stream) {
	if !st.creditDue && !st.closed && !st.discard && st.in.room(s.window(st)) > 0 {
		st.creditDue = true
		st.nextCredit, s.credits = s.credits, st
	}
}

// window is how many bytes of st the peer may have sent that are not taken. Where the budget has not much left it is not more than it was
// to begin with: what a window lets a peer send is charged when it has arrived.
func (s *Session) window(st *Stream) int64 {
	return st.in.widened(s.stats.Opened+s.stats.Served, s.busy() || !s.cfg.Budget.ample())
}

// busy reports whether other calls are in flight, so that to wait for them is worth it.
func (s *Session) busy() bool { return s.opened+s.served > 1 }

// attempt writes once without blocking, and only once: a caller who went on while others stage frames would serve them past
// his own deadline. What the connection does not take, and what was staged meanwhile, is the flusher's. The yield before it
// is the largest gain there is: callers that are about to stage a frame do so, and one system call serves them all. The
// caller holds mu, which is gone afterwards, and has set writing.
func (s *Session) attempt(yield bool) {
	if yield {
		s.mu.Unlock()
		runtime.Gosched()
		s.mu.Lock()
	}
	if b := s.take(); b != nil && !s.ended {
		s.mu.Unlock()
		n, err := s.raw.tryWrite(b.b)
		s.mu.Lock()
		s.wrote(b, n, err)
	} else if b != nil {
		s.rest = b
	}
	if !s.ended && s.pendingOutput() {
		s.enter()
		go s.flush()
	} else {
		s.stopWriting()
		s.release(false)
		return
	}
	s.unlock()
}

// flush writes until there is nothing left or the session ends. It is the goroutine that may block in a write: for
// Config.Progress at a time, then the peer is taken for dead: for 64 KiB each time, and as much more as goes without.
func (s *Session) flush() {
	defer s.leave()
	s.mu.Lock()
	tried := false
	for !s.ended {
		if s.rest == nil && s.busy() {
			s.mu.Unlock()
			runtime.Gosched()
			s.mu.Lock()
		}
		b := s.take()
		if b == nil {
			break
		}
		if s.ended {
			s.rest = b
			break
		}
		if tried = !tried && s.raw != nil && len(b.b)-b.r > maxStaged; tried {
			s.mu.Unlock()
			n, err := s.raw.tryWrite(b.b[b.r:])
			s.mu.Lock()
			s.wrote(b, n, err)
			continue
		}
		chunk := b.b[b.r:min(len(b.b), b.r+maxStaged)]
		_ = s.conn.SetWriteDeadline(time.Now().Add(s.cfg.Progress)) // under mu: the end sets a shorter one after it
		s.mu.Unlock()
		n, err := s.conn.Write(chunk)
		s.mu.Lock()
		s.wrote(b, n, err)
	}
	s.stopWriting()
	s.release(false)
}

// stopWriting ends the turn of whoever writes.
func (s *Session) stopWriting() {
	s.writing = false
	if !s.pendingOutput() {
		s.narrow()
	}
	if s.writerGone != nil {
		close(s.writerGone)
		s.writerGone = nil
	}
}

// wrote takes note that n more bytes of b were written. A write that failed half way ends the session: what the peer would
// read next is not a frame.
func (s *Session) wrote(b *buffer, n int, err error) {
	s.stats.Writes++
	if s.stats.Sent += uint64(n); s.stats.Sent > maxStaged {
		s.tuneSoon()
	}
	if s.raw != nil {
		s.sentEnd += uint64(max(b.r+n-b.ctl, 0) - max(b.r-b.ctl, 0))
	}
	b.r += n
	if s.raw != nil && (len(b.b) >= maxStaged/2 || n < len(b.b)) { // what a wrapped connection took it may have waited for
		s.swift = n == len(b.b)
	}
	if b.ctl > 0 && b.r >= b.ctl && s.inFlight > 0 {
		s.owed -= s.inFlight
		s.inFlight = 0
	}
	if err != nil {
		s.broken = true
		putBuffer(b)
		if errors.Is(err, os.ErrDeadlineExceeded) && !s.ended {
			s.fired(LimitWrite, "the peer takes no bytes")
			err = exceeded(LimitWrite, "the peer took no bytes for %v", s.cfg.Progress)
		}
		s.fail(err, nil)
		return
	}
	if b.r < len(b.b) {
		s.rest = b
		return
	}
	putBuffer(b)
	if !s.swift && (s.staged == nil || s.most == maxStaged) {
		s.narrow()
	}
}

// A queue is streams in line. A stream is in one queue at a time, at most once.
type queue struct {
	head, tail *Stream
	len        int
}

func (q *queue) push(st *Stream) {
	st.queued, st.next = true, nil
	if q.tail == nil {
		q.head = st
	} else {
		q.tail.next = st
	}
	q.tail = st
	q.len++
}

func (q *queue) pop() *Stream {
	st := q.head
	if st == nil {
		return nil
	}
	q.head = st.next
	if q.head == nil {
		q.tail = nil
	}
	q.len--
	st.queued, st.next = false, nil
	return st
}

// remove takes st out of the queue if it is in it.
func (q *queue) remove(st *Stream) {
	if !st.queued {
		return
	}
	var before *Stream
	for x := q.head; x != nil; before, x = x, x.next {
		if x != st {
			continue
		}
		if before == nil {
			q.head = st.next
		} else {
			before.next = st.next
		}
		if q.tail == st {
			q.tail = before
		}
		q.len--
		st.queued, st.next = false, nil
		return
	}
}
