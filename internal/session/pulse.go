package session

import (
	"log/slog"
	"time"

	"gobnode/internal/wire"
)

// pulse is the part of the state that has to do with time. One timer serves all of it: tick does what is due and sets it to
// whatever is next. What happens often only takes note of a time; the timer is moved when something is due before it.
type pulse struct {
	due      time.Time // when tick is to be called
	young    bool      // Workers see to it that there will be a timer
	beat     time.Duration
	early    float32   // what part of a time that is waited before a PING is not: 0 to 1/4
	dirty    bool      // something was staged, or a call came, since the last PING; or calls were under way then
	dirtyAt  time.Time // since when it is
	pingAt   time.Time // the PING that no byte has answered yet; zero if none
	pingRx   uint64    // bytes read when it was sent
	pings    uint64    // sent; also what the last one carried
	pongs    uint64    // the highest that came back
	lastPing time.Time // sent; zero: none

	partial time.Time // a frame is there in part since then; zero if none is
	watched int       // streams that had a message under way at the last tick, or since

	warm      bool          // there may be something that cool gives back
	coolAt    time.Time     // when it looks next
	coolIn    time.Duration // how long after that it looks again
	coolCalls uint64        // calls when it looked last
	replace   bool          // the reader is to be replaced by a fresh goroutine

	tuned      bool      // the socket's options are set, or about to be
	pingTokens int       // PINGs that the peer may send now
	pingSince  time.Time // when they were counted

	logged map[Limit]time.Time // when a limit was last logged; most sessions never have one
}

func clampHeartbeat(d time.Duration) time.Duration { return min(max(d, minHeartbeat), maxHeartbeat) }

// arm has tick called at t or before.
func (s *Session) arm(t time.Time) {
	if !s.ended && (s.due.IsZero() || t.Before(s.due)) {
		s.due = t
		switch {
		case s.timer != nil:
			s.timer.Reset(time.Until(t))
		case !s.young:
			s.setTimer()
		case t.Before(s.started.Add(coolTime)):
			s.cfg.Workers.forget(s)
			s.setTimer()
		}
	}
}

// growUp gives a young session a timer of its own.
func (s *Session) growUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.young && !s.ended {
		s.setTimer()
	}
}

func (s *Session) setTimer() {
	s.young = false
	s.timer = time.AfterFunc(time.Until(s.due), s.tick)
}

// setBeat changes how long a peer may be silent before it gets a PING.
func (s *Session) setBeat(d time.Duration) {
	s.beat = d
	s.arm(s.pingDue())
}

// stir takes note that something is under way since the last PING.
func (s *Session) stir() {
	if !s.dirty {
		s.dirty, s.dirtyAt = true, time.Now()
		s.arm(s.pingDue())
	}
}

// pingDue returns when a PING is to go: when nothing has come for the heartbeat. With something under way a dead peer is to be noticed
// within 20 s of it, however rare the heartbeat is.
//
// A peer that is heard of needs none, and each session has a measure of its own. When each asked every 10 s, 5,000 with a call a second that
// had connected together held up calls for 260 ms: PINGs of all of them at once. That, and what longCoolTime saves, took a sixth of
// the server's CPU time.
func (s *Session) pingDue() time.Time {
	since := s.started.Add(time.Duration(s.heard.Load()))
	if since.Before(s.lastPing) {
		since = s.lastPing
	}
	due := since.Add(s.somewhat(s.beat))
	if s.dirty {
		if since.Before(s.dirtyAt) {
			since = s.dirtyAt
		}
		if t := since.Add(s.somewhat(answerTime)); t.Before(due) {
			return t
		}
	}
	return due
}

// somewhat returns d or somewhat less, but no less than what the peer allows.
func (s *Session) somewhat(d time.Duration) time.Duration {
	return max(d-time.Duration(float32(d)*s.early), minHeartbeat)
}

// watchFrame takes note that a frame is there in part.
func (s *Session) watchFrame() {
	s.mu.Lock()
	if s.partial.IsZero() {
		s.partial = time.Now()
		s.arm(s.partial.Add(s.cfg.Progress))
	}
	s.release(false)
}

// progressed renews the time of an unfinished message for every 64 KiB of it, and whenever the peer has used up its credit,
// for it can do no more then. While it has none the time stands still.
func (s *Session) progressed(st *Stream, n int) {
	if st.in.open == 0 && (st.local || st.kind != wire.CallUnary || st.in.whole > 0) {
		st.inDue, st.moved = time.Time{}, 0
		return
	}
	st.moved += int64(n)
	switch {
	case st.in.granted == st.in.received:
		st.inDue, st.moved = time.Time{}, 0
		s.watchProgress(st)
	case st.inDue.IsZero() || st.moved >= renewal:
		st.inDue, st.moved = time.Now().Add(s.cfg.Progress), 0
		s.watch(st.inDue)
	}
}

// watchProgress starts the time of an unfinished message that has credit to go on with.
func (s *Session) watchProgress(st *Stream) {
	if st.in.open > 0 && st.kind != wire.CallRaw && st.inDue.IsZero() && st.in.granted > st.in.received && !st.in.ended {
		st.inDue = time.Now().Add(s.cfg.Progress)
		s.watch(st.inDue)
	}
}

// watchCredit starts the time in which the peer has to grant credit for a message of a unary call: nothing before it can be
// what the peer waits for. On other streams a receiver may take its time.
func (s *Session) watchCredit(st *Stream) {
	if st.kind == wire.CallUnary && st.pending && st.credit == 0 && len(st.data) > 0 && st.id != 0 && st.outDue.IsZero() {
		st.outDue = time.Now().Add(s.cfg.Progress)
		s.watch(st.outDue)
	}
}

// watch has tick look at the streams' times.
func (s *Session) watch(t time.Time) {
	s.watched++
	s.arm(t)
}

// tick is called by the timer.
func (s *Session) tick() {
	s.mu.Lock()
	if s.ended {
		s.unlock()
		return
	}
	now := time.Now()
	s.due = time.Time{}
	s.tuneSoon()
	s.tickSession(now)
	if s.watched > 0 && !s.ended {
		s.tickStreams(now)
	}
	if s.warm && !s.ended {
		if now.Before(s.coolAt) {
			s.arm(s.coolAt)
		} else {
			s.cool(now)
		}
	}
	s.release(false)
}

// tuneSoon has the socket tuned when the lock is gone, once. Not at the beginning: a session of a call or two is over before what that
// is for can come about, and each option is a system call.
func (s *Session) tuneSoon() {
	if !s.tuned {
		s.tuned = true
		s.later(func() { tune(s.conn) })
	}
}

// tickSession ends a session whose peer is silent, and sends the PING that is due.
func (s *Session) tickSession(now time.Time) {
	if !s.helloed {
		if t := s.started.Add(s.cfg.Handshake); now.Before(t) {
			s.arm(t)
		} else {
			s.expire(LimitHello, "no HELLO in time")
			return
		}
	}
	if !s.partial.IsZero() {
		if t := s.partial.Add(s.cfg.Progress); now.Before(t) {
			s.arm(t)
		} else {
			s.expire(LimitFrame, "a frame did not become whole")
			return
		}
	}
	if !s.pingAt.IsZero() {
		switch t := s.pingAt.Add(answerTime); {
		case s.rx.Load() != s.pingRx:
			s.pingAt = time.Time{} // any byte is an answer
		case now.Before(t):
			s.arm(t)
		default:
			s.expire(LimitHeartbeat, "no answer to a PING")
			return
		}
	}
	if t := s.pingDue(); now.Before(t) {
		s.arm(t)
	} else {
		s.ping(now)
	}
}

// ping sends a PING.
func (s *Session) ping(now time.Time) {
	s.pings++
	b := s.controlFrame()
	b.b = wire.AppendPing(b.b, wire.KindPing, s.pings)
	s.lastPing = now
	if s.pingAt.IsZero() {
		s.pingAt, s.pingRx = now, s.rx.Load()
	}
	s.arm(s.pingAt.Add(answerTime))
	s.dirty, s.dirtyAt = s.opened+s.served > 0, now
	s.arm(s.pingDue())
}

// tickStreams ends the streams whose message stands still.
func (s *Session) tickStreams(now time.Time) {
	s.watched = 0
	for st := range s.streams.all() {
		for _, t := range [...]time.Time{st.inDue, st.outDue} {
			switch {
			case t.IsZero() || st.closed:
			case now.Before(t):
				s.watch(t)
			default:
				st.inDue, st.outDue = time.Time{}, time.Time{}
				s.fired(LimitProgress, "a message stood still")
				s.stalled(st)
			}
		}
	}
}

// stalled ends a stream whose message stands still. A reply that gets no credit gives way to an error: the call has run.
func (s *Session) stalled(st *Stream) {
	e := &Error{Code: wire.DeadlineExceeded, Outcome: wire.OutcomeNotRun, Message: "a message made no progress"}
	switch {
	case st.local && st.pending && st.runsAt == 0:
		s.abandon(st, e)
	case !st.local && st.finished:
		st.dropPending()
		e.Outcome = wire.OutcomeFailed
		st.last, st.failure = lastError, e
		s.push(st)
	default:
		s.refuseServed(st, e)
	}
}

// expire ends the session because of something that did not happen in time.
func (s *Session) expire(l Limit, text string) {
	s.fired(l, text)
	p := &protocolError{wire.DeadlineExceeded, l, text}
	s.fail(p, &wire.GoAway{Last: s.taken, Code: p.code, Message: []byte(text)})
}

// onPing answers a PING, as long as there is no more than one a second of them.
func (s *Session) onPing(p []byte) error {
	v, err := wire.ParsePing(p)
	if err != nil {
		return forbidden("%v", err)
	}
	now := time.Now()
	if s.pingSince.IsZero() {
		s.pingSince, s.pingTokens = now, pingBurst
	}
	if n := int64(now.Sub(s.pingSince) / time.Second); n > 0 {
		s.pingTokens = int(min(int64(s.pingTokens)+n, pingBurst))
		s.pingSince = s.pingSince.Add(time.Duration(n) * time.Second)
	}
	if s.pingTokens == 0 {
		return exceeded(LimitPings, "more than a PING a second")
	}
	s.pingTokens--
	if err := s.owe(); err != nil {
		return err
	}
	b := s.controlFrame()
	b.b = wire.AppendPing(b.b, wire.KindPong, v)
	return nil
}

// onPong takes the answer to a PING. One that answers nothing is not allowed: it could only be a flood.
func (s *Session) onPong(p []byte) error {
	v, err := wire.ParsePing(p)
	if err != nil || v <= s.pongs || v > s.pings {
		return forbidden("PONG that answers no PING")
	}
	s.pongs = v
	if v == s.pings {
		s.stats.RTT = time.Since(s.lastPing)
	}
	if s.drainAck != nil && v >= s.drainSeq {
		close(s.drainAck)
		s.drainAck = nil
	}
	return nil
}

// Fired counts and logs a limit as the session does: for whoever serves its calls and takes from its budget himself.
func (s *Session) Fired(l Limit, text string) {
	s.mu.Lock()
	s.fired(l, text)
	s.unlock()
}

// fired counts a limit and logs it, once a second at most.
func (s *Session) fired(l Limit, text string) {
	if s.limits == nil {
		s.limits = new([numLimits]uint64)
	}
	s.limits[l]++
	if f := s.cfg.OnLimit; f != nil {
		s.later(func() { f(l) })
	}
	now := time.Now()
	if t, ok := s.logged[l]; ok && now.Sub(t) < time.Second {
		return
	}
	if s.logged == nil {
		s.logged = make(map[Limit]time.Time)
	}
	s.logged[l] = now
	s.log(slog.LevelWarn, "session limit", "limit", l.String(), "what", text, "count", s.limits[l])
}

// log writes a line about the session when the lock is gone.
func (s *Session) log(level slog.Level, msg string, args ...any) {
	s.later(func() {
		s.cfg.Logger.Log(s.cfg.Context, level, msg, append(args, "peer", s.conn.RemoteAddr())...)
	})
}
