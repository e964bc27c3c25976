package session

import (
	"time"

	"gobnode/internal/wire"
)

// teardown ends the session. It is called once, without the lock, by whoever marked the end. Where there is somebody to wait for
// it starts a goroutine: a last attempt to tell the peer why may take a second, and that must not be the reader's or a caller's.
func (s *Session) teardown() {
	s.mu.Lock()
	farewell, writing := s.farewell, s.writing
	s.mu.Unlock()
	if farewell == nil && !s.drainedWell() {
		// Nothing to say: a blocked write is not waited for.
		_ = s.conn.Close()
		if !writing { // and nobody will
			s.finish(nil)
			return
		}
	} else {
		// The lock orders this after any deadline that the flusher set before it saw the end.
		_ = s.conn.SetWriteDeadline(time.Now().Add(lastWordsTime))
	}
	go s.finish(farewell)
}

// finish ends a session that is marked as ended: it waits for the writer to notice, says the last words, closes the
// transport and then wakes everybody. It ends with that, after lastWordsTime at most.
func (s *Session) finish(farewell *wire.GoAway) {
	defer s.leave()
	s.awaitWriter()
	s.mu.Lock()
	rest, talk := s.rest, farewell != nil && !s.broken
	s.rest = nil
	if rest != nil && rest.r == 0 && s.stats.Sent > 0 {
		putBuffer(rest)
		rest = nil // not begun, and not the HELLO: it is not sent
	}
	if talk && rest != nil {
		// What follows in the buffer will be sent too, and may run.
		s.sentEnd += uint64(len(rest.b) - max(rest.r, rest.ctl))
	}
	s.mu.Unlock()
	if talk {
		s.lastWords(rest, farewell)
	}
	if s.drainedWell() {
		s.linger()
	}
	_ = s.conn.Close()
	putBuffer(rest)
	s.wakeAll()
}

// drainedWell reports whether the session ended because a drain was complete.
func (s *Session) drainedWell() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.complete
}

// awaitWriter waits until nobody writes. If that takes longer than the last words may, the transport is closed under him.
func (s *Session) awaitWriter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing {
		gone := make(chan struct{})
		s.writerGone = gone
		s.mu.Unlock()
		timer := time.AfterFunc(2*lastWordsTime, func() { _ = s.conn.Close() })
		<-gone
		timer.Stop()
		s.mu.Lock()
	}
}

// linger ends this side's half of a drained connection and lets the reader go on until the peer ends the other: to close a
// socket with bytes unread makes the system tell the peer of a reset, and what was sent last may be lost.
func (s *Session) linger() {
	c, ok := s.conn.(interface{ CloseWrite() error })
	if !ok || c.CloseWrite() != nil {
		return
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(lastWordsTime))
	<-s.readerGone.wait()
}

// lastWords writes what is left of a buffer that was begun, so that a frame ends where the next begins, and the GOAWAY.
// Errors change nothing now. The peer gets an end of file, not a reset, where the connection can do that.
func (s *Session) lastWords(rest *buffer, farewell *wire.GoAway) {
	var b []byte
	if rest != nil {
		b = append(b, rest.b[rest.r:]...)
	}
	b = wire.AppendGoAway(b, farewell)
	if _, err := s.conn.Write(b); err != nil {
		return
	}
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// wakeAll fails every stream and lets everybody who waits for the session know.
func (s *Session) wakeAll() {
	s.mu.Lock()
	s.torn = true
	for st := range s.streams.all() {
		s.lost(st)
	}
	for st := s.places.pop(); st != nil; st = s.places.pop() {
		s.lost(st)
	}
	for st := s.ring.pop(); st != nil; st = s.ring.pop() {
		if st.local && st.id == 0 {
			s.lost(st) // others are in streams
		}
	}
	for st := s.credits; st != nil; st = st.nextCredit {
		st.creditDue = false
	}
	s.credits = nil
	s.streams = table{}
	s.opened, s.served = 0, 0
	s.free = nil
	putBuffer(s.staged)
	putBuffer(s.control)
	s.staged, s.control = nil, nil
	s.narrow()
	s.hello.happen()
	s.done.happen()
	s.unlock()
}

// lost ends a stream of a session that has ended, with what is known of it.
func (s *Session) lost(st *Stream) {
	if !st.local {
		st.fail(s, &Error{Code: wire.Unavailable, Message: "connection lost", Cause: s.err})
		if !st.dispatched || st.finished {
			s.dropServed(st)
		}
		return
	}
	st.fail(s, s.fate(st, "connection lost"))
}

// fate is the error of a call that will get no reply: it did not run if the bytes that it takes to run it never left, or
// if the peer said so; otherwise nobody knows.
func (s *Session) fate(st *Stream, message string) *Error {
	e := &Error{Code: wire.Unavailable, Message: message, Cause: s.err}
	if s.nothing || st.id == 0 || st.id > s.last || st.runsAt == 0 || st.runsAt > s.sentEnd {
		e.Outcome = wire.OutcomeNotRun
	}
	return e
}

// markGoing says that no more calls can be made here.
func (s *Session) markGoing() {
	if s.going.happen() && s.cfg.OnGoing != nil {
		s.leaving = true
	}
}
