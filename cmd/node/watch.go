package main

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"time"

	"gobnode/endpoint"
)

// watchTime is how often the round-trip times are looked at. A session measures
// them with each heartbeat.
const watchTime = 250 * time.Millisecond

// A watcher prints what becomes of the nodes, one line for each change:
//
//	2026-11-21T09:00:00.000Z localhost:61000 ready, rtt 212µs
//	2026-11-21T09:00:15.001Z localhost:61000 rtt 184µs
//	2026-11-21T09:00:21.440Z localhost:61000 connecting: the connection broke: unexpected EOF
//	2026-11-21T09:00:21.441Z localhost:61000 backing off: cannot connect to localhost:61000: connection refused
//	2026-11-21T09:00:24.872Z localhost:61000 ready again after 3.432s, rtt 230µs
type watcher struct {
	n     *node
	nodes map[string]*watched
}

// A watched is what was printed of a node last.
type watched struct {
	phase      endpoint.Phase
	why        string // the error
	rtt        time.Duration
	reconnects uint64
	since      time.Time // since when it is not ready; zero while it is, and before it was
}

// watch prints the states of the nodes until ctx ends, which is what it is there
// for, and no failure.
func (n *node) watch(ctx context.Context) error {
	config, err := n.clientTLS()
	if err != nil {
		return err
	}
	d := &endpoint.Dialer{TLS: config, Logger: n.log, Heartbeat: time.Second} // or as seldom as the node wants it
	if !n.verbose {
		d.Logger = slog.New(slog.DiscardHandler) // it would say the same again
	}
	making, cancel := n.within(ctx)
	defer cancel()
	c, err := d.Dial(making, n.addrs...)
	if err != nil {
		return n.cannotConnect(making, []unanswered{{strings.Join(n.addrs, ","), err}})
	}
	defer func() { _ = c.Close() }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	changes := make(chan endpoint.ClientStats)
	go follow(ctx, c, changes)
	tick := time.NewTicker(watchTime)
	defer tick.Stop()
	w := &watcher{n: n, nodes: make(map[string]*watched)}
	for {
		select {
		case s := <-changes:
			err = w.changed(s)
		case <-tick.C:
			err = w.measured(c.Stats())
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// follow passes the changes on. It ends with ctx.
func follow(ctx context.Context, c *endpoint.Client, to chan<- endpoint.ClientStats) {
	for s := range c.Watch(ctx) {
		select {
		case to <- s:
		case <-ctx.Done():
		}
	}
}

// changed prints what is another state than the last.
func (w *watcher) changed(s endpoint.ClientStats) error {
	for _, n := range s.Nodes {
		last := w.nodes[n.Addr]
		first := last == nil
		if first {
			last = new(watched)
			w.nodes[n.Addr] = last
		}
		phase, why := n.State.Phase, ""
		if n.State.Err != nil {
			why = n.State.Err.Error()
		}
		ready := phase == endpoint.PhaseReady
		if !first && phase == last.phase && why == last.why && n.Reconnects == last.reconnects {
			continue
		}
		// A node that is away is connected to again and again: between two failures
		// for the same reason there is nothing to tell.
		if !w.n.verbose && !first && !ready && last.phase == endpoint.PhaseBackingOff && why == last.why {
			continue
		}
		text := w.text(n, last)
		*last = watched{phase: phase, why: why, rtt: n.RTT, reconnects: n.Reconnects, since: last.away(first, ready)}
		if err := w.tell(n.Addr, text); err != nil {
			return err
		}
	}
	return nil
}

// text is what there is to tell about n, of which last is known.
func (w *watcher) text(n endpoint.NodeStats, last *watched) string {
	switch {
	case n.State.Phase != endpoint.PhaseReady && w.n.verbose:
		return n.State.String()
	case n.State.Phase != endpoint.PhaseReady: // the time of one attempt means nothing where the next ones are left out
		text := n.State.Phase.String()
		if n.State.Err != nil {
			text += ": " + brief(n.State.Err)
		}
		return text
	}
	text := n.State.String()
	if n.Reconnects > 0 {
		text += " again"
		if !last.since.IsZero() {
			text += " after " + time.Since(last.since).Round(time.Millisecond).String()
		}
	}
	return text + ", rtt " + rounded(n.RTT)
}

// away returns since when a node is not ready, now that it is or is not.
func (last *watched) away(first, ready bool) time.Time {
	switch {
	case ready:
		return time.Time{}
	case first || last.phase == endpoint.PhaseReady:
		return time.Now()
	}
	return last.since
}

// measured prints round-trip times that are new. Changes of state come by
// changed alone, and in order.
func (w *watcher) measured(s endpoint.ClientStats) error {
	for _, n := range s.Nodes {
		last := w.nodes[n.Addr]
		if last == nil || last.phase != endpoint.PhaseReady || n.State.Phase != endpoint.PhaseReady ||
			n.Reconnects != last.reconnects || n.RTT == last.rtt {
			continue
		}
		last.rtt = n.RTT
		if err := w.tell(n.Addr, "rtt "+rounded(n.RTT)); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) tell(addr, text string) error {
	const milliseconds = "2006-01-02T15:04:05.000Z07:00"
	if _, err := io.WriteString(w.n.stdout, harmless(time.Now().Format(milliseconds)+" "+addr+" "+text)+"\n"); err != nil {
		return cannotPrint(err)
	}
	return nil
}

// rounded is a round-trip time to the microsecond.
func rounded(rtt time.Duration) string { return rtt.Round(time.Microsecond).String() }
