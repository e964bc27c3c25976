// Package session is the multiplexer of session mode: many streams at once on one connection, opened by either side, in
// bytes. It knows no types and no commands: a CALL that arrives is handed to Config.Accept as a Stream with a name.
//
// # Who does what
//
// All state is in one struct under one lock, which is never held across anything that blocks. Whatever changes the state
// lets go of the lock through Session.release, the one place that decides what follows: whether the session has ended, and
// who writes what is staged.
//
// The goroutines of a session, each with a comment that says when it ends: the reader (readLoop), which waits for nothing but
// the connection, except that it runs handlers that are quick, and then another goroutine takes the reading over when one turns
// out not to be; the flusher (flush), started when there is something to write that could not be written at once; the other
// handlers', which are Workers', shared with other sessions, at most one for each call that is served; and, where somebody has to
// be waited for, the one that ends the session (finish). Timers call tick and watchReader.
//
// # How a session ends
//
// The first error is kept; the transport is closed; then everybody who waits is woken. Every call that was under way learns
// what is known of it: a call whose last byte needed to run it never left this side did not run, nor did one above the last
// stream that the peer's GOAWAY names; of any other nothing is known.
package session

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"gobnode/internal/wire"
)

// A Config says how a session behaves. It is not changed after New. A zero number means the default in its remark, a
// negative one no limit.
type Config struct {
	Dialer bool // this side dialled: it opens odd streams

	// Accept serves a call, on a goroutine of its own if need be. What takes its time belongs into Receive's take. A call with one message is passed on only once that is whole. When
	// Accept returns the stream is finished, with an error if it was not before, and is not to be used any more: that of a
	// unary call becomes another call's. nil refuses every call.
	Accept func(*Stream)

	Preface  string // bytes to send before the first frame
	Greeting string // a line, with its newline, that the peer sends before its first frame; another one ends the session
	Buffered []byte // bytes that were read from the connection already; not kept

	Message   int           // 4 MiB: bytes of one message
	Calls     int           // 250: calls of the peer's served at once
	Credit    int           // 256 KiB: bytes of one stream that are not taken yet; never under 64 KiB
	Budget    *Budget       // 64 MiB: for what calls of the peer's hold
	Heartbeat time.Duration // 15 s: the wish told to the peer; the larger of both holds
	Handshake time.Duration // 10 s: until the peer's HELLO
	Spin      time.Duration // none: how long the reader of a socket looks for an answer before it waits; 1 ms at most
	Progress  time.Duration // 10 s: for a frame to become whole, and for 64 KiB of a message or of what is written

	Program string          // name and version, told to the peer
	Context context.Context // what handlers' contexts derive from, and nothing else ends with; nil: context.Background()
	Logger  *slog.Logger    // nil: slog.Default()
	OnLimit func(Limit)     // called when a limit fires; must not block
	OnGoing func()          // called once when no more calls can be made: see GoingAway; must not block
	OnGone  func()          // called once when the session has ended and the last of its goroutines, handlers included, is through; must not block
	Workers *Workers        // serve the calls and read; shared with other sessions. nil: its own, if there is an Accept
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	pick := func(v *int, def, unlimited int) {
		if *v == 0 {
			*v = def
		} else if *v < 0 {
			*v = unlimited
		}
	}
	pickTime := func(v *time.Duration, def time.Duration) {
		if *v == 0 {
			*v = def
		} else if *v < 0 {
			*v = math.MaxInt64 / 4
		}
	}
	pick(&c.Message, defaultMessage, math.MaxInt)
	pick(&c.Calls, defaultCalls, math.MaxInt32)
	pick(&c.Credit, defaultCredit, maxCredit)
	c.Credit = min(max(c.Credit, assumedCredit), maxCredit)
	pickTime(&c.Heartbeat, defaultHeartbeat)
	pickTime(&c.Handshake, defaultHandshake)
	pickTime(&c.Progress, defaultProgress)
	c.Spin = min(max(c.Spin, 0), maxSpin)
	c.Heartbeat = clampHeartbeat(c.Heartbeat)
	if c.Budget == nil {
		c.Budget = NewBudget(defaultInFlight, nil)
	}
	if c.Context == nil {
		c.Context = context.Background()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Workers == nil && c.Accept != nil {
		c.Workers = new(Workers)
	}
	return c
}

// A Session is one connection with streams on it. Its methods may be called from any goroutine.
type Session struct {
	conn       net.Conn
	raw        *rawConn // nil if conn is not a socket that can be used without blocking
	cfg        Config
	started    time.Time
	alive      atomic.Int64  // goroutines of the session's, itself counted until its end: see leave
	gone       event         // there are none
	done       event         // everybody has been woken
	going      event         // no more calls can be made
	readerGone event         // nobody reads any more
	hello      event         // the peer's HELLO is there, or the session has ended
	timer      *time.Timer   // calls tick; nil while young
	place      int           // in Workers.young, from 1 on; guarded by its lock
	rx         atomic.Uint64 // bytes read
	heard      atomic.Int64  // when bytes were read last, ns since started
	spins      struct{ hits, misses atomic.Uint64 }
	size       atomic.Int64 // of messages encoded lately: how large a slice to encode the next into

	reader reader                 // of the goroutine that reads
	spent  atomic.Pointer[Stream] // more of free: given back by those who do not hold the lock
	turn   turns

	mu sync.Mutex // guards following
	state
}

// state is what changes in the life of a session. It is all under one lock, what is staged for the wire included: a stream
// gets its number when its CALL is staged, and numbers have to rise on the wire, so two locks would always be taken
// together. The lock is held for copies and maps, never for a system call, a callback or anything of a user's.
type state struct {
	err      error // why the session ends: the first reason
	farewell *wire.GoAway
	ended    bool // err is set and nothing is sent or taken any more
	torn     bool // the transport is closed and everybody has been woken
	ending   bool // unlock calls teardown
	leaving  bool // unlock calls OnGoing
	helloed  bool

	streams    table      // from the CALL to the last word
	nextID     uint64     // of the next stream opened here
	highest    uint64     // stream of the peer's that a CALL was seen for
	taken      uint64     // stream of the peer's that was served or refused
	opened     int        // streams of this side's that have a place at the peer
	served     int        // streams of the peer's
	places     queue      // streams of this side's that wait for a place
	free       *Stream    // of finished unary calls, to be used again, linked by next
	peer       wire.Hello // what the peer allows
	names      [4]string  // of commands that were called, so that a call does not allocate one
	last       uint64     // the peer's GOAWAY: streams above it do not run
	goneAway   bool       // the peer has sent one
	farewelled bool       // ... that said why, and was logged
	nothing    bool       // the peer never understood that this is a session: nothing ran

	draining bool          // this side has sent a GOAWAY
	drained  bool          // ... with the last stream that it serves
	complete bool          // ... and the session ended because nothing was left to do
	drainSeq uint64        // the PING behind the first GOAWAY
	drainAck chan struct{} // closed by its PONG

	writer
	pulse
	inline

	answered *Stream // unary calls that have ended well, linked by follower: unlock wakes their callers, who would find the lock taken before

	todo   []func() // what release calls once the lock is gone: nothing that may block or call back is called under it
	stats  Counts
	limits *[numLimits]uint64 // how often each has fired; nil: none has
}

// New starts a session on conn, which is the session's from now on.
func New(conn net.Conn, cfg Config) *Session {
	s := Begin(conn, cfg)
	s.Start()
	return s
}

// Start is Read on a goroutine of its own.
func (s *Session) Start() { go s.readLoop(true) }

// Begin is New, but that nothing is read before Start, Read or Greet, one of which must be called, once.
func Begin(conn net.Conn, cfg Config) *Session {
	s := &Session{
		conn: conn, raw: newRawConn(conn), cfg: cfg.withDefaults(), started: time.Now(),
		state: state{
			nextID: 2, last: math.MaxUint64,
			peer:   wire.Hello{Message: assumedMessage, Calls: assumedCalls, Credit: assumedCredit},
			inline: newInline(),
		},
	}
	s.reader.s = s
	s.reader.fill = s.reader.readSocket
	if cfg.Dialer {
		s.nextID = 1
	}
	if len(cfg.Buffered) > 0 {
		s.reader.buf = getBuffer(readBuffer)
		s.reader.buf.b = append(s.reader.buf.b, cfg.Buffered...)
		s.cfg.Buffered = nil
	}
	s.mu.Lock()
	s.rest = getBuffer(minControl) // in rest, not staged: control frames must not go before it
	s.rest.b = append(s.rest.b, cfg.Preface...)
	s.rest.b = wire.AppendHello(s.rest.b, &wire.Hello{
		Message: uint64(s.cfg.Message), Calls: uint64(s.cfg.Calls), Credit: uint64(s.cfg.Credit),
		Heartbeat: uint64(s.cfg.Heartbeat / time.Millisecond), Program: cfg.Program,
	})
	s.stagedEnd = uint64(len(s.rest.b))
	if s.raw == nil {
		s.sentEnd = s.stagedEnd
	}
	s.beat = s.cfg.Heartbeat
	s.early = rand.Float32() / 8
	if cfg.Dialer {
		s.early += 1. / 8 // so that it is the side that dialled whose PING breaks a silence, and which learns how long the answer takes
	}
	s.alive.Store(2) // itself, and who reads
	first := min(s.cfg.Handshake, s.somewhat(s.beat))
	if p := s.cfg.Workers; p != nil {
		p.Hold()
		s.young = true
		p.watchYoung(s)
	} else {
		first = min(first, coolTime) // which comes with the first call: to move a timer forward may cost as much as to set it
	}
	s.arm(s.started.Add(first))
	s.release(true)
	return s
}

// Read reads on the caller's goroutine for as long as it would on its own: until the session ends, or another goroutine goes on.
// It reports whether the goroutine is of further use: otherwise it is one that waited, with a stack that has grown, and has been replaced.
// A handler may end it by runtime.Goexit.
func (s *Session) Read() (again bool) {
	s.mu.Lock()
	s.warmUp() // for a stack that has grown
	s.unlock()
	return s.readLoop(true)
}

// Greet reads on the caller's goroutine until the peer's HELLO is there, and has another go on. When ctx ends before, the
// session does. It returns nil or why there is no session; Done may be behind.
func (s *Session) Greet(ctx context.Context) error {
	defer s.leave()
	stop := context.AfterFunc(ctx, func() { s.Abort(ErrClosed) })
	err := s.reader.greet()
	if err != nil {
		s.endReading(err)
	} else {
		s.startReading()
	}
	if !stop() {
		return ctx.Err()
	}
	return s.Err()
}

// Done is closed when the session has ended and every call on it has been told.
func (s *Session) Done() <-chan struct{} { return s.done.wait() }

// Ready is closed when the peer's HELLO is there, or the session has ended: see Err.
func (s *Session) Ready() <-chan struct{} { return s.hello.wait() }

// GoingAway is closed when no more calls can be made: the session has ended, or one side drains it.
func (s *Session) GoingAway() <-chan struct{} { return s.going.wait() }

// Err returns why the session ended, nil while it has not. After a Close or a drain it is ErrClosed.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close ends the session at once and waits for all its goroutines, handlers included: it must not be called by one.
func (s *Session) Close() error {
	s.Abort(ErrClosed)
	s.Wait()
	return nil
}

// Abort ends the session at once and does not wait. The peer is told which of its calls did not run, if it still takes
// bytes.
func (s *Session) Abort(err error) {
	s.mu.Lock()
	var farewell *wire.GoAway
	if s.cfg.Accept != nil { // otherwise the peer has no call to be told of, and the end of the connection says the rest
		farewell = &wire.GoAway{Last: s.taken, Message: []byte("closed")}
	}
	s.fail(err, farewell)
	s.release(false)
}

// Wait waits for all goroutines of a session that has ended, or is about to.
func (s *Session) Wait() { <-s.gone.wait() }

// Stats are counts since the session began, unless their remark says otherwise. Counters only grow.
type Stats struct {
	Counts
	Open     int    // calls made that have not had the last word, now
	Serving  int    // calls of the peer's, now
	Waiting  int    // calls that wait for a place at the peer, now
	Received uint64 // bytes read
	Spins    uint64 // times that the reader looked for an answer before it waited
	Found    uint64 // ... and found one
	Program  string // the peer's name and version
	Limits   [numLimits]uint64
}

// Counts are counted under the session's lock.
type Counts struct {
	Opened  uint64        // calls made whose CALL was staged
	Served  uint64        // calls of the peer's handed to Accept or to be handed
	Inline  uint64        // of Served, those whose handler the reader ran
	Refused uint64        // calls of the peer's that were refused
	Dropped uint64        // frames for streams that had ended
	Frames  uint64        // frames read
	Landed  uint64        // of Frames, those whose data was read to where it belongs
	Writes  uint64        // system calls to write, or calls of Write
	Sent    uint64        // bytes written
	RTT     time.Duration // of the last PING, which goes when nothing else comes; before the first, how long the peer's HELLO took; 0 until then
}

// Stats returns the counts.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Counts: s.stats}
	st.Open, st.Serving, st.Waiting = s.opened, s.served, s.places.len
	st.Received = s.rx.Load()
	st.Found = s.spins.hits.Load()
	st.Spins = st.Found + s.spins.misses.Load()
	st.Program = s.peer.Program
	if s.limits != nil {
		st.Limits = *s.limits
	}
	return st
}

// fail marks the session as ended, if it is not yet. farewell, unless nil, is told to the peer. The caller holds mu and
// calls release, which does the rest.
func (s *Session) fail(err error, farewell *wire.GoAway) {
	if s.ended {
		return
	}
	s.err, s.farewell, s.ended = err, farewell, true
	s.markGoing()
	if s.timer != nil {
		s.timer.Stop()
	} else if s.young {
		s.cfg.Workers.forget(s)
	}
	s.ending = true
}

// later has f called when the lock is gone.
func (s *Session) later(f func()) { s.todo = append(s.todo, f) }

// release lets go of mu. Every change of the state ends here, and here alone is decided what follows from it: the end of a
// session that is drained, and who writes. now says that the caller may make one attempt to write that does not block; the
// reader and timers may not.
func (s *Session) release(now bool) { s.releaseAnd(now, s.busy()) }

// releaseAnd is release; yield says whether to wait for others who may have something to write too.
func (s *Session) releaseAnd(now, yield bool) {
	if s.drained && !s.ended && s.served == 0 && s.opened == 0 && s.places.len == 0 && !s.writing && !s.pendingOutput() {
		s.complete = true
		s.fail(ErrClosed, nil)
	}
	if s.writing || s.ended || !s.pendingOutput() {
		s.unlock()
		return
	}
	s.writing = true
	if !now || s.raw == nil {
		s.enter()
		go s.flush()
		s.unlock()
		return
	}
	s.attempt(yield)
}

// unlock lets go of mu and does what was put off until then.
func (s *Session) unlock() {
	todo, st, ending, leaving := s.todo, s.answered, s.ending, s.leaving
	s.todo, s.answered, s.ending, s.leaving = nil, nil, false, false
	s.mu.Unlock()
	for st != nil {
		next := st.follower
		st.follower = nil // it is its caller's when it has been woken
		signal(st.readable)
		st = next
	}
	for _, f := range todo {
		f()
	}
	if leaving {
		s.cfg.OnGoing()
	}
	if ending {
		s.teardown()
	}
}
