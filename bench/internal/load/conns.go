package load

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"gobnode/bench/internal/gauge"
	"gobnode/bench/internal/peers"
)

// warmConns and warmCalls are what a server has done before its idle memory is taken for the first time: its pools and tables are there.
const (
	warmConns = 8
	warmCalls = 100
)

// runSetUp connects, calls once and closes.
func runSetUp(ctx context.Context, spec *Spec, t *Target) (Figures, error) {
	one := func(id uint64) error {
		c, err := t.Peer.Dial(ctx, t.Addr)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		return c.NewCaller(spec.Body)(ctx, id)
	}
	c := &crew{workers: make([][]peers.Caller, spec.Callers), made: make([]uint64, spec.Callers)}
	for i := range c.workers {
		c.workers[i] = []peers.Caller{func(_ context.Context, id uint64) error { return one(id) }}
	}
	return t.measure(ctx, spec, c)
}

// runIdle looks at the server's memory before there are connections, when there are, and when each has carried a call.
func runIdle(ctx context.Context, spec *Spec, t *Target) (Figures, error) {
	if err := t.warmUp(ctx, spec); err != nil {
		return nil, err
	}
	settled := func() (gauge.Usage, error) {
		time.Sleep(spec.Settle)
		return t.Server.Do(gauge.Order{Op: gauge.OpSettle})
	}
	before, err := settled()
	if err != nil {
		return nil, err
	}
	conns, closeAll, err := t.dial(ctx, spec.Conns)
	defer closeAll()
	if err != nil {
		return nil, err
	}
	callAll := func() error {
		return each(len(conns), dialers, func(i int) error { return conns[i].NewCaller(spec.Body)(ctx, uint64(i)) })
	}
	f := Figures{}
	per := func(after, before uint64) float64 { return (float64(after) - float64(before)) / float64(spec.Conns) }
	fresh, err := settled()
	if err != nil {
		return nil, err
	}
	if !t.Peer.Lazy {
		f[Memory], f[RSS] = per(fresh.Heap+fresh.Stack, before.Heap+before.Stack), per(fresh.RSS, before.RSS)
	}
	if err = callAll(); err != nil {
		return nil, err
	}
	used, err := settled()
	if err != nil {
		return nil, err
	}
	f[UsedMemory], f[UsedRSS] = per(used.Heap+used.Stack, before.Heap+before.Stack), per(used.RSS, before.RSS)
	f[Goroutines] = per(uint64(used.Goroutines), uint64(before.Goroutines))
	return f, callAll() // they still work, or the sample has failed
}

func (t *Target) warmUp(ctx context.Context, spec *Spec) error {
	conns, closeAll, err := t.dial(ctx, warmConns)
	defer closeAll()
	if err != nil {
		return err
	}
	return each(warmConns, warmConns, func(i int) error {
		call := conns[i].NewCaller(spec.Body)
		for id := range uint64(warmCalls) {
			if err := call(ctx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// runFanIn spreads the calls evenly over the second. A call's time counts from when it is made, not from when it was due: what a timer is
// late by is the runtime's doing and not the peer's.
func runFanIn(ctx context.Context, spec *Spec, t *Target) (Figures, error) {
	conns, closeAll, err := t.dial(ctx, spec.Conns)
	defer closeAll()
	if err != nil {
		return nil, err
	}
	callers := make([]peers.Caller, len(conns))
	err = each(len(conns), dialers, func(i int) error {
		callers[i] = conns[i].NewCaller(spec.Body)
		return callers[i](ctx, uint64(i))
	})
	if err != nil {
		return nil, err
	}
	if _, err = fanIn(ctx, callers, spec.Warm, newLatencies()); err != nil {
		return nil, err
	}
	times := newLatencies()
	w, err := t.open()
	if err != nil {
		return nil, err
	}
	n, err := fanIn(ctx, callers, spec.Window, times)
	if err != nil {
		return nil, err
	}
	if err := t.close(w); err != nil {
		return nil, err
	}
	f := w.figures(n)
	f[P50], f[P99] = times.quantile(50), times.quantile(99)
	f[LoadServer], f[LoadClient] = f[CPUServer]*f[Rate]/1e6, f[CPUClient]*f[Rate]/1e6
	f[RSS] = float64(w.server[1].RSS) / 1e6
	return f, nil
}

// fanIn has each caller call once a second for d, at a moment of its own, and returns how many calls were made.
func fanIn(ctx context.Context, callers []peers.Caller, d time.Duration, times *latencies) (int64, error) {
	var calls atomic.Int64
	var failed firstError
	var wg sync.WaitGroup
	start := time.Now()
	end := start.Add(d)
	for i, call := range callers {
		wg.Go(func() {
			next := start.Add(time.Duration(i) * time.Second / time.Duration(len(callers)))
			for ; next.Before(end) && !failed.any(); next = next.Add(time.Second) {
				time.Sleep(time.Until(next))
				began := time.Now()
				if err := call(ctx, uint64(next.UnixNano())); err != nil {
					failed.set(err)
					return
				}
				times.add(i, time.Since(began))
				calls.Add(1)
			}
		})
	}
	wg.Wait()
	return calls.Load(), failed.get()
}
