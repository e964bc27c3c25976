package endpoint_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
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

// A world is a network of hosts that come and go, in a bubble.
type world struct {
	t *testing.T

	mu      sync.Mutex
	hosts   map[string]*host
	silent  map[string]bool // answers nothing
	dials   map[string][]time.Time
	journal journal
}

// A host is an endpoint at an address of the world.
type host struct {
	*endpoint.Endpoint
	mem    *memnet.Listener
	served chan error
	runs   atomic.Int64 // of work
}

type job struct{ ID int }

// work is a command whose host counts its runs.
const work endpoint.Command[job, job] = "WORK"

func newWorld(t *testing.T) *world {
	w := &world{t: t, hosts: map[string]*host{}, silent: map[string]bool{}, dials: map[string][]time.Time{}}
	t.Cleanup(func() {
		for addr := range w.hosts {
			w.down(addr)
		}
	})
	return w
}

// up brings a host up. do, which may be nil, is its work; around runs around
// that.
func (w *world) up(addr string, do func(context.Context, job) (job, error), around ...endpoint.Interceptor) *host {
	h := &host{Endpoint: endpoint.New(), mem: memnet.Listen(), served: make(chan error, 1)}
	h.Logger, h.Interceptors = slog.New(slog.DiscardHandler), around
	work.Handle(h.Endpoint, func(ctx context.Context, j job) (job, error) {
		h.runs.Add(1)
		if do == nil {
			return j, nil
		}
		return do(ctx, j)
	})
	go func() { h.served <- h.Serve(h.mem) }()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts[addr] = h
	return h
}

// down kills a host, and returns when those who were connected know.
func (w *world) down(addr string) {
	w.mu.Lock()
	h := w.hosts[addr]
	delete(w.hosts, addr)
	w.mu.Unlock()
	if h != nil {
		assert.NoError(w.t, h.Close())
		assert.ErrorIs(w.t, <-h.served, endpoint.ErrClosed)
		synctest.Wait()
	}
}

// drain ends a host in order.
func (w *world) drain(addr string) {
	w.mu.Lock()
	h := w.hosts[addr]
	delete(w.hosts, addr)
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	assert.NoError(w.t, h.Shutdown(ctx))
	assert.ErrorIs(w.t, <-h.served, endpoint.ErrClosed)
}

// silence has an address not answer, or answer again.
func (w *world) silence(addr string, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent[addr] = on
}

func (w *world) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	w.mu.Lock()
	w.dials[addr] = append(w.dials[addr], time.Now())
	h, silent := w.hosts[addr], w.silent[addr]
	w.mu.Unlock()
	switch {
	case silent:
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
	case h == nil:
		return new(memnet.Listener).Dial(ctx)
	}
	return h.mem.Dial(ctx)
}

// dialled returns when addr was dialled.
func (w *world) dialled(addr string) []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.dials[addr])
}

// client connects to addrs until the test ends.
func (w *world) client(d endpoint.Dialer, addrs ...string) *endpoint.Client {
	w.t.Helper()
	d.NetDial = w.dial
	if d.Logger == nil {
		d.Logger = w.journal.logger()
	}
	c, err := d.Dial(w.t.Context(), addrs...)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { assert.NoError(w.t, c.Close()) })
	return c
}

// within calls work with a deadline.
func within(t *testing.T, c *endpoint.Client, d time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	_, err := work.Call(ctx, c, job{})
	return err
}
