package session

import (
	"context"
	"io"
	"time"

	"gobnode/internal/wire"
)

// A Stream is one call: opened here, or by the peer and handed to Config.Accept. One goroutine at a time may read from it
// and one may write; the other methods may be called from any.
//
// A stream of the kind CallRaw carries bytes (Read and Write), the others messages (Receive and Send). Of a stream opened
// here the owner either reads until an error or calls Cancel, or buffers are lost to their pool. A stream that was accepted
// is finished by Finish or Reply, and its methods are not called after that.
type Stream struct {
	s        *Session
	local    bool // opened by this side
	kind     uint8
	name     string
	header   []string
	pairs    wire.Pairs // of a local stream: the header as it travels
	deadline time.Time  // zero: none

	size     int64         // of the message that SendBy sent last: the next is expected to be like it
	readable chan struct{} // one token when a reader should look again
	writable chan struct{} // the same for a writer

	// What follows is guarded by s.mu.
	id uint64 // 0 until the CALL is staged
	in inbox
	outbox
	opening    bool // a local stream that has a place and no id
	dispatched bool // Accept has it
	finished   bool // the handler's side: Finish or Reply was called
	well       bool // a unary call has ended with a reply; written once, before its caller is woken
	loose      bool // a unary call has ended and is unreferenced: kept, for who does not hold the lock
	closed     bool // the last word was staged, or came, or there will be none
	discard    bool // data that arrives is dropped
	canceled   bool // a CANCEL was sent, is about to be, or has come
	err        *Error
	charged    int64 // of the budget
	covered    int64 // of it, for what is in the inbox: the most that ever was
	ctx        context.Context
	cancel     context.CancelCauseFunc
	inDue      time.Time // when the message that is arriving has stood still for too long
	outDue     time.Time // the same for the one that is being sent
	moved      int64     // bytes of it since inDue was renewed
	parts      [][]byte

	inline   bool    // served by the reader, which writes when it has served the others
	follower *Stream // the next one that is to be

	queued     bool // in places or in ring
	next       *Stream
	creditDue  bool // in credits
	nextCredit *Stream

	// Of the goroutine that serves a unary call.
	taking   bool // a handler is given its message
	measured bool // took is how long that took, and was not counted yet
	took     time.Duration
}

// Kind returns what the CALL asked for: wire.CallRaw, CallUnary or CallStream.
func (st *Stream) Kind() uint8 { return st.kind }

// Name returns the name of the command.
func (st *Stream) Name() string { return st.name }

// Header returns the pairs that came with the call, two by two.
func (st *Stream) Header() []string { return st.header }

// Session returns the session that the stream is on.
func (st *Stream) Session() *Session { return st.s }

// Deadline returns until when the caller waits, and false if it did not say.
func (st *Stream) Deadline() (time.Time, bool) { return st.deadline, !st.deadline.IsZero() }

// Context returns the context of an accepted stream. It ends when the caller cancels, when its time is over, when the
// session ends and when the stream is finished; context.Cause tells which. It is made when it is first asked for: a handler
// that does not need it does not pay for it. One that asks is about to wait: if it runs on the reader, that goes on elsewhere.
func (st *Stream) Context() context.Context {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if turn := s.turn.Load(); st.inline && turn&1 == 1 {
		s.takeOver(turn)
	}
	if st.ctx != nil {
		return st.ctx
	}
	parent, stop := st.s.cfg.Context, context.CancelFunc(nil)
	if !st.deadline.IsZero() {
		parent, stop = context.WithDeadline(parent, st.deadline)
	}
	ctx, cancel := context.WithCancelCause(parent)
	if stop != nil {
		end := cancel
		cancel = func(cause error) {
			end(cause)
			stop()
		}
	}
	st.ctx, st.cancel = ctx, cancel
	switch {
	case st.err != nil:
		cancel(st.err)
	case st.finished:
		cancel(errFinished)
	}
	return ctx
}

// Receive waits for the next message and calls take with it; its bytes are valid until take returns. After the last one it
// returns io.EOF; otherwise take's error, the context's in an *Error, or how the stream ended.
func (st *Stream) Receive(ctx context.Context, take func([]byte) error) error {
	s := st.s
	s.mu.Lock()
	if st.kind == wire.CallUnary && st.in.busy { // again
		s.letGo(st)
		st.in.drop()
	}
	for st.in.whole == 0 {
		if err := st.readEnd(); err != nil {
			s.unlock()
			return err
		}
		s.mu.Unlock()
		err := wait(ctx, st.readable)
		s.mu.Lock()
		if err != nil && st.err == nil { // otherwise that says why ctx has ended
			s.unlock()
			return err
		}
	}
	st.in.busy = true
	st.parts = st.in.message(st.parts[:0])
	if st.kind != wire.CallUnary {
		s.mu.Unlock()
		defer st.taken()
		return withMessage(st.parts, take)
	}
	// The message stays where it is until the last word, which takes the lock anyway.
	sampled := st.sampled()
	s.mu.Unlock()
	st.taking = true
	defer func() { st.taking = false }()
	if !sampled {
		return withMessage(st.parts, take)
	}
	begin := time.Now()
	err := withMessage(st.parts, take)
	st.took, st.measured = time.Since(begin), true
	return err
}

// letGo lets go of the message of a unary call that was received.
func (s *Session) letGo(st *Stream) {
	if st.taking { // by a handler that will not return: whoever called it does this
		return
	}
	if st.measured {
		s.timed(st.took, 1)
		st.measured = false
	}
	st.in.busy = false
}

// withMessage calls take with a message that is in one piece already, or is now.
func withMessage(parts [][]byte, take func([]byte) error) error {
	switch len(parts) {
	case 0:
		return take(nil)
	case 1:
		return take(parts[0])
	}
	total := 0
	for _, p := range parts {
		total += len(p)
	}
	whole := getBuffer(total)
	defer putBuffer(whole)
	for _, p := range parts {
		whole.b = append(whole.b, p...)
	}
	return take(whole.b)
}

// taken is the end of Receive.
func (st *Stream) taken() {
	s := st.s
	s.mu.Lock()
	clear(st.parts)
	st.in.busy = false
	if st.in.doomed {
		st.in.drop()
	} else {
		st.in.skip()
		s.grant(st)
	}
	s.settle(st.inline)
}

// Read reads bytes of a raw stream: at least one, io.EOF after the last.
func (st *Stream) Read(ctx context.Context, p []byte) (int, error) {
	s := st.s
	s.mu.Lock()
	for len(p) > 0 && !st.in.buffered() {
		if err := st.readEnd(); err != nil {
			s.unlock()
			return 0, err
		}
		s.mu.Unlock()
		err := wait(ctx, st.readable)
		s.mu.Lock()
		if err != nil && st.err == nil {
			s.unlock()
			return 0, err
		}
	}
	n := st.in.readRaw(p)
	s.grant(st)
	s.release(true)
	return n, nil
}

// readEnd is what there is to say when nothing is left to read: nil if more may come.
func (st *Stream) readEnd() error {
	switch {
	case st.err != nil:
		return st.err
	case st.finished:
		return errFinished
	case st.in.ended || st.closed:
		return io.EOF
	}
	return nil
}

// wait waits for a token, or for the end of ctx.
func wait(ctx context.Context, token <-chan struct{}) *Error {
	select {
	case <-token:
		return nil
	case <-ctx.Done():
		return ofContext(ctx, wire.OutcomeUnknown)
	}
}

// signal leaves a token for whoever waits, now or later.
func signal(token chan<- struct{}) {
	select {
	case token <- struct{}{}:
	default:
	}
}

// fail ends the stream for this side's user: what is queued can still be read, everything after that is err. The first
// error is kept.
func (st *Stream) fail(s *Session, err *Error) {
	if st.err == nil {
		st.err = err
	}
	st.dropPending()
	cancel := st.cancel
	if cancel == nil {
		st.wake()
		return
	}
	// Not before the context has ended: who finds that a write has failed asks it why.
	s.later(func() {
		cancel(err)
		s.mu.Lock()
		st.wake() // it is no other call's yet: see unreferenced
		s.mu.Unlock()
	})
}

// wake has those look again who wait to read or to write.
func (st *Stream) wake() {
	signal(st.readable)
	signal(st.writable)
}

// Cancel says that the caller wants no more of a stream that was opened here. The peer's handler learns of it; what still
// arrives is dropped. It does not wait, and may be called at any time, more than once.
func (st *Stream) Cancel() {
	s := st.s
	s.mu.Lock()
	s.abandon(st, &Error{Code: wire.Canceled, Message: "stream was canceled here", Cause: context.Canceled})
	s.release(true)
}

// Stop gives up an accepted stream ahead of its last word: what has not been sent or taken yet is dropped, writes and
// reads under way and later fail, and the context ends. The caller learns of it by Finish, for which a stream that was
// stopped is as good as any other: it fails if e is not nil or a message was cut. Stop does not wait, and may be called at
// any time, more than once.
func (st *Stream) Stop() {
	s := st.s
	s.mu.Lock()
	if !st.finished {
		st.fail(s, errStopped)
		st.discard = true
		st.inDue = time.Time{}
		st.in.drop()
	}
	s.release(true)
}

// abandon gives up a local stream. One that has no id yet is gone without a trace; otherwise the place at the peer is taken
// until the last word comes.
func (s *Session) abandon(st *Stream, err *Error) {
	st.fail(s, err)
	st.in.drop()
	st.discard = true
	switch {
	case st.closed || s.ended:
	case st.id == 0:
		st.closed = true
		if st.opening {
			st.opening = false
			s.ring.remove(st)
			s.freePlace()
		} else {
			s.places.remove(st)
		}
	case !st.canceled:
		st.canceled = true
		st.last = lastCancel
		s.push(st)
	}
}

// freePlace gives a place at the peer to whoever has waited longest.
func (s *Session) freePlace() {
	s.opened--
	s.grantPlaces()
}

// grantPlaces lets calls through that wait for a place, as many as there are.
func (s *Session) grantPlaces() {
	for uint64(s.opened) < s.peer.Calls && s.places.len > 0 {
		st := s.places.pop()
		s.opened++
		st.opening = true
		s.push(st)
	}
}

// endLocal ends a stream that was opened here, because its last word came or none will: err is nil if it was END.
func (s *Session) endLocal(st *Stream, err *Error) {
	st.closed = true
	st.inDue, st.outDue = time.Time{}, time.Time{}
	s.streams.remove(st)
	if err != nil {
		st.fail(s, err)
	} else {
		st.dropPending()
		switch {
		case st.kind != wire.CallUnary:
			st.wake()
		case st.err == nil: // otherwise the caller has gone
			st.well, st.loose = true, s.unreferenced(st)
			st.follower, s.answered = s.answered, st
		}
	}
	s.freePlace()
}

// endServed ends a stream of the peer's whose last word was staged.
func (s *Session) endServed(st *Stream) {
	s.streams.remove(st)
	s.served--
	s.dropServed(st)
}

// dropServed gives back what a stream of the peer's holds.
func (s *Session) dropServed(st *Stream) {
	st.closed, st.discard = true, true
	st.inDue, st.outDue = time.Time{}, time.Time{}
	st.dropPending()
	st.in.drop()
	s.cfg.Budget.Give(st.charged)
	st.charged = 0
}

// Charge reserves n bytes of the session's budget for an accepted stream until it is finished, for what its message decodes
// to. It returns an *Error if they are not there.
func (st *Stream) Charge(n int64) error {
	s := st.s
	s.mu.Lock()
	ok := !st.closed && s.charge(st, n)
	s.release(true)
	if !ok {
		return notRun(wire.ResourceExhausted, s.cfg.Budget.Full(n), nil)
	}
	return nil
}

// charge reserves n more bytes for st.
func (s *Session) charge(st *Stream, n int64) bool {
	if !s.cfg.Budget.Take(n) {
		s.fired(LimitInFlight, s.cfg.Budget.Full(n))
		return false
	}
	st.charged += n
	return true
}
