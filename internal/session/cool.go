package session

import (
	"errors"
	"os"
	"time"
)

// What a session keeps to be fast it gives back when no call was made for a while: streams, workers, a map that has grown, and
// the reader's stack, which parsing and serving have made grow: a goroutine keeps it for as long as it lives, so the waiting
// goes to a fresh one. A session that has cooled down holds 5 KB of heap and stack, its socket's included; one that has not
// about 20 KB.

// register enters a stream under its number.
func (s *Session) register(st *Stream) {
	s.streams.put(st)
	s.warmUp()
}

// warmUp takes note that a call is made.
func (s *Session) warmUp() {
	if !s.warm {
		s.warm, s.coolAt, s.coolIn = true, time.Now().Add(coolTime), coolTime
		s.arm(s.coolAt)
	}
}

// cool is called by tick at coolAt. A session whose calls are further apart than coolTime starts anew with each, which costs it about
// 5 µs; one with a call a second does not. The longer there are calls the longer it takes to see that there are none, for to look is to
// wake a thread, and to throw streams away that are needed again; see pingDue for what it cost.
func (s *Session) cool(now time.Time) {
	calls := s.stats.Opened + s.stats.Served
	s.free = nil // made anew by those that need one: so many as were needed at once lately are kept and no more
	s.spent.Store(nil)
	if s.opened+s.served > 0 || calls != s.coolCalls {
		s.coolCalls = calls
		s.coolAt = now.Add(s.coolIn)
		s.coolIn = min(2*s.coolIn, longCoolTime)
		s.arm(s.coolAt)
		return
	}
	s.warm = false
	s.streams = table{}
	if s.raw != nil { // others have buffers of their own beside which a stack is little
		s.replace = true
		_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
	}
}

// replaced reports whether a read ended with err only so that a fresh goroutine goes on reading, which it starts.
func (s *Session) replaced(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.replace || s.ended {
		return false
	}
	s.replace = false
	_ = s.conn.SetReadDeadline(time.Time{}) // under mu: the end sets one after it
	s.enter()
	go s.readLoop(false) // not a worker, whose frames make the stack grow beyond its first 2 KB
	return true
}
