package endpoint_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What the hosts of TestHealChance serve. The number of a call travels in its
// header, for raw ones too.
const (
	chanceCall endpoint.Command[errand, errand]       = "ERRAND"
	chanceFlow endpoint.StreamCommand[errand, errand] = "FLOW"
	chanceBack endpoint.Command[errand, errand]       = "BACK"
	chanceRaw                                         = "RAW"
)

// An errand says what its handler does, and for how long.
type errand struct {
	ID, Do int
	For    time.Duration
	Data   []byte
}

// The ways of an errand.
const (
	doAnswer  = iota // at once
	doWait           // For, or until the context ends
	doSleep          // For, whatever the context does
	doRefuse         // with a code that a call which did not run may have
	doPanic          // and the goroutine goes on
	doGoexit         // and it does not
	doHangUp         // close the connection
	doBack           // call the caller back
	doClose          // have the caller's Client closed by the handler that is called back
	waysOfAll        // how many there are but doClose
)

// A moodyConn is a connection that can be held up or lost without an end.
type moodyConn struct {
	net.Conn
	lost   atomic.Bool // what is written vanishes, what arrives too
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	held chan struct{} // nil, or closed when it goes on
}

func (c *moodyConn) pass() {
	c.mu.Lock()
	held := c.held
	c.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-c.closed:
		}
	}
}

func (c *moodyConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		c.pass()
		if err != nil || !c.lost.Load() {
			return n, err
		}
	}
}

func (c *moodyConn) Write(p []byte) (int, error) {
	if c.pass(); c.lost.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *moodyConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && !c.lost.Load() {
		return half.CloseWrite()
	}
	return nil
}

func (c *moodyConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A chanceHost is one address: with or without an endpoint there, and moods.
type chanceHost struct {
	e        *endpoint.Endpoint // nil: refuses connections
	mem      *memnet.Listener
	conns    []*moodyConn
	silent   bool // connections are not answered
	rude     int  // 1: hangs up on connections; 2: answers as another service would
	refusing atomic.Bool
}

// A chance is one run of TestHealChance: a network, its Client, and the ledger.
type chance struct {
	t     *testing.T
	seed  uint64
	addrs []string
	c     *endpoint.Client
	ran   []atomic.Int32 // by number of the call; marked once it is said that it did not run
	next  atomic.Int32
	all   context.Context // ends when everybody should have been done

	closing atomic.Int64 // when Close was called, in ns of the bubble's time; 0: not yet
	asked   atomic.Int64 // of breakers
	done    atomic.Int64
	dials   atomic.Int64
	ends    atomic.Int64 // of connections, by the driver's doing

	mu    sync.Mutex // guards following
	r     *rand.Rand
	hosts map[string]*chanceHost
	calm  bool
	wg    sync.WaitGroup // of drains, rude hosts and the like
}

const saidNotRun = 1000

func (h *chance) errorf(format string, args ...any) {
	h.t.Errorf("SEED=%d: %s", h.seed, fmt.Sprintf(format, args...))
}

// enter notes the run of a call.
func (h *chance) enter(ctx context.Context) {
	id, err := strconv.Atoi(endpoint.InfoFrom(ctx).Header("id"))
	if err != nil {
		h.errorf("a call without a number: %v", err)
		return
	}
	if n := h.ran[id].Add(1); n > saidNotRun {
		h.errorf("call %d runs, and it was said that it did not", id)
	}
}

// serve is the handler of errands.
func (h *chance) serve(ctx context.Context, j errand) (errand, error) {
	h.enter(ctx)
	switch j.Do {
	case doWait:
		select {
		case <-time.After(j.For):
		case <-ctx.Done():
			return j, ctx.Err()
		}
	case doSleep:
		time.Sleep(j.For)
	case doRefuse:
		return j, endpoint.Errorf(endpoint.Unavailable, "not now")
	case doPanic:
		panic("an errand")
	case doGoexit:
		runtime.Goexit()
	case doHangUp:
		_ = endpoint.PeerFrom(ctx).Close()
		<-ctx.Done()
	case doBack, doClose:
		return chanceBack.Call(ctx, endpoint.PeerFrom(ctx), j)
	}
	return j, nil
}

// flow answers each message until the caller has sent the last one.
func (h *chance) flow(ctx context.Context, s *endpoint.Stream[errand, errand]) error {
	h.enter(ctx)
	for j, err := range s.All() {
		if err != nil {
			return err
		}
		switch j.Do {
		case doRefuse:
			return endpoint.Errorf(endpoint.Unavailable, "not now")
		case doWait, doSleep:
			time.Sleep(j.For)
		}
		if err := s.Send(j); err != nil {
			return err
		}
	}
	return nil
}

func (h *chance) raw(ctx context.Context, rw *bufio.ReadWriter) error {
	h.enter(ctx)
	line, err := rw.ReadString('\n')
	if err == nil {
		_, err = rw.WriteString(line)
	}
	return err
}

// up brings a host up. Under mu.
func (h *chance) up(host *chanceHost) {
	host.e, host.mem = endpoint.New(), memnet.Listen()
	host.e.Logger = slog.New(slog.DiscardHandler)
	host.e.Limits.Calls = []int{0, 3, 20}[h.r.IntN(3)]
	host.e.Interceptors = []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next func(context.Context) error) error {
		if host.refusing.Load() {
			return endpoint.Errorf(endpoint.ResourceExhausted, "no room")
		}
		return next(ctx)
	}}
	chanceCall.Handle(host.e, h.serve)
	chanceFlow.Handle(host.e, h.flow)
	host.e.Handle(chanceRaw, endpoint.ServeFunc(h.raw))
	e, mem := host.e, host.mem
	h.wg.Go(func() { assert.ErrorIs(h.t, e.Serve(mem), endpoint.ErrClosed) })
}

// end ends a host's endpoint, in order if within is not 0. Under mu.
func (h *chance) end(host *chanceHost, within time.Duration) {
	e := host.e
	host.e = nil
	h.ends.Add(1)
	h.wg.Go(func() {
		if within == 0 {
			assert.NoError(h.t, e.Close())
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		_ = e.Shutdown(ctx)
	})
}

func (h *chance) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	h.dials.Add(1)
	h.mu.Lock()
	host := h.hosts[addr]
	silent, rude, seed := host.silent, host.rude, h.r.Uint64()
	mem := host.mem
	if host.e == nil {
		mem = new(memnet.Listener)
	}
	var faults memnet.Faults
	if h.r.IntN(4) == 0 {
		faults = memnet.Faults{Pieces: 1 + h.r.IntN(200), Delay: time.Duration(h.r.IntN(3_000)) * time.Microsecond}
		if h.r.IntN(3) == 0 && !h.calm {
			faults.ResetAt = 1 + h.r.Int64N(3_000)
		}
	}
	h.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
	}
	if rude > 0 {
		near, far := memnet.Pipe()
		if rude == 2 {
			_, _ = far.Write([]byte("220 mail.example.com\r\n"))
		}
		_ = far.Close()
		return near, nil
	}
	conn, err := mem.Dial(ctx)
	if err != nil {
		return nil, err
	}
	if faults != (memnet.Faults{}) {
		conn = memnet.NewFaultConn(conn.(*memnet.Conn), faults, seed)
	}
	c := &moodyConn{Conn: conn, closed: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	host.conns = append(host.conns, c)
	return c, nil
}

// act does something to a host.
func (h *chance) act() {
	h.mu.Lock()
	defer h.mu.Unlock()
	host := h.hosts[h.addrs[h.r.IntN(len(h.addrs))]]
	switch n := h.r.IntN(100); {
	case host.e == nil && n < 70:
		h.up(host)
	case host.e == nil:
	case n < 20:
		h.end(host, 0)
	case n < 45:
		h.end(host, 1+time.Duration(h.r.IntN(5000))*time.Millisecond)
	case n < 60:
		for _, c := range host.conns {
			_ = c.Close()
		}
		host.conns = nil
		h.ends.Add(1)
	case n < 68:
		for _, c := range host.conns {
			c.lost.Store(true)
		}
		h.ends.Add(1)
	case n < 76:
		h.hold(host.conns, time.Duration(h.r.IntN(4000))*time.Millisecond)
	case n < 84:
		host.silent = !host.silent
	case n < 92:
		host.rude = h.r.IntN(3)
	default:
		host.refusing.Store(!host.refusing.Load())
	}
}

// hold holds connections up for d. Under mu.
func (h *chance) hold(conns []*moodyConn, d time.Duration) {
	for _, c := range slices.Clone(conns) {
		goOn := make(chan struct{})
		c.mu.Lock()
		c.held = goOn
		c.mu.Unlock()
		time.AfterFunc(d, func() { close(goOn) })
	}
}

// settle ends all trouble.
func (h *chance) settle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calm = true
	for _, host := range h.hosts {
		host.silent, host.rude = false, 0
		host.refusing.Store(false)
		if host.e == nil {
			h.up(host)
		}
		for _, c := range host.conns {
			if c.lost.Load() {
				_ = c.Close()
			}
		}
	}
}

// dialer returns one with chance's choice of what it can have.
func (h *chance) dialer() *endpoint.Dialer {
	d := &endpoint.Dialer{NetDial: h.dial, Logger: slog.New(slog.DiscardHandler), Endpoint: endpoint.New()}
	d.Endpoint.Logger = d.Logger
	chanceBack.Handle(d.Endpoint, func(_ context.Context, j errand) (errand, error) {
		if j.Do == doClose {
			h.close()
		} else {
			time.Sleep(j.For)
		}
		return j, nil
	})
	if h.r.IntN(3) == 0 {
		d.Resolve = h.resolve
	}
	if h.r.IntN(3) == 0 {
		d.Breaker = func(string) endpoint.Breaker { return h }
	}
	if h.r.IntN(4) == 0 {
		d.Interceptors = []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next func(context.Context) error) error {
			err := next(ctx)
			if err != nil && endpoint.OutcomeOf(err) == endpoint.OutcomeNotRun {
				return next(ctx)
			}
			return err
		}}
	}
	return d
}

// resolve returns some of the addresses, some twice; sometimes late, or an error.
func (h *chance) resolve(ctx context.Context, _ string) ([]string, error) {
	h.mu.Lock()
	calm, how := h.calm, h.r.IntN(10)
	some := slices.Clone(h.addrs)
	h.r.Shuffle(len(some), func(i, k int) { some[i], some[k] = some[k], some[i] })
	if !calm {
		some = some[:1+h.r.IntN(len(some))]
	}
	h.mu.Unlock()
	switch {
	case calm:
	case how == 0:
		<-ctx.Done()
		return nil, ctx.Err()
	case how == 1:
		return nil, errors.New("no such name")
	case how == 2:
		return nil, nil
	}
	return append(some, some[0]), nil
}

// Allow makes a chance a breaker: one that refuses now and then.
func (h *chance) Allow() (func(error), error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.calm && h.r.IntN(20) == 0 {
		return nil, errFuse
	}
	h.asked.Add(1)
	called := new(atomic.Bool)
	return func(error) {
		h.done.Add(1)
		if called.Swap(true) {
			h.errorf("a breaker's done was called twice")
		}
	}, nil
}

// close closes the Client.
func (h *chance) close() {
	h.closing.CompareAndSwap(0, time.Now().UnixNano())
	begin := time.Now()
	assert.NoError(h.t, h.c.Close())
	if d := time.Since(begin); d > 5*time.Second {
		h.errorf("Close took %v", d)
	}
}

// caller makes n calls of all kinds.
func (h *chance) caller(r *rand.Rand, n int) {
	for range n {
		time.Sleep(time.Duration(r.ExpFloat64() * float64(300*time.Millisecond)))
		id := int(h.next.Add(1) - 1)
		ctx := endpoint.WithHeader(h.all, "id", strconv.Itoa(id))
		back := time.Time{} // when the call has to be back
		limit := time.Duration(r.IntN(2000)) * time.Millisecond
		if r.IntN(4) == 0 {
			limit *= 15
		}
		cancel := context.CancelFunc(func() {})
		switch r.IntN(10) {
		case 0:
		case 1:
			ctx, cancel = context.WithCancel(ctx)
			time.AfterFunc(limit, cancel)
			back = time.Now().Add(limit)
		default:
			ctx, cancel = context.WithTimeout(ctx, limit)
			back = time.Now().Add(limit)
		}
		again := r.IntN(3) == 0
		if again {
			ctx = endpoint.Idempotent(ctx)
		}
		j := errand{ID: id, Do: doAnswer, For: time.Duration(r.ExpFloat64() * float64(500*time.Millisecond))}
		if r.IntN(2) == 0 {
			j.Do = r.IntN(waysOfAll)
		} else if r.IntN(300) == 0 {
			j.Do = doClose
		}
		if r.IntN(20) == 0 {
			j.Data = make([]byte, r.IntN(300_000))
		}
		begin := time.Now()
		var err error
		switch r.IntN(6) {
		case 0:
			err = h.stream(ctx, j, r.IntN(5))
		case 1:
			err = h.line(ctx, id)
		default:
			var reply errand
			if reply, err = chanceCall.Call(ctx, h.c, j); err == nil && (reply.ID != id || len(reply.Data) != len(j.Data)) {
				h.errorf("call %d got another's reply: %+v", id, reply)
			}
		}
		h.judge(id, again, begin, back, err)
		cancel()
	}
}

func (h *chance) stream(ctx context.Context, j errand, n int) error {
	s, err := chanceFlow.Open(ctx, h.c)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	for range n {
		if err = s.Send(j); err == nil {
			_, err = s.Recv()
		}
		if err != nil && err != io.EOF { //nolint:errorlint // the very one
			return err
		}
	}
	if err = s.CloseSend(); err == nil {
		_, err = s.Recv()
	}
	if err == io.EOF { //nolint:errorlint // the very one
		return nil
	}
	return err
}

func (h *chance) line(ctx context.Context, id int) error {
	c, err := h.c.Open(ctx, chanceRaw)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if _, err = fmt.Fprintf(c, "%d\n", id); err == nil {
		err = c.Flush()
	}
	if err != nil {
		return err
	}
	line, err := c.ReadString('\n')
	if err == nil && line != strconv.Itoa(id)+"\n" {
		h.errorf("call %d got %q", id, line)
	}
	return err
}

// judge compares what a caller was told with what ran so far.
func (h *chance) judge(id int, again bool, begin, back time.Time, err error) {
	const grace = 50 * time.Millisecond
	now, ran := time.Now(), h.ran[id].Load()
	if !back.IsZero() && now.After(back.Add(grace)) {
		h.errorf("call %d is %v late: %v", id, now.Sub(back), err)
	}
	if at := h.closing.Load(); at != 0 {
		if d := time.Duration(now.UnixNano() - max(at, begin.UnixNano())); d > 6*time.Second {
			h.errorf("call %d is back %v after Close: %v", id, d, err)
		}
	}
	if most := int32(1); ran > most && !again || ran > 6 {
		h.errorf("call %d ran %d times", id, ran)
	}
	if errors.Is(err, io.EOF) {
		h.errorf("call %d broke, and it looks like its end: %v", id, err)
	}
	if err == nil {
		if ran == 0 {
			h.errorf("call %d succeeded without having run", id)
		}
		return
	}
	switch endpoint.OutcomeOf(err) {
	case endpoint.OutcomeNotRun:
		if h.ran[id].Add(saidNotRun) != saidNotRun {
			h.errorf("call %d ran, and it is said that it did not: %v", id, err)
		}
	case endpoint.OutcomeFailed:
		if ran == 0 {
			h.errorf("call %d failed without having run: %v", id, err)
		}
	case endpoint.OutcomeUnknown:
	}
}

// run is the whole of a run.
func (h *chance) run() {
	const callers, calls = 20, 8
	h.ran = make([]atomic.Int32, callers*calls+1)
	for i := range 1 + h.r.IntN(4) {
		addr := fmt.Sprintf("h%d:1", i)
		h.addrs = append(h.addrs, addr)
		h.hosts[addr] = new(chanceHost)
		h.up(h.hosts[addr])
	}
	callerSeeds, actions := seeds(h.r, callers), 5+h.r.IntN(30) // before others use h.r too
	var stop context.CancelFunc
	h.all, stop = context.WithCancel(h.t.Context())
	defer stop()
	names := h.addrs
	d := h.dialer()
	if d.Resolve != nil {
		names = []string{"service"}
	}
	ctx, cancel := context.WithTimeout(h.all, time.Minute)
	var err error
	for h.c == nil && ctx.Err() == nil {
		h.c, err = d.Dial(ctx, names...)
	}
	cancel()
	require.NoError(h.t, err)
	begin := time.Now()
	var watchers, all sync.WaitGroup
	watchers.Go(func() {
		var last endpoint.State
		for s := range h.c.States(h.all) {
			last = s
			_ = s.String()
		}
		if h.all.Err() == nil && last.Phase != endpoint.PhaseClosed {
			h.errorf("States ended with %v", last)
		}
	})
	watchers.Go(func() {
		for range h.c.Watch(h.all) {
			_ = h.c.State()
		}
	})
	for i, seed := range callerSeeds {
		all.Go(func() { h.caller(rand.New(rand.NewPCG(seed, uint64(i))), calls) })
	}
	for range actions {
		h.mu.Lock()
		pause := time.Duration(h.r.ExpFloat64() * float64(300*time.Millisecond))
		h.mu.Unlock()
		time.Sleep(pause)
		h.act()
	}
	h.mu.Lock()
	early := h.r.IntN(4) == 0
	h.mu.Unlock()
	if early {
		h.close()
	}
	h.settle()
	all.Wait()
	if h.closing.Load() == 0 {
		h.healed()
	}
	h.close()
	watchers.Wait()
	if most := 25*int64(time.Since(begin)/time.Second+1)*int64(len(h.addrs)) + 3*h.ends.Load(); h.dials.Load() > most {
		h.errorf("%d connections", h.dials.Load())
	}
	h.mu.Lock()
	for _, host := range h.hosts {
		h.end(host, 0)
	}
	h.mu.Unlock()
	h.wg.Wait()
	assert.NoError(h.t, d.Endpoint.Close())
	time.Sleep(10 * time.Second) // for what Close does not wait for: reads that are late, copies, attempts to connect
	if h.asked.Load() != h.done.Load() {
		h.errorf("breakers were asked %d times and told of %d ends", h.asked.Load(), h.done.Load())
	}
}

// healed requires that all is well some time after the trouble.
func (h *chance) healed() {
	time.Sleep(45 * time.Second)
	stats := h.c.Stats()
	assert.Len(h.t, stats.Nodes, len(h.addrs))
	for _, n := range stats.Nodes {
		if n.State.Phase != endpoint.PhaseReady || n.State.Err != nil || n.InFlight != 0 {
			h.errorf("%+v", n)
		}
	}
	ctx := endpoint.WithHeader(h.all, "id", strconv.Itoa(len(h.ran)-1))
	if _, err := chanceCall.Call(ctx, h.c, errand{}); err != nil {
		h.errorf("a call after all trouble: %v", err)
	}
}

// TestHealChance has a Client and 20 callers live with hosts that come, go,
// drain, hang, refuse, hang up and vanish, by chance, and keeps account: no call
// runs twice that must not, none that is said not to have run, no caller is back
// after its deadline, and in the end all is well. -long makes it 20,000 runs;
// SEED=n repeats one.
func TestHealChance(t *testing.T) {
	runs := 200
	if raceEnabled {
		runs = 40
	}
	if *long {
		runs = 20_000
	}
	r := seeded(t)
	first := r.Uint64()
	for i := range runs {
		seed := first + uint64(i)
		if !t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &chance{t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 1)), hosts: map[string]*chanceHost{}}
				h.run()
			})
		}) {
			return
		}
	}
}
