package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gobnode/internal/wire"
)

// An outbox is what a stream has to send: one message or piece of bytes at a time, and then its last word. It is in the
// session's ring, or on the way to it, whenever it has something that may go.
type outbox struct {
	credit  int64   // bytes that the peer has room for
	pending bool    // a message is being sent, maybe of no bytes
	data    []byte  // what is left of it
	own     *buffer // holds data, if that is the session's to give back
	eom     bool    // the message ends with data; false for bytes of a raw stream
	begun   bool    // part of the message was staged
	broken  bool    // ... and the rest will not be: only an ERROR or a CANCEL may follow
	gaveUp  bool    // the message was dropped before all of it was staged
	last    lastWord
	failure *Error // of lastError
	runsAt  uint64 // where in what is staged the frame ends without which the call cannot run; 0 if it is not staged
	sentEnd bool   // this side's half is closed
}

// A lastWord is what follows the data of a stream.
type lastWord uint8

const (
	lastNone   lastWord = iota
	lastEnd             // END: of the caller's half, or of the stream if the handler's side says it
	lastError           // ERROR
	lastCancel          // CANCEL
)

// ready reports whether st has a frame that may be staged now. A stream without credit is not: it is pushed again by the
// CREDIT, so the streams that take turns are those that can.
func (st *Stream) ready() bool {
	switch {
	case st.closed:
		return false
	case st.id == 0:
		return st.opening
	case st.pending:
		return len(st.data) == 0 || st.credit > 0
	}
	return st.last != lastNone
}

// emit stages one frame of st. What the peer may still need of a stream that is given up here goes through the same door: a
// CANCEL never overtakes its CALL, nor a last word the data before it.
func (s *Session) emit(st *Stream) {
	if !st.ready() {
		return // it was given up while it stood in line
	}
	var left time.Duration
	if st.id == 0 && !st.deadline.IsZero() {
		if left = time.Until(st.deadline); left <= 0 {
			s.abandon(st, notRun(wire.DeadlineExceeded, "the time was over before the call was sent", context.DeadlineExceeded))
			return
		}
	}
	b := s.stage()
	before, runs := len(b.b), false
	switch {
	case st.id == 0:
		runs = s.emitCall(st, b, left)
	case st.pending:
		runs = s.emitData(st, b)
	default:
		s.emitLast(st, b)
	}
	s.stagedEnd += uint64(len(b.b) - before)
	if runs && st.runsAt == 0 {
		st.runsAt = s.stagedEnd
	}
	s.stir()
}

// emitCall stages the CALL, with as much of the first message as there is room and credit for, and reports whether the
// peer can run the call when it has this frame.
func (s *Session) emitCall(st *Stream, b *buffer, left time.Duration) bool {
	st.opening, st.id = false, s.nextID
	s.nextID += 2
	s.register(st)
	s.stats.Opened++
	st.in.window = int64(s.cfg.Credit)
	st.in.granted = st.in.window
	st.credit = int64(s.peer.Credit)
	call := wire.Call{Stream: st.id, Kind: st.kind, Timeout: left, Name: []byte(st.name), Pairs: st.pairs}
	var flags wire.Flags
	call.Data, flags = st.cut(wire.MaxPayload - call.HeadSize())
	b.b = wire.AppendCall(b.b, flags, &call)
	st.pairs = wire.Pairs{}
	runs := st.kind != wire.CallUnary || !st.pending
	s.advance(st, flags)
	st.mayWrite() // Open waits for this
	return runs
}

// emitData stages a DATA frame.
func (s *Session) emitData(st *Stream, b *buffer) bool {
	data, flags := st.cut(wire.MaxData)
	b.b = wire.AppendData(b.b, flags, st.id, data)
	runs := !st.pending
	s.advance(st, flags)
	return runs
}

// cut takes the next piece of the message for a frame with room for n bytes, and the flags that belong on that frame. When
// the message is done with it pending is false.
func (st *Stream) cut(n int) ([]byte, wire.Flags) {
	if !st.pending {
		if st.last == lastEnd {
			return nil, wire.FlagEnd
		}
		return nil, 0
	}
	n = min(n, len(st.data))
	if int64(n) > st.credit {
		n = int(st.credit)
	}
	piece := st.data[:n:n]
	st.data = st.data[n:]
	st.credit -= int64(n)
	st.begun = true
	if len(st.data) > 0 {
		return piece, 0
	}
	st.pending, st.begun = false, false
	var flags wire.Flags
	if st.eom {
		flags = wire.FlagEOM
	}
	if st.last == lastEnd {
		flags |= wire.FlagEnd
	}
	return piece, flags
}

// advance follows the frame that was staged: it wakes the writer of a message that is done, and ends the half or the stream.
func (s *Session) advance(st *Stream, flags wire.Flags) {
	if !st.pending {
		putBuffer(st.own)
		st.own, st.data = nil, nil
		st.outDue = time.Time{}
		st.mayWrite()
	} else if st.credit == 0 {
		s.watchCredit(st)
	}
	if flags&wire.FlagEnd != 0 {
		st.last, st.sentEnd = lastNone, true
		if !st.local {
			s.endServed(st)
		}
	}
}

// mayWrite has whoever waits to write look again. The one message of a unary call nobody waits for.
func (st *Stream) mayWrite() {
	if st.kind != wire.CallUnary {
		signal(st.writable)
	}
}

// emitLast stages the frame that follows all data.
func (s *Session) emitLast(st *Stream, b *buffer) {
	word := st.last
	st.last, st.sentEnd = lastNone, true
	switch word {
	case lastEnd:
		b.b = wire.AppendData(b.b, wire.FlagEnd, st.id, nil)
	case lastError:
		e := st.failure
		f := wire.Failure{Stream: st.id, Code: e.Code, Outcome: e.Outcome, Message: []byte(e.Message[:min(len(e.Message), maxErrorText)])}
		if pairs := wire.MakePairs(e.Pairs); pairs.Size() <= maxHeader {
			f.Pairs = pairs
		}
		b.b = wire.AppendError(b.b, &f)
	case lastCancel:
		b.b = wire.AppendCancel(b.b, st.id)
	case lastNone:
	}
	if !st.local {
		s.endServed(st)
	}
}

// dropPending gives up the message that is being sent.
func (st *Stream) dropPending() {
	if st.pending {
		st.gaveUp = true
		st.broken = st.broken || st.begun
	}
	putBuffer(st.own)
	st.own, st.data, st.pending, st.begun = nil, nil, false, false
	st.outDue = time.Time{}
}

// Send sends a message and waits until all of it is staged, which takes room in the session's buffer and credit from the
// peer. If ctx ends before any of the message is staged, it was not sent and the stream goes on; if it ends later, the
// stream can only be canceled or finished with an error. p is not kept. The message of a unary call goes by Reply alone.
func (st *Stream) Send(ctx context.Context, p []byte) error {
	if err := st.s.checkSize(ctx, len(p)); err != nil {
		return unknownOutcome(err)
	}
	return st.write(ctx, p, nil, true)
}

// SendBy is Send of what encode appends to a slice of the session's and returns. Its errors are returned as they are.
func (st *Stream) SendBy(ctx context.Context, encode func([]byte) ([]byte, error)) error {
	own, err := encodedInto(st.size, encode)
	if err != nil {
		return err
	}
	st.size = int64(len(own.b))
	if err := st.s.checkSize(ctx, len(own.b)); err != nil {
		putBuffer(own)
		return unknownOutcome(err)
	}
	return st.write(ctx, own.b, own, true)
}

// unknownOutcome is an error of a message as one of its call, which goes on.
func unknownOutcome(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		e.Outcome = wire.OutcomeUnknown
	}
	return err
}

// Write sends bytes of a raw stream; otherwise it is like Send.
func (st *Stream) Write(ctx context.Context, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := st.write(ctx, p, nil, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// write sends p, which own holds if that is not nil.
func (st *Stream) write(ctx context.Context, p []byte, own *buffer, eom bool) error {
	s := st.s
	s.mu.Lock()
	if err := st.writeEnd(); err != nil {
		s.unlock()
		putBuffer(own)
		return err
	}
	st.pending, st.data, st.own, st.eom, st.gaveUp = true, p, own, eom, false
	if st.credit == 0 && len(p) > 0 {
		s.watchCredit(st)
	}
	s.push(st)
	for st.pending {
		s.release(true)
		err := wait(ctx, st.writable)
		s.mu.Lock()
		if err != nil && st.pending {
			st.dropPending()
			s.unlock()
			return err
		}
	}
	var err error
	if st.gaveUp {
		err = st.writeEnd()
	}
	s.release(true)
	return err
}

// writeEnd is why nothing can be written, nil if it can: io.EOF when the handler's side has ended the stream without an error.
func (st *Stream) writeEnd() error {
	switch {
	case st.err != nil:
		return st.err
	case st.local && st.closed && !st.sentEnd:
		return io.EOF
	case st.s.ended:
		return &Error{Code: wire.Unavailable, Message: "connection lost", Cause: st.s.err}
	case st.closed || st.finished || st.sentEnd || st.last != lastNone || st.broken || st.pending:
		return ErrSendClosed
	}
	return nil
}

// checkSize compares a message with the peer's limit.
func (s *Session) checkSize(ctx context.Context, n int) error {
	if err := s.awaitHello(ctx, n); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tooLarge(n)
}

// awaitHello waits for the peer's HELLO if a message is over what is assumed before.
func (s *Session) awaitHello(ctx context.Context, n int) error {
	if n > assumedMessage {
		select {
		case <-s.hello.wait():
		case <-ctx.Done():
			return ofContext(ctx, wire.OutcomeNotRun)
		}
	}
	return nil
}

// tooLarge returns the error of a message that is over the peer's limit. The caller holds mu.
func (s *Session) tooLarge(n int) error {
	if limit := s.peer.Message; uint64(n) > limit {
		return notRun(wire.ResourceExhausted, fmt.Sprintf("a message of %d bytes, more than %d, the limit of the peer", n, limit), nil)
	}
	return nil
}

// CloseSend says that no more is sent. On an accepted stream the peer learns of it only with the last word, from Finish. When the
// handler's side has ended the stream without an error there is nothing to say.
func (st *Stream) CloseSend() error {
	s := st.s
	s.mu.Lock()
	defer s.release(true)
	if err := st.writeEnd(); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return err
	}
	st.sentEnd = true
	if st.local {
		st.last = lastEnd
		s.push(st)
	}
	return nil
}

// Finish says the last word of an accepted stream: success if e is nil, otherwise its code, outcome, message and pairs. It
// does not wait. Only the first call counts.
func (st *Stream) Finish(e *Error) {
	s := st.s
	s.mu.Lock()
	s.conclude(st, e)
	cancel := st.cancel
	s.settle(st.inline)
	free(cancel)
}

// conclude marks an accepted stream as finished and has its last word sent.
func (s *Session) conclude(st *Stream, e *Error) {
	if st.finished {
		return
	}
	st.finished = true
	st.discard = true
	if st.kind == wire.CallUnary {
		s.letGo(st)
	}
	if s.ended {
		s.dropServed(st)
		return
	}
	st.dropPending()
	st.in.drop()
	switch {
	case st.canceled:
		e = nil // nobody listens
	case e == nil && st.err != nil && st.err != errStopped:
		e = &Error{Code: st.err.Code, Outcome: wire.OutcomeFailed, Message: st.err.Message}
	case e == nil && st.broken:
		e = &Error{Code: wire.Internal, Outcome: wire.OutcomeFailed, Message: "the handler ended inside a message"}
	}
	st.last = lastEnd
	if e != nil {
		st.last, st.failure = lastError, e
	}
	s.push(st)
}

// Reply says the last word of an accepted stream with one message, which encode appends to a slice of the session's and
// returns. It is called without any lock. If it fails nothing is said, and Finish is to be called. Reply does not wait
// for the message to be sent; its bytes are charged until it is, and if there is no room for them in the budget the last word
// is resource_exhausted.
func (st *Stream) Reply(encode func([]byte) ([]byte, error)) error {
	s := st.s
	own, err := s.encoded(encode)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if err := s.tooLarge(len(own.b)); err != nil { // the HELLO that says so came before the CALL
		s.unlock()
		putBuffer(own)
		return err
	}
	if st.finished || st.canceled || st.err != nil || st.sentEnd || st.pending || s.ended {
		putBuffer(own)
		s.conclude(st, nil)
	} else {
		s.letGo(st)
		st.in.drop()
		st.finished, st.discard = true, true
		st.pending, st.data, st.own, st.eom, st.last = true, own.b, own, true, lastEnd
		// What was charged for the message that came has room for the one that goes.
		over := int64(cap(own.b)) - (st.covered - callCharge)
		s.push(st) // after which own may be another's
		if st.own != nil && over > 0 && !s.charge(st, over) {
			st.dropPending()
			st.last, st.failure = lastError, &Error{Code: wire.ResourceExhausted, Outcome: wire.OutcomeFailed, Message: "no room for the reply"}
			s.push(st)
		} else if st.own != nil && st.credit == 0 {
			s.watchCredit(st)
		}
	}
	cancel := st.cancel
	st.loose = s.unreferenced(st)
	s.settle(st.inline)
	free(cancel)
	return nil
}

// free ends the context of a stream that is finished, if it ever had one, which frees its timer.
func free(cancel context.CancelCauseFunc) {
	if cancel != nil {
		cancel(errFinished)
	}
}
