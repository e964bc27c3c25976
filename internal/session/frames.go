package session

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"time"

	"gobnode/internal/wire"
)

// handle takes one frame. The caller holds mu; an error ends the session.
func (s *Session) handle(f wire.Frame) error {
	if !s.helloed && f.Kind != wire.KindHello {
		return forbidden("a frame of kind %d before HELLO", f.Kind)
	}
	switch f.Kind {
	case wire.KindHello:
		return s.onHello(f.Payload)
	case wire.KindCall:
		return s.onCall(f)
	case wire.KindData:
		return s.onData(f, nil)
	case wire.KindError:
		return s.onError(f.Payload)
	case wire.KindCancel:
		return s.onCancel(f.Payload)
	case wire.KindCredit:
		return s.onCredit(f.Payload)
	case wire.KindPing:
		return s.onPing(f.Payload)
	case wire.KindPong:
		return s.onPong(f.Payload)
	case wire.KindGoAway:
		return s.onGoAway(f.Payload)
	default: // from wire.FirstOptional up: wire.Parse has refused the others
		return nil
	}
}

// onHello takes what the peer allows. Streams that were opened on what is assumed without it get the rest of their credit.
func (s *Session) onHello(p []byte) error {
	h, err := wire.ParseHello(p)
	if err != nil || s.helloed {
		return forbidden("HELLO that is malformed or not the first frame")
	}
	s.helloed = true
	if s.stats.RTT == 0 {
		s.stats.RTT = time.Since(s.started) // of the greeting, until a PING tells better
	}
	s.peer.Program = h.Program
	if h.Message != 0 {
		s.peer.Message = h.Message
	}
	if h.Calls != 0 {
		s.peer.Calls = h.Calls
	}
	if h.Heartbeat != 0 {
		wish := time.Duration(min(h.Heartbeat, uint64(maxHeartbeat/time.Millisecond))) * time.Millisecond
		s.setBeat(clampHeartbeat(max(s.cfg.Heartbeat, wish)))
	}
	s.peer.Credit = min(max(h.Credit, assumedCredit), maxCredit)
	if more := int64(s.peer.Credit) - assumedCredit; more > 0 {
		for st := range s.streams.all() { // all of them local: the peer's come after its HELLO
			st.credit += more
			s.push(st)
		}
	}
	s.hello.happen()
	s.grantPlaces()
	return nil
}

// ours reports whether id is of a stream that this side opens.
func (s *Session) ours(id uint64) bool { return id&1 == 1 == s.cfg.Dialer }

// find returns the stream of a frame: nil if it has ended, so that the frame is dropped; an error if it never was. Which of
// the two follows from the highest number alone: nothing is kept of streams that have ended.
func (s *Session) find(id uint64) (*Stream, error) {
	if st := s.streams.get(id); st != nil {
		return st, nil
	}
	if s.ours(id) && id >= s.nextID || !s.ours(id) && id > s.highest {
		return nil, exceeded(LimitNeverOpened, "a frame for stream %d, which was never opened", id)
	}
	s.stats.Dropped++
	return nil, nil
}

// onCall opens a stream of the peer's, or refuses it.
func (s *Session) onCall(f wire.Frame) error {
	c, err := wire.ParseCall(f.Payload)
	if err != nil {
		return forbidden("%v", err)
	}
	if s.ours(c.Stream) || c.Stream <= s.highest {
		return forbidden("CALL with stream %d after %d", c.Stream, s.highest)
	}
	s.highest = c.Stream
	if s.drained {
		s.stats.Dropped++ // the GOAWAY has told the peer, or will
		return nil
	}
	s.taken = c.Stream
	if len(c.Data) > s.cfg.Credit {
		return exceeded(LimitCredit, "CALL with %d bytes and a credit of %d", len(c.Data), s.cfg.Credit)
	}
	if e := s.refusal(&c); e != nil {
		return s.refuse(c.Stream, e)
	}
	st := s.newStream()
	st.id, st.kind, st.name, st.header = c.Stream, c.Kind, s.intern(c.Name), c.Pairs.Strings()
	st.charged, st.covered = callCharge, callCharge
	if c.Timeout > 0 {
		st.deadline = time.Now().Add(c.Timeout)
	}
	st.credit = int64(s.peer.Credit)
	st.in.window = int64(s.cfg.Credit)
	st.in.granted = st.in.window
	s.register(st)
	s.served++
	s.stats.Served++
	s.stir() // while it runs nothing may be sent, and its caller be gone
	if st.kind != wire.CallUnary {
		s.dispatch(st)
	}
	return s.arrived(st, f.Flags, c.Data)
}

// refusal is why a call is not served, nil if it is. It takes the call's first bytes from the budget.
func (s *Session) refusal(c *wire.Call) *Error {
	switch {
	case s.cfg.Accept == nil || c.Kind > wire.CallStream:
		return notRun(wire.Unimplemented, "calls of this kind are not served here", nil)
	case s.served >= s.cfg.Calls:
		s.fired(LimitCalls, "more calls than were offered")
		return notRun(wire.ResourceExhausted, fmt.Sprintf("more than %d calls at once", s.cfg.Calls), nil)
	case c.Pairs.Size() > maxHeader:
		s.fired(LimitHeader, "a header over 8 KiB")
		return notRun(wire.ResourceExhausted, "the header is longer than 8 KiB", nil)
	case !validName(c.Name):
		return notRun(wire.InvalidArgument, "a name is 1 to 64 printable ASCII characters without spaces", nil)
	case !s.cfg.Budget.Take(callCharge):
		text := s.cfg.Budget.Full(callCharge)
		s.fired(LimitInFlight, text)
		return notRun(wire.ResourceExhausted, text, nil)
	}
	return nil
}

// refuse answers a call that has no stream. The answer waits among the control frames, which are bounded: a peer can cause as
// many as it likes without reading one.
func (s *Session) refuse(id uint64, e *Error) error {
	if err := s.owe(); err != nil {
		return err
	}
	s.stats.Refused++
	b := s.controlFrame()
	b.b = wire.AppendError(b.b, &wire.Failure{Stream: id, Code: e.Code, Outcome: e.Outcome, Message: []byte(e.Message)})
	return nil
}

// intern returns name, which is valid, as a string: without an allocation if it was the last of its kind. A map of all names
// that were seen is a third of what an idle session holds.
func (s *Session) intern(name []byte) string {
	kind := (int(name[0])*3 + int(name[len(name)-1]) + len(name)) % len(s.names)
	if s.names[kind] != string(name) {
		s.names[kind] = string(name)
	}
	return s.names[kind]
}

// onData takes more of a stream. placed is the data, behind f's payload, of a frame whose data was read to its place; else nil.
func (s *Session) onData(f wire.Frame, placed []byte) error {
	id, data, err := wire.ParseData(f.Payload)
	if err != nil {
		return forbidden("%v", err)
	}
	if placed != nil {
		data = placed
	}
	if len(data) == 0 && f.Flags == 0 {
		return forbidden("DATA of nothing")
	}
	st, err := s.find(id)
	if st == nil {
		return err
	}
	if st.in.ended {
		return forbidden("DATA on stream %d after its END", id)
	}
	return s.arrived(st, f.Flags, data)
}

// arrived takes data and flags of a stream's CALL or DATA.
func (s *Session) arrived(st *Stream, flags wire.Flags, data []byte) error {
	st.in.received += int64(len(data))
	if st.in.received > st.in.granted {
		return exceeded(LimitCredit, "stream %d got %d bytes beyond its credit", st.id, st.in.received-st.in.granted)
	}
	end, eom := flags&wire.FlagEnd != 0, flags&wire.FlagEOM != 0
	if !st.discard {
		s.store(st, data, eom)
	}
	if end {
		st.in.ended = true
		st.inDue = time.Time{}
		if st.local {
			s.endLocal(st, s.endError(st))
			return nil
		}
	}
	switch {
	case st.discard || st.closed:
	case !st.local && st.kind == wire.CallUnary && !st.dispatched:
		if st.in.whole > 0 {
			s.dispatch(st)
		} else if end {
			s.refuseServed(st, notRun(wire.InvalidArgument, "the call ended before its message", nil))
		}
	case st.kind != wire.CallUnary && (st.in.whole > 0 || end || st.kind == wire.CallRaw):
		signal(st.readable) // a unary call's caller is woken by the last word alone
	}
	if !end {
		s.grant(st)
	}
	return nil
}

// endError is the error of a stream that was opened here and has got its END in the middle of a message.
func (s *Session) endError(st *Stream) *Error {
	if st.in.open > 0 && st.kind != wire.CallRaw && !st.discard {
		return &Error{Code: wire.Internal, Message: "the stream ended inside a message"}
	}
	return nil
}

// store puts data into the stream's inbox, unless that breaks a limit of the stream's.
func (s *Session) store(st *Stream, data []byte, eom bool) {
	if st.kind == wire.CallRaw {
		if len(data) > 0 {
			st.in.addRaw(data)
		}
	} else {
		if st.in.open+int64(len(data)) > int64(s.cfg.Message) {
			s.fired(LimitMessage, "a message over the limit")
			s.refuseServed(st, notRun(wire.ResourceExhausted, fmt.Sprintf("a message of more than %d bytes", s.cfg.Message), nil))
			return
		}
		if !st.in.landed(&s.reader.landing, eom) && (eom || len(data) > 0) {
			st.in.add(data, eom)
		}
		s.progressed(st, len(data))
	}
	if over := st.in.held - st.covered; !st.local && over > 0 {
		if !s.charge(st, over) {
			s.refuseServed(st, notRun(wire.ResourceExhausted, s.cfg.Budget.Full(over), nil))
			return
		}
		st.covered += over
	}
}

// refuseServed ends a stream because of something that arrived on it. If no handler has it, it did not run. If one has, it
// learns of it and says the last word. A stream that was opened here is canceled; whether it ran is not known.
func (s *Session) refuseServed(st *Stream, e *Error) {
	switch {
	case st.local:
		e.Outcome = wire.OutcomeUnknown
		s.abandon(st, e)
	case st.dispatched:
		st.fail(s, e)
		st.discard = true
		st.in.drop()
	default:
		s.stats.Refused++
		st.in.drop()
		st.discard, st.finished = true, true
		st.last, st.failure = lastError, e
		s.push(st)
	}
}

// onError takes the last word of a call that failed.
func (s *Session) onError(p []byte) error {
	e, err := wire.ParseError(p)
	if err != nil {
		return forbidden("%v", err)
	}
	if !s.ours(e.Stream) {
		return forbidden("ERROR from the side that called")
	}
	if e.Pairs.Size() > maxHeader {
		return exceeded(LimitHeader, "ERROR with more than 8 KiB of pairs")
	}
	st, err := s.find(e.Stream)
	if st == nil {
		return err
	}
	s.endLocal(st, &Error{Code: e.Code, Outcome: e.Outcome, Message: string(e.Message), Told: true, Pairs: e.Pairs.Strings()})
	return nil
}

// onCancel tells a handler that nobody waits for it. A call that no handler has is over.
func (s *Session) onCancel(p []byte) error {
	id, err := wire.ParseCancel(p)
	if err != nil {
		return forbidden("%v", err)
	}
	if s.ours(id) {
		return forbidden("CANCEL from the side that serves")
	}
	st, err := s.find(id)
	if st == nil || st.canceled {
		return err
	}
	st.canceled = true
	st.inDue = time.Time{}
	if !st.dispatched {
		s.refuseServed(st, notRun(wire.Canceled, "canceled by the caller", nil))
		return nil
	}
	why := errCanceledByPeer
	if !st.deadline.IsZero() && !time.Now().Before(st.deadline) {
		why = errTimeOver // which is why the caller gave up; the handler's own timer may be behind
	}
	st.fail(s, why)
	st.discard = true
	st.in.drop()
	if st.finished {
		s.push(st) // the reply was waiting for credit: its last word goes without it
	}
	return nil
}

// onCredit gives a stream more to send.
func (s *Session) onCredit(p []byte) error {
	id, n, err := wire.ParseCredit(p)
	if err != nil {
		return forbidden("%v", err)
	}
	st, err := s.find(id)
	if st == nil {
		return err
	}
	if st.credit+int64(n) > maxCredit {
		return exceeded(LimitCredit, "stream %d got a credit of more than %d bytes", id, math.MaxInt32)
	}
	st.credit += int64(n)
	st.outDue = time.Time{}
	s.push(st)
	return nil
}

// harmless is what a peer says, fit for a line in a log or on a terminal: printable ASCII, and not much of it.
func harmless(text []byte) string {
	text = bytes.Clone(text[:min(len(text), maxReason)])
	for i, c := range text {
		if c < ' ' || c > '~' {
			text[i] = ' '
		}
	}
	return string(text)
}

// onGoAway takes note that the peer takes no more calls, and ends those that it will not run.
func (s *Session) onGoAway(p []byte) error {
	g, err := wire.ParseGoAway(p)
	if err != nil {
		return forbidden("%v", err)
	}
	if g.Last > s.last {
		return forbidden("GOAWAY with stream %d after %d", g.Last, s.last)
	}
	s.last, s.goneAway = g.Last, true
	s.markGoing()
	reason := &Error{Code: wire.Unavailable, Outcome: wire.OutcomeNotRun, Message: "the peer takes no more calls"}
	if g.Code != wire.OK {
		text := harmless(g.Message)
		reason.Message = "the peer has ended the session: " + text
		if !s.farewelled { // a peer may send as many as it likes
			s.farewelled = true
			s.log(slog.LevelWarn, "session ended by the peer", "code", int(g.Code), "reason", text)
		}
	}
	for st := s.places.pop(); st != nil; st = s.places.pop() {
		s.abandon(st, reason)
	}
	for st := s.ring.head; st != nil; {
		next := st.next
		if st.local && st.id == 0 {
			s.abandon(st, reason)
		}
		st = next
	}
	for st := range s.streams.all() {
		if st.local && st.id > g.Last {
			s.endLocal(st, reason)
		}
	}
	return nil
}
