package session

import (
	"context"
	"math"
	"time"

	"gobnode/internal/wire"
)

// A CallSpec says what to call.
type CallSpec struct {
	Name   string
	Kind   uint8    // of Open: wire.CallRaw or wire.CallStream
	Header []string // strings two by two; 8 KiB of them at most

	// NoWait fails the call at once, resource_exhausted and not run, if it would have to wait for a place among the peer's
	// calls. Calls made by handlers must set it: when both sides wait for each other's places nobody moves.
	NoWait bool
}

// Call makes a call with one message each way. encode appends the request to a slice of the session's and returns it;
// decode gets the reply, whose bytes are valid until it returns. Both run on the caller's goroutine and without any lock. The
// errors of both are returned as they are; any other is an *Error. Call waits for a place at the peer, for room and for the
// reply until ctx ends, whose deadline goes with the call.
func (s *Session) Call(ctx context.Context, spec *CallSpec, encode func([]byte) ([]byte, error), decode func([]byte) error) error {
	own, err := s.encoded(encode)
	if err == nil {
		err = s.awaitHello(ctx, len(own.b))
	}
	var deadline time.Time
	if err == nil {
		deadline, err = whileRunning(ctx)
	}
	if err != nil {
		putBuffer(own)
		return err
	}
	s.mu.Lock()
	var st *Stream
	if err = s.tooLarge(len(own.b)); err == nil {
		st, err = s.start(deadline, spec, wire.CallUnary)
	}
	if err != nil {
		s.unlock()
		putBuffer(own)
		return err
	}
	st.pending, st.data, st.own, st.eom, st.last = true, own.b, own, true, lastEnd
	s.enqueue(st)
	s.release(true)
	if !st.await(ctx) {
		s.mu.Lock()
		defer s.unlock()
		st.in.drop()
		return st.err
	}
	return st.reply(decode)
}

// encoded returns what encode appends, in a buffer of its own and not in the one that is staged: that would save a copy, which
// costs little, and run a user's methods under the session's lock, where one that made a call would never return. The sizes of the last messages say how large to make it: to
// grow a small one each time would cost more than the rest of the call.
func (s *Session) encoded(encode func([]byte) ([]byte, error)) (*buffer, error) {
	size := s.size.Load()
	own, err := encodedInto(size, encode)
	if err != nil {
		return nil, err
	}
	if n := int64(len(own.b)); n > size || n < size/4 {
		s.size.Store((size + 3*n) / 4)
	}
	return own, nil
}

// encodedInto returns what encode appends to a buffer made for size bytes.
func encodedInto(size int64, encode func([]byte) ([]byte, error)) (*buffer, error) {
	own := getBuffer(int(size))
	done := false
	defer func() { // for runtime.Goexit in a method of the value too
		if !done {
			putBuffer(own)
		}
	}()
	b, err := encode(own.b)
	if err != nil {
		return nil, err
	}
	own.b, done = b, true
	return own, nil
}

// Open opens a stream and waits until its CALL is staged.
func (s *Session) Open(ctx context.Context, spec *CallSpec) (*Stream, error) {
	if spec.Kind != wire.CallRaw && spec.Kind != wire.CallStream {
		return nil, notRun(wire.InvalidArgument, "Open is for raw and stream calls", nil)
	}
	deadline, err := whileRunning(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	st, err := s.start(deadline, spec, spec.Kind)
	if err != nil {
		s.unlock()
		return nil, err
	}
	s.enqueue(st)
	for st.id == 0 && st.err == nil {
		s.release(true)
		err := wait(ctx, st.writable)
		s.mu.Lock()
		if err != nil && st.id == 0 {
			err.Outcome = wire.OutcomeNotRun
			s.abandon(st, err)
		}
	}
	defer s.release(true)
	if st.id == 0 {
		return nil, st.err
	}
	return st, nil
}

// whileRunning returns until when ctx runs, or the error of a call that it is too late for. What a context does is a user's, or
// another session's: it is asked without any lock.
func whileRunning(ctx context.Context) (deadline time.Time, err error) {
	if ctx.Err() != nil {
		return time.Time{}, ofContext(ctx, wire.OutcomeNotRun)
	}
	deadline, _ = ctx.Deadline()
	return deadline, nil
}

// start makes a local stream, or says why it would not run. The caller holds mu.
func (s *Session) start(deadline time.Time, spec *CallSpec, kind uint8) (*Stream, error) {
	switch {
	case !validName(spec.Name):
		return nil, notRun(wire.InvalidArgument, "a name is 1 to 64 printable ASCII characters without spaces", nil)
	case s.ended:
		return nil, notRun(wire.Unavailable, "connection lost", s.err)
	case s.goneAway || s.draining && s.served == 0:
		return nil, notRun(wire.Unavailable, "the session is being drained", nil)
	case spec.NoWait && s.full():
		return nil, notRun(wire.ResourceExhausted, "the peer serves as many calls as it allows", nil)
	}
	pairs := wire.MakePairs(spec.Header)
	if pairs.Size() > maxHeader {
		return nil, errHeader
	}
	st := s.newStream()
	st.local, st.kind, st.name, st.pairs, st.deadline = true, kind, spec.Name, pairs, deadline
	return st, nil
}

// newStream returns a stream with nothing in it, one that was used before if there is one: a stream and its two channels are
// all that a small call allocates. They are the session's own and in no sync.Pool, for a channel belongs to the
// synctest bubble that made it.
func (s *Session) newStream() *Stream {
	if s.free == nil && s.spent.Load() != nil {
		s.free = s.spent.Swap(nil)
	}
	if st := s.free; st != nil {
		s.free, st.next = st.next, nil
		return st
	}
	return &Stream{s: s, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

// full reports whether a call has to wait for a place at the peer.
func (s *Session) full() bool { return uint64(s.opened) >= s.peer.Calls || s.places.len > 0 }

// enqueue gives a new local stream a place, or has it wait for one.
func (s *Session) enqueue(st *Stream) {
	if s.full() {
		s.places.push(st)
		return
	}
	s.opened++
	st.opening = true
	s.push(st)
}

// await waits for the last word of a unary call, and reports whether it came before ctx ended.
func (st *Stream) await(ctx context.Context) bool {
	s := st.s
	done := ctx.Done()
	if done == nil { // a select costs four times as much
		<-st.readable
		return true
	}
	select {
	case <-st.readable:
		return true
	case <-done:
	}
	err := ofContext(ctx, wire.OutcomeUnknown)
	s.mu.Lock()
	if st.closed || st.err != nil {
		s.unlock()
		<-st.readable // left by now, or about to be
		return true
	}
	if st.runsAt == 0 {
		err.Outcome = wire.OutcomeNotRun // and it never will: a message that is not whole runs nothing
	}
	s.abandon(st, err)
	s.release(true)
	return false
}

// reply gives the reply of a unary call that has ended to decode, and keeps the stream for another call. It looks without the
// lock, for which all callers that the reader has woken would stand in line: nothing changes in a stream that has ended.
func (st *Stream) reply(decode func([]byte) error) error {
	if !st.well || st.in.whole != 1 || st.in.open > 0 {
		s := st.s
		s.mu.Lock()
		defer s.unlock()
		st.in.drop()
		if st.err != nil {
			return st.err
		}
		return &Error{Code: wire.Internal, Message: "the peer did not reply with one message"}
	}
	st.parts = st.in.message(st.parts[:0])
	defer st.replied()
	return withMessage(st.parts, decode)
}

// replied is the end of reply.
func (st *Stream) replied() {
	if st.loose {
		st.in.drop()
		st.s.giveBack(st)
		return
	}
	st.s.mu.Lock()
	st.in.drop()
	st.s.recycle(st)
	st.s.mu.Unlock()
}

// unreferenced reports whether nothing refers to a unary stream but whoever made or serves it. What is put off until the lock is gone
// may refer to one that has failed; a session that ends does not take those out of the table that it serves, and looks at all of them
// once more.
func (s *Session) unreferenced(st *Stream) bool {
	return st.closed && st.err == nil && !st.queued && !st.creditDue && !st.in.busy && !s.ended
}

// recycle keeps a unary stream that has ended for another call of either side, unless something still refers to it.
func (s *Session) recycle(st *Stream) {
	if s.unreferenced(st) {
		st.reset()
		st.next, s.free = s.free, st
	}
}

// giveBack is recycle by who does not hold the lock, of a stream that is loose.
func (s *Session) giveBack(st *Stream) {
	st.reset()
	for {
		st.next = s.spent.Load()
		if s.spent.CompareAndSwap(st.next, st) {
			return
		}
	}
}

// reset makes st like new.
func (st *Stream) reset() {
	for _, token := range [...]chan struct{}{st.readable, st.writable} {
		if len(token) > 0 {
			<-token
		}
	}
	clear(st.parts)
	*st = Stream{s: st.s, readable: st.readable, writable: st.writable, parts: st.parts[:0]}
}

// validName reports whether a command can have this name.
func validName[S string | []byte](name S) bool {
	if len(name) == 0 || len(name) > maxName {
		return false
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' {
			return false
		}
	}
	return true
}

// longest is the number of a stream that no stream reaches.
const longest = math.MaxUint64
