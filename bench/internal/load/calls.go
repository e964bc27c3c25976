package load

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"gobnode/bench/internal/gauge"
	"gobnode/bench/internal/peers"
)

// dialers is how many connections are made at once where there are many to make.
const dialers = 16

// dial makes n connections. closeAll must be called, whatever the error.
func (t *Target) dial(ctx context.Context, n int) (conns []peers.Conn, closeAll func(), err error) {
	conns = make([]peers.Conn, n)
	closeAll = func() {
		_ = each(n, dialers, func(i int) error {
			if conns[i] != nil {
				_ = conns[i].Close()
			}
			return nil
		})
	}
	err = each(n, dialers, func(i int) (err error) {
		conns[i], err = t.Peer.Dial(ctx, t.Addr)
		return err
	})
	return conns, closeAll, err
}

// each calls f with 0 to n-1 from some goroutines, until one fails.
func each(n, goroutines int, f func(i int) error) error {
	var next atomic.Int64
	var failed firstError
	var wg sync.WaitGroup
	for range min(n, goroutines) {
		wg.Go(func() {
			for !failed.any() {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				failed.set(f(i))
			}
		})
	}
	wg.Wait()
	return failed.get()
}

// A firstError keeps the first error it is given.
type firstError struct{ p atomic.Pointer[error] }

func (e *firstError) set(err error) {
	if err != nil {
		e.p.CompareAndSwap(nil, &err)
	}
}

func (e *firstError) any() bool { return e.p.Load() != nil }

func (e *firstError) get() error {
	if p := e.p.Load(); p != nil {
		return *p
	}
	return nil
}

// A crew is workers that call back to back, each over one caller or round several. The IDs of its calls are all different.
type crew struct {
	workers [][]peers.Caller
	made    []uint64 // calls of each worker so far
}

// newCrew spreads workers over the connections: worker i calls on connection i, or, where there are more workers, shares connection
// i modulo their number; where there are more connections, it goes round its part of them, a call at a time.
func newCrew(workers int, conns []peers.Conn, caller func(peers.Conn) peers.Caller) *crew {
	c := &crew{workers: make([][]peers.Caller, workers), made: make([]uint64, workers)}
	for i := range max(workers, len(conns)) {
		c.workers[i%workers] = append(c.workers[i%workers], caller(conns[i%len(conns)]))
	}
	return c
}

// work has the crew call for d, and returns how many calls it made, all of them answered.
func (c *crew) work(ctx context.Context, d time.Duration, times *latencies) (int64, error) {
	var calls atomic.Int64
	var failed firstError
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for i := range c.workers {
		wg.Go(func() {
			n, err := c.one(ctx, i, end, times, &failed)
			calls.Add(n)
			failed.set(err)
		})
	}
	wg.Wait()
	if err := failed.get(); err != nil {
		return 0, err
	}
	return calls.Load(), nil
}

// one makes at least one call, so that a window has some whatever they take. It stops when a call ends after the window's end: the
// clock is read once between two calls, for the latency of the one and the beginning of the next.
func (c *crew) one(ctx context.Context, worker int, end time.Time, times *latencies, failed *firstError) (n int64, err error) {
	callers := c.workers[worker]
	for began := time.Now(); ; {
		made := c.made[worker]
		if err := callers[made%uint64(len(callers))](ctx, uint64(worker)<<40|made); err != nil {
			return n, err
		}
		c.made[worker]++
		n++
		now := time.Now()
		if times != nil {
			times.add(worker, now.Sub(began))
		}
		if !now.Before(end) || failed.any() {
			return n, nil
		}
		began = now
	}
}

// measure warms the crew up and has it call for a window.
func (t *Target) measure(ctx context.Context, spec *Spec, c *crew) (Figures, error) {
	if _, err := c.work(ctx, spec.Warm, nil); err != nil {
		return nil, err
	}
	times := newLatencies()
	w, err := t.open()
	if err != nil {
		return nil, err
	}
	n, err := c.work(ctx, spec.Window, times)
	if err != nil {
		return nil, err
	}
	if err := t.close(w); err != nil {
		return nil, err
	}
	f := w.figures(n)
	f[P50], f[P99] = times.quantile(50), times.quantile(99)
	return f, nil
}

// connsOf is how many connections the callers of spec need.
func (t *Target) connsOf(spec *Spec) int {
	if t.Peer.OneCall {
		return max(spec.Callers, spec.Conns)
	}
	return spec.Conns
}

// crewOf dials for a crew of calls as spec has them.
func (t *Target) crewOf(ctx context.Context, spec *Spec) (*crew, func(), error) {
	conns, closeAll, err := t.dial(ctx, t.connsOf(spec))
	if err != nil {
		return nil, closeAll, err
	}
	return newCrew(spec.Callers, conns, func(c peers.Conn) peers.Caller { return c.NewCaller(spec.Body) }), closeAll, nil
}

func runCalls(ctx context.Context, spec *Spec, t *Target) (Figures, error) {
	c, closeAll, err := t.crewOf(ctx, spec)
	defer closeAll()
	if err != nil {
		return nil, err
	}
	return t.measure(ctx, spec, c)
}

// loaded adds the figures of a second window to those of the first.
func (f Figures) loaded(second Figures) Figures {
	f[LoadedRate], f[LoadedP50], f[LoadedP99], f[LoadedCPU] = second[Rate], second[P50], second[P99], second[CPU]
	f[LoadedBusy] = second[Busy]
	f[RateShare] = f[LoadedRate] / f[Rate]
	f[CPUGrowth] = f[LoadedCPU] / f[CPU]
	f[P99Bound] = f[LoadedP99] / (2*f[P99] + 1000)
	return f
}

// runSleepy compares within one pair of processes, so that the share of the rate that is left is a ratio within a round too.
func runSleepy(ctx context.Context, spec *Spec, t *Target) (Figures, error) {
	c, closeAll, err := t.crewOf(ctx, spec)
	defer closeAll()
	if err != nil {
		return nil, err
	}
	awake, err := t.measure(ctx, spec, c)
	if err != nil {
		return nil, err
	}
	if _, err = t.Server.Do(gauge.Order{Op: gauge.OpSleep, N: spec.Every, Pause: spec.Pause}); err != nil {
		return nil, err
	}
	sleepy, err := t.measure(ctx, spec, c)
	if err != nil {
		return nil, err
	}
	return awake.loaded(sleepy), nil
}

// runConns has as many callers call in both windows, each call alone on its connection. When there are more connections, either most of
// them do nothing, or each worker goes round its share of them.
func runConns(ctx context.Context, spec *Spec, t *Target) (Figures, error) {
	conns, closeAll, err := t.dial(ctx, spec.Callers)
	defer closeAll()
	if err != nil {
		return nil, err
	}
	caller := func(c peers.Conn) peers.Caller { return c.NewCaller(spec.Body) }
	few, err := t.measure(ctx, spec, newCrew(spec.Callers, conns, caller))
	if err != nil {
		return nil, err
	}
	more, closeMore, err := t.dial(ctx, spec.Conns-spec.Callers)
	defer closeMore()
	if err != nil {
		return nil, err
	}
	err = each(len(more), dialers, func(i int) error { return caller(more[i])(ctx, uint64(i)) })
	if err != nil {
		return nil, err
	}
	if spec.Kind == Spread {
		conns = append(conns, more...)
	}
	many, err := t.measure(ctx, spec, newCrew(spec.Callers, conns, caller))
	if err != nil {
		return nil, err
	}
	return few.loaded(many), nil
}

// runCommands goes round all commands in the second window, so that the table's entries have to be found in memory and not in a cache.
func runCommands(ctx context.Context, spec *Spec, t *Target) (Figures, error) {
	c, closeAll, err := t.crewOf(ctx, spec)
	defer closeAll()
	if err != nil {
		return nil, err
	}
	one, err := t.measure(ctx, spec, c)
	if err != nil {
		return nil, err
	}
	if _, err = t.Server.Do(gauge.Order{Op: gauge.OpRegister, N: spec.Commands}); err != nil {
		return nil, err
	}
	conns, closeMore, err := t.dial(ctx, spec.Conns)
	defer closeMore()
	if err != nil {
		return nil, err
	}
	namer, ok := conns[0].(peers.Namer)
	if !ok {
		return nil, fmt.Errorf("%s registers no commands", t.Peer.Name)
	}
	many, err := t.measure(ctx, spec, newCrew(spec.Callers, conns, func(peers.Conn) peers.Caller {
		return namer.NewNamedCaller(spec.Body, spec.Commands)
	}))
	if err != nil {
		return nil, err
	}
	return one.loaded(many), nil
}
