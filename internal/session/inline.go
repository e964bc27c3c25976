package session

import (
	"sync/atomic"
	"time"

	"gobnode/internal/wire"
)

// While the handlers of a session are quick, the reader runs those of unary calls itself, one after the other, and writes their
// replies together: with 128 callers this takes a third of the CPU time that a goroutine for each does, which is spent on
// switches, on the lock that they contend for, and on stacks that the collector has shrunk. A handler that stalls loses nothing
// but the time until that is noticed: the reading goes on on another goroutine, with the calls behind it.
//
// What decides is how long handlers take on average: one that computes for longer than quickTime would keep others from
// running beside it on other processors.
const (
	quickTime = 20 * time.Microsecond
	slowTime  = 10 * quickTime   // the most that one handler counts: so that one that slept does not make all slow
	stallTime = time.Millisecond // a handler that stands between two looks of the guard has stalled
	dense     = 8                // calls in stallTime for which the guard is worth its timer
	enough    = 16 << 10         // bytes of replies that do not wait for those of the other calls that were read
)

// inline is the part of the state that says where handlers run.
type inline struct {
	ready   *Stream // unary calls that arrived, linked by follower: of whoever reads
	kept    int     // of them, those that came with the last read
	lastOne *Stream
	current *Stream // whose handler the reader runs, while turn is odd

	took   time.Duration // by a handler, on average
	since  time.Time     // when it was begun to count arrived
	lately int           // unary calls since then

	guard    *time.Timer // calls watch
	guarding bool        // it is set
	lastTurn uint64      // turn, when it looked last
}

// A turn numbers what the reader does: it is odd while a handler runs. Whoever changes an odd one decides where the reading goes
// on: the reader itself when the handler has returned, or the guard, which then has taken it over.
type turns struct{ atomic.Uint64 }

// newInline has the first calls of a session served by goroutines of their own, until it is known how long they take.
func newInline() inline { return inline{took: 2 * quickTime} }

// timed counts n handlers that took d each.
func (s *Session) timed(d time.Duration, n int) {
	s.took += (min(d, slowTime) - s.took) * time.Duration(min(n, 16)) / 16
}

// quick reports whether handlers are.
func (s *Session) quick() bool { return s.took <= quickTime }

// sampled reports whether it is to be measured how long a worker's handler takes with its message, which is without what it waits for
// other calls: of every fourth, for the clock costs as much as parsing a call does.
func (st *Stream) sampled() bool {
	return !st.local && !st.inline && st.kind == wire.CallUnary && st.id&6 == 0
}

// worthwhile reports whether the reader is to serve the n calls that it has kept. A few that come now and then are not worth
// the timer of the guard: workers are to have them.
func (s *Session) worthwhile(n int) bool {
	if s.guarding {
		return true
	}
	now := time.Now()
	if now.Sub(s.since) >= stallTime {
		s.since, s.lately = now, 0
	}
	if s.lately += n; s.lately < dense {
		return false
	}
	s.setGuard()
	return true
}

func (s *Session) setGuard() {
	s.guarding, s.lastTurn = true, s.turn.Load()
	if s.guard == nil {
		s.guard = time.AfterFunc(stallTime, s.watchReader)
	} else {
		s.guard.Reset(stallTime)
	}
}

// watchReader is called by the guard. It gives the reading to a new goroutine if the reader has stood in one handler since it
// looked last, and goes on for as long as the reader serves calls.
func (s *Session) watchReader() {
	s.mu.Lock()
	turn := s.turn.Load()
	serving := turn&1 == 1
	if serving && turn == s.lastTurn {
		s.takeOver(turn)
	}
	s.guarding = false
	if !s.torn && (serving || turn != s.lastTurn) {
		s.setGuard()
	}
	s.release(true)
}

// takeOver gives the reading to a new goroutine, unless the handler of that turn has returned. Nor when there is nothing to be
// read any more: then only the reader itself counts as alive, and may be gone before the new one is counted.
func (s *Session) takeOver(turn uint64) {
	if s.torn || !s.turn.CompareAndSwap(turn, turn+1) {
		return
	}
	s.current.inline = false
	s.timed(slowTime, 1)
	s.startReading()
}

// keep keeps a call for the reader.
func (s *Session) keep(st *Stream) {
	st.inline = true
	if s.ready == nil {
		s.ready = st
	} else {
		s.lastOne.follower = st
	}
	s.lastOne = st
	s.kept++
}

// following takes the next call that was kept, nil if there is none. Only the reader calls it.
func (s *Session) following() *Stream {
	st := s.ready
	if st != nil {
		s.ready, st.follower = st.follower, nil
	}
	return st
}

// giveAway hands the calls that were kept to workers.
func (s *Session) giveAway() {
	for st := s.following(); st != nil; st = s.following() {
		st.inline = false
		s.toWorker(st)
	}
}

// serveKept serves the calls that were kept, and has their replies written. It returns false if the guard has taken the reading
// over meanwhile. *mine is the turn that it is in.
func (s *Session) serveKept(mine *uint64) bool {
	if s.ready == nil {
		return true
	}
	begin, n := time.Now(), 0
	for st := s.following(); st != nil; st = s.following() {
		*mine = s.turn.Load() + 1
		s.current = st
		s.turn.Store(*mine)
		s.serve(st, true)
		if !s.turn.CompareAndSwap(*mine, *mine+1) {
			return false // st stays with who took over, who has looked at it
		}
		if st.loose {
			s.giveBack(st)
		}
		n++
	}
	s.mu.Lock()
	s.timed(time.Since(begin)/time.Duration(n), n)
	s.stats.Inline += uint64(n)
	s.releaseAnd(true, false)
	return true
}

// settle lets go of mu, like release: but the reader writes what a handler has left when it has run those of all calls that it
// has read.
func (s *Session) settle(inline bool) {
	if inline && (s.staged == nil || len(s.staged.b) < enough) {
		s.unlock()
		return
	}
	s.release(true)
}
