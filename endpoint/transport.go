package endpoint

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pkg/errors"
)

// A transport is a connection that holds its peer to the limits of time. It
// sits below TLS, so that the limits count bytes that really moved.
//
// Deadlines are armed lazily: one that was set for an earlier read or write and
// fires too early for this one is moved and the call goes on. A connection that
// exchanges short commands thus sets a deadline once an Idle rather than twice
// a command; setting one costs a tenth of a system call, but TLS would take a
// deadline that fires for a broken connection if it sat below the lazy part.
//
// One goroutine may read while another writes.
type transport struct {
	net.Conn
	raw    syscall.RawConn // of a plain socket of the kernel, else nil
	limits *Limits

	moved  atomic.Int64 // the moment at which a byte last moved, either way
	broken atomic.Pointer[limitError]

	stopping sync.Mutex  // held while stopped and the deadline behind it change
	stopped  atomic.Bool // reads fail with errStopped

	readEnd atomic.Int64 // the moment of SetReadDeadline; 0: none

	// Of the reader:
	readBy    moment // reads end here whatever Idle says; 0: no such bound
	readName  string // the limit behind readBy; empty: none that is reported
	readTime  time.Duration
	readStep  int    // bytes until readBy is renewed; 0: it never is
	peeked    []byte // by peek, not yet by Read
	readArmed moment
	waiting   moment // when the read began that errBound ended last; 0: a read since then was not ended so
	readBegun moment // of waitRead
	readAgain bool   // ... it has waited
	readErr   error  // ... why it does not any more

	writeBy atomic.Int64 // the moment of SetWriteDeadline; 0: none

	// Of the writer:
	writeArmed  moment
	writeWaited time.Duration // for the peer to take the current step
	writeMoved  int           // bytes of the current step
}

// A moment is a time on the monotonic clock, in nanoseconds since epoch.
type moment = int64

const never moment = 1<<63 - 1

var epoch = time.Now()

func now() moment { return int64(time.Since(epoch)) }

// errBound is what a read returns that reached a readBy without a name, and
// errStopped what it returns after stop. Neither is a limit.
var errBound, errStopped = error(&limitError{what: "waiting"}), error(&limitError{what: "stopped"})

// A limitError says which limit of time a peer reached. It is a net.Error and
// an os.ErrDeadlineExceeded. Temporary is true because crypto/tls takes a
// connection for broken after any other error, and one that reached an
// unreported bound is read from again.
type limitError struct {
	limit string
	after time.Duration
	what  string
}

func (e *limitError) Error() string {
	text := fmt.Sprintf("%s for %v", e.what, e.after)
	if e.limit != "" {
		text = "limit " + e.limit + ": " + text
	}
	return text
}
func (e *limitError) Timeout() bool   { return true }
func (e *limitError) Temporary() bool { return true }
func (e *limitError) Unwrap() error   { return os.ErrDeadlineExceeded }

func newTransport(c net.Conn, limits *Limits) *transport {
	t := &transport{Conn: c, raw: rawConn(c), limits: limits}
	t.moved.Store(now())
	return t
}

// boundReads makes reads end after d, with a *limitError if the bound has a
// name and with errBound if it has none. A d of 0 or less takes the bound away.
func (t *transport) boundReads(limit string, d time.Duration) {
	t.readBy, t.readName, t.readTime, t.readStep = 0, limit, d, 0
	if d > 0 {
		t.readBy = now() + int64(d)
	}
}

// boundSteps is boundReads for data that may take longer: every step bytes must
// come within d.
func (t *transport) boundSteps(limit string, d time.Duration) {
	t.boundReads(limit, d)
	t.readStep = step
}

// renew counts n bytes read for boundSteps.
func (t *transport) renew(n int) {
	if t.readStep == 0 {
		return
	}
	if t.readStep -= n; t.readStep <= 0 {
		t.readStep = step
		if t.readTime > 0 {
			t.readBy = now() + int64(t.readTime)
		}
	}
}

// stop makes reads fail with errStopped, one that waits included, until resume.
// It is called from another goroutine than the reader's.
func (t *transport) stop() {
	t.stopping.Lock()
	defer t.stopping.Unlock()
	t.stopped.Store(true) // first: a reader looks at it when it has set its deadline
	_ = t.Conn.SetReadDeadline(time.Unix(1, 0))
}

// resume takes stop back. It is called by the reader.
func (t *transport) resume() {
	t.stopping.Lock()
	defer t.stopping.Unlock()
	t.stopped.Store(false)
	t.readArmed = 0 // the deadline is another now
}

// Read reads, under the limit Idle and the bound of boundReads.
func (t *transport) Read(p []byte) (int, error) {
	if len(t.peeked) > 0 {
		n := copy(p, t.peeked)
		t.peeked = t.peeked[n:]
		return n, nil
	}
	for start, again := now(), false; ; again = true {
		if err := t.armRead(start, again); err != nil {
			return 0, err
		}
		n, err := t.Conn.Read(p)
		if n > 0 {
			t.moved.Store(now())
			t.waiting = 0
			t.renew(n)
			return n, nil // an error, if any, comes again
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// peek returns the next byte, which Read returns again.
func (t *transport) peek() (byte, error) {
	var b [1]byte
	if _, err := t.Read(b[:]); err != nil {
		return 0, err
	}
	t.peeked = b[:]
	return b[0], nil
}

// waitRead calls f whenever t is readable until it returns true, under the same
// limits as Read. It serves for plain sockets only. Where f finds nothing it calls
// wait, and returns true if that does.
//
// So where something is there already no deadline is set: that is a timer, for
// which the runtime may wake a thread that sleeps.
func (t *transport) waitRead(f func(fd uintptr) bool) error {
	t.readBegun, t.readAgain, t.readErr = now(), false, nil
	for {
		if l := t.broken.Load(); l != nil {
			return l
		}
		err := t.raw.Read(f)
		switch {
		case t.readErr != nil:
			return t.readErr
		case err == nil:
			t.moved.Store(now())
			t.waiting = 0
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
		if t.wait() {
			return t.readErr
		}
	}
}

// wait sees to a deadline for waitRead, and reports whether its time is up.
func (t *transport) wait() bool {
	t.readErr = t.armRead(t.readBegun, t.readAgain)
	t.readAgain = true
	return t.readErr != nil
}

// armRead sees to a deadline for a read that began at start. It fails when the
// time is up, and ever after, so that no reader waits longer by reading again.
func (t *transport) armRead(start moment, again bool) error {
	if l := t.broken.Load(); l != nil {
		return l
	}
	since := start
	if t.waiting != 0 {
		since = t.waiting
	}
	at, name, after, what := never, "", time.Duration(0), ""
	if t.limits.Idle > 0 {
		at = max(since, t.moved.Load()) + int64(t.limits.Idle)
		name, after, what = "Idle", t.limits.Idle, "no byte either way"
	}
	if t.readBy != 0 && t.readBy <= at {
		at, name, after, what = t.readBy, t.readName, t.readTime, "not finished"
	}
	end := t.readEnd.Load()
	if end != 0 && end < at {
		at = end
	}
	current := start
	if again {
		current = now()
	}
	if at <= current {
		if at == end {
			return os.ErrDeadlineExceeded
		}
		if name == "" {
			t.waiting = since
			return errBound
		}
		return t.fail(name, after, what)
	}
	if t.readArmed != at && (t.readArmed <= current || t.readArmed > at) {
		t.readArmed = at
		if err := t.Conn.SetReadDeadline(deadline(current, at)); err != nil {
			return err
		}
	}
	if t.readEnd.Load() != end { // set meanwhile, and maybe overwritten
		return t.armRead(start, true)
	}
	if t.stopped.Load() {
		return errStopped
	}
	return nil
}

// deadline is the moment at as a time, given that it is now current. It is made
// from the clock of the moment, since epoch may be outside of a test's bubble
// of fake time.
func deadline(current, at moment) time.Time {
	if at == never {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(at - current))
}

// fail records the first limit that was reached, for the one log line.
func (t *transport) fail(limit string, after time.Duration, what string) error {
	e := &limitError{limit: limit, after: after, what: what}
	t.broken.CompareAndSwap(nil, e)
	return e
}

// step is how many bytes must move in each Limits.Progress.
const step = 64 << 10

// Write writes all of p; each step of it has Limits.Progress to move.
func (t *transport) Write(p []byte) (written int, err error) {
	for {
		n, err := t.writeOne(p[written:min(len(p), written+step-t.writeMoved)])
		written += n
		if err != nil || written == len(p) {
			return written, err
		}
	}
}

// writeOne writes p, which is at most what is left of the step. Writes that
// together are less than a step share its time, so that it makes no difference
// to a slow peer in what portions a handler writes.
func (t *transport) writeOne(p []byte) (written int, err error) {
	start := now()
	for current := start; ; current = now() {
		if err := t.armWrite(start-int64(t.writeWaited), current); err != nil {
			return written, err
		}
		n, err := t.Conn.Write(p[written:])
		written += n
		if n > 0 {
			t.moved.Store(now())
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.countWrite(written, time.Duration(t.moved.Load()-start))
			return written, err
		}
	}
}

// slowWrite is from when on a write counts as one that waited for the peer. A
// write that finds room takes some 10 us; what the scheduler of a busy machine adds
// is not the peer's fault, and thousands of small writes may add up to a step.
const slowWrite = 100 * time.Millisecond

// countWrite counts a write of n bytes that took d.
func (t *transport) countWrite(n int, d time.Duration) {
	if t.writeMoved += n; t.writeMoved >= step {
		t.writeMoved, t.writeWaited = 0, 0
	} else if d >= slowWrite {
		t.writeWaited += d
	}
}

// SetWriteDeadline bounds writes beside Progress. crypto/tls calls it around the
// last alert: set on the connection itself, behind armWrite's back, its deadlines
// made writeOne try again and again without a pause. A
// write that waits already goes on.
func (t *transport) SetWriteDeadline(d time.Time) error {
	t.writeBy.Store(momentOf(d))
	return nil
}

// SetReadDeadline bounds reads beside the limits, one that waits already too. A
// session over TLS calls it, from any goroutine.
func (t *transport) SetReadDeadline(d time.Time) error {
	t.readEnd.Store(momentOf(d)) // first: a reader looks at it when it has set its deadline
	return t.Conn.SetReadDeadline(d)
}

// momentOf is d as a moment, 0 if it is none.
func momentOf(d time.Time) moment {
	if d.IsZero() {
		return 0
	}
	return now() + int64(time.Until(d))
}

// armWrite sees to a deadline for a step that began at start.
func (t *transport) armWrite(start, current moment) error {
	at, progress := never, t.limits.Progress > 0
	if progress {
		at = start + int64(t.limits.Progress)
	}
	if by := t.writeBy.Load(); by != 0 && by < at {
		at, progress = by, false
	}
	if at <= current {
		if !progress {
			return os.ErrDeadlineExceeded
		}
		return t.fail("Progress", t.limits.Progress, "the peer took too little")
	}
	if t.writeArmed == at || t.writeArmed > current && t.writeArmed < at {
		return nil
	}
	t.writeArmed = at
	return t.Conn.SetWriteDeadline(deadline(current, at))
}
