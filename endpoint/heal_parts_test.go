package endpoint_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBackoff: each wait lies between 0 and what the formula allows, all over
// it.
func TestBackoff(t *testing.T) {
	for failures, most := range map[int]time.Duration{
		1: 100 * time.Millisecond, 2: 160 * time.Millisecond, 3: 256 * time.Millisecond,
		9: 4294967296 * time.Nanosecond, 10: 5 * time.Second, 1000: 5 * time.Second,
	} {
		low, high := time.Hour, time.Duration(0)
		for range 1000 {
			d := endpoint.BackoffDelay(endpoint.Backoff{}, failures)
			low, high = min(low, d), max(high, d)
		}
		assert.GreaterOrEqual(t, low, time.Duration(0))
		assert.Less(t, low, most/10)
		assert.LessOrEqual(t, high, most)
		assert.Greater(t, high, most*9/10)
	}
	own := endpoint.Backoff{Base: time.Second, Factor: 3, Max: 7 * time.Second}
	for failures, most := range map[int]time.Duration{1: time.Second, 2: 3 * time.Second, 3: 7 * time.Second} {
		for range 100 {
			assert.LessOrEqual(t, endpoint.BackoffDelay(own, failures), most)
		}
	}
}

// TestLatencies compares the percentile with the one of a sorted list: it is
// that or up to an eighth more.
func TestLatencies(t *testing.T) {
	rnd := seeded(t)
	for range 200 {
		var l endpoint.Latencies
		var all []time.Duration
		scale := time.Duration(1) << rnd.IntN(36)
		for i := range 20 + rnd.IntN(900) {
			if i < 20 {
				assert.Zero(t, l.P95(), "too few")
			}
			d := time.Duration(rnd.ExpFloat64() * float64(scale))
			l.Add(d)
			all = append(all, d)
		}
		for len(all)%16 != 0 {
			l.Add(scale)
			all = append(all, scale)
		}
		slices.Sort(all)
		exact := all[len(all)-1-len(all)/20]
		assert.GreaterOrEqual(t, l.P95(), exact)
		assert.LessOrEqual(t, l.P95(), exact+exact/8+time.Microsecond)
	}
	var l endpoint.Latencies // a command that becomes slower is known as slow soon
	for range 10_000 {
		l.Add(time.Millisecond)
	}
	for range 500 {
		l.Add(time.Second)
	}
	assert.Greater(t, l.P95(), 900*time.Millisecond)
	for _, d := range []time.Duration{-1, 0, 1<<63 - 1} {
		l.Add(d)
	}
}

// attempts is a dial function of addresses that answer after a time, with an
// error or not.
type attempts struct {
	begin time.Time
	of    map[string]answering

	mu  sync.Mutex // guards following
	log []string
}

type answering struct {
	after time.Duration
	err   error
}

func (a *attempts) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	a.mu.Lock()
	a.log = append(a.log, time.Since(a.begin).String()+" "+addr)
	a.mu.Unlock()
	select {
	case <-time.After(a.of[addr].after):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := a.of[addr].err; err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	_ = far.Close()
	return near, nil
}

// TestRace: which address is tried when, and which one wins.
func TestRace(t *testing.T) {
	const never = time.Hour
	refused := error(syscall.ECONNREFUSED)
	for name, test := range map[string]struct {
		of    map[string]answering
		addrs []string
		hurry bool
		log   []string
		took  time.Duration
		err   error
	}{
		"the first": {
			of: map[string]answering{"a": {100 * time.Millisecond, nil}}, addrs: []string{"a", "b"},
			log: []string{"0s a"}, took: 100 * time.Millisecond,
		},
		"dead and living": {
			of: map[string]answering{"a": {never, nil}}, addrs: []string{"a", "b"},
			log: []string{"0s a", "300ms b"}, took: 300 * time.Millisecond,
		},
		"refused and living": {
			of: map[string]answering{"a": {0, refused}}, addrs: []string{"a", "b"},
			log: []string{"0s a", "0s b"},
		},
		"all refused": {
			of:    map[string]answering{"a": {time.Millisecond, refused}, "b": {0, errors.New("another")}},
			addrs: []string{"a", "b"}, log: []string{"0s a", "1ms b"}, took: time.Millisecond, err: refused,
		},
		"slow": {
			of:    map[string]answering{"a": {350 * time.Millisecond, nil}, "b": {100 * time.Millisecond, nil}},
			addrs: []string{"a", "b"}, log: []string{"0s a", "300ms b"}, took: 350 * time.Millisecond,
		},
		"nobody": {
			of:    map[string]answering{"a": {never, nil}},
			addrs: []string{"a"}, log: []string{"0s a"}, took: time.Second, err: context.DeadlineExceeded,
		},
		"nobody, and a call waits": {
			of:    map[string]answering{"a": {never, nil}},
			addrs: []string{"a"}, hurry: true, took: time.Second, err: context.DeadlineExceeded,
			log: []string{"0s a", "150ms a", "300ms a", "450ms a", "600ms a", "750ms a", "900ms a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &attempts{begin: time.Now(), of: test.of}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				c, err := endpoint.Race(ctx, a.dial, func() bool { return test.hurry }, test.addrs)
				assert.Equal(t, test.took, time.Since(a.begin))
				if test.err == nil {
					require.NoError(t, err)
					require.NoError(t, c.Close())
				} else {
					require.ErrorIs(t, err, test.err)
				}
				a.mu.Lock()
				defer a.mu.Unlock()
				assert.Equal(t, test.log, a.log)
			})
		})
	}
}

// TestHosts: a name becomes the addresses it resolves to.
func TestHosts(t *testing.T) {
	lookup := func(_ context.Context, host string) ([]string, error) {
		if host == "both" {
			return []string{"::1", "127.0.0.1"}, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	for addr, want := range map[string][]string{
		"both:61000": {"[::1]:61000", "127.0.0.1:61000"}, "127.0.0.1:1": {"127.0.0.1:1"}, "[::1]:1": {"[::1]:1"}, ":1": {":1"},
	} {
		got, err := endpoint.Hosts(t.Context(), lookup, addr)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := endpoint.Hosts(t.Context(), lookup, "none:1")
	require.ErrorContains(t, err, "no such host")
	_, err = endpoint.Dial(t.Context(), "no-such-host.invalid:1")
	assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, "")
}

// TestStateText: a state in words.
func TestStateText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for want, s := range map[string]endpoint.State{
			"ready":            {Phase: endpoint.PhaseReady},
			"connecting: gone": {Err: errors.New("gone")},
			"backing off for 1.5s: no room": {
				Phase: endpoint.PhaseBackingOff, Until: time.Now().Add(1500 * time.Millisecond),
				Err: endpoint.Errorf(endpoint.Unavailable, "no room"),
			},
			"draining": {Phase: endpoint.PhaseDraining}, "closed": {Phase: endpoint.PhaseClosed}, "unknown": {Phase: 99},
		} {
			assert.Equal(t, want, s.String())
		}
	})
}

// TestChoice: of many nodes that are alike each is taken as often as any other.
func TestChoice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var addrs []string
		var hosts []*host
		for i := range 10 {
			addrs = append(addrs, string(rune('a'+i))+":1")
			hosts = append(hosts, w.up(addrs[i], func(_ context.Context, j job) (job, error) { time.Sleep(time.Millisecond); return j, nil }))
		}
		c := w.client(endpoint.Dialer{}, addrs...)
		time.Sleep(time.Second)
		rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
		steady(t.Context(), t, c, 10*time.Second)
		for _, h := range hosts {
			assert.InDelta(t, 1000, h.runs.Load(), 200)
		}
	})
}
