package session

import (
	"context"
	"time"

	"gobnode/internal/wire"
)

// Shutdown drains the session and waits for its end: no call is taken that the peer sends after it has heard of it, those
// that were taken finish, and calls back to the peer are still possible until they have. When ctx ends first, the session
// ends at once, with what is left of it, and ctx's error is returned. Calls of the peer's that it cuts off are told so.
//
// It takes two steps, for a call may cross the first GOAWAY on its way. That one names no stream; it is followed by a PING,
// and when the PONG is back every call that was sent before the peer had heard has arrived. The second one names the
// last stream that was taken.
func (s *Session) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	ack := s.beginDrain()
	s.release(true)
	if ack != nil {
		timer := time.NewTimer(drainTime)
		defer timer.Stop()
		select {
		case <-ack:
		case <-timer.C:
		case <-s.done.wait():
		case <-ctx.Done():
		}
		s.mu.Lock()
		s.finishDrain()
		s.release(true)
	}
	select {
	case <-s.done.wait():
	case <-ctx.Done():
		s.mu.Lock()
		cut := !s.ended
		s.fail(ErrClosed, &wire.GoAway{Last: s.taken, Code: wire.Unavailable, Message: []byte("the drain took too long")})
		s.release(false)
		<-s.done.wait()
		if cut {
			return ctx.Err() // without waiting for handlers that do not hear
		}
	}
	s.Wait()
	return nil
}

// beginDrain sends the first GOAWAY and returns what is closed by the answer; nil if that has been done.
func (s *Session) beginDrain() <-chan struct{} {
	if s.draining || s.ended {
		return nil
	}
	s.draining = true
	s.markGoing()
	b := s.controlFrame()
	b.b = wire.AppendGoAway(b.b, &wire.GoAway{Last: longest, Message: []byte("drain")})
	s.ping(time.Now())
	s.drainSeq = s.pings
	ack := make(chan struct{})
	s.drainAck = ack
	return ack
}

// finishDrain sends the second GOAWAY. From now on a CALL is dropped: the peer is told that it did not run.
func (s *Session) finishDrain() {
	if s.drained || s.ended {
		return
	}
	s.drained, s.drainAck = true, nil
	b := s.controlFrame()
	b.b = wire.AppendGoAway(b.b, &wire.GoAway{Last: s.taken, Message: []byte("drain")})
}
