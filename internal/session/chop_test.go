package session_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// TestChopped: calls and streams of all sizes, both ways, over connections that cut what they carry anywhere and may break a bit, with
// deadlines, handlers that leave early, and ends: nobody gets wrong bytes, nothing hangs, and nothing stays charged.
func TestChopped(t *testing.T) {
	skipWithoutRaw(t)
	r := newRand(t)
	var landed uint64
	for range count(600, 8) {
		seed := r.Uint64()
		c := newChopped(t, seed)
		landed += c.run()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	require.NotZero(t, landed, "nothing was read to its place")
}

type chopped struct {
	t       *testing.T
	r       *rand.Rand
	a, b    *session.Session
	budgets [2]*session.Budget
	broken  bool // a bit will break
	pipes   sync.WaitGroup
	ends    []net.Conn // of the pipes
	wrong   atomic.Int64
	served  atomic.Uint64
	seed    uint64
}

func newChopped(t *testing.T, seed uint64) *chopped {
	r := randOf(seed)
	c := &chopped{t: t, r: r, seed: seed, broken: r.IntN(4) == 0}
	near, x := sockets(t)
	y, far := sockets(t)
	flips := [2]int{-1, -1}
	if c.broken {
		flips[r.IntN(2)] = 1000 + r.IntN(3_000_000)
	}
	for i, ends := range [][2]net.Conn{{x, y}, {y, x}} {
		r := randOf(r.Uint64())
		c.pipes.Go(func() { chop(r, ends[0], ends[1], flips[i]) })
	}
	c.ends = []net.Conn{x, y}
	c.budgets = [2]*session.Budget{session.NewBudget(256<<20, nil), session.NewBudget([]int64{3 << 20, 256 << 20}[r.IntN(2)], nil)}
	config := func(b *session.Budget) session.Config {
		cfg := session.Config{Accept: c.serve, Budget: b, Logger: new(logBook).logger(), Credit: []int{0, 64 << 10, 4 << 20}[r.IntN(3)]}
		if r.IntN(4) == 0 {
			cfg.Spin = 50 * time.Microsecond
		}
		if r.IntN(3) == 0 {
			cfg.Workers = new(session.Workers)
		}
		return cfg
	}
	dialer := config(c.budgets[0])
	dialer.Dialer = true
	c.a, c.b = session.New(near, dialer), session.New(far, config(c.budgets[1]))
	return c
}

// chop carries bytes from a to b in pieces of any size, and breaks the bit at flip.
func chop(r *rand.Rand, a, b net.Conn, flip int) {
	buf := make([]byte, 256<<10)
	for at := 0; ; {
		n, err := a.Read(buf)
		p := buf[:n]
		if flip >= at && flip < at+n {
			p[flip-at] ^= 1 << r.IntN(8)
		}
		at += n
		for len(p) > 0 {
			m := min(len(p), []int{1 + r.IntN(20), 1 + r.IntN(2000), 1 + r.IntN(70_000), len(p)}[r.IntN(4)])
			if _, err := b.Write(p[:m]); err != nil {
				_, _ = io.Copy(io.Discard, a)
				return
			}
			p = p[m:]
			if r.IntN(16) == 0 {
				time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond)
			}
		}
		if err != nil {
			_ = b.(*net.TCPConn).CloseWrite()
			return
		}
	}
}

// letter is a message that check knows.
func letter(r *rand.Rand) []byte {
	b := make([]byte, 1+[]int{r.IntN(200), r.IntN(40_000), 65_000 + r.IntN(2000), r.IntN(300_000), 1 << 20}[r.IntN(5)])
	b[0] = byte(r.Uint32())
	fill(b[1:], int(b[0])*7919)
	return b
}

func (c *chopped) check(b []byte) error {
	want := make([]byte, len(b))
	want[0] = b[0]
	fill(want[1:], int(b[0])*7919)
	if string(want) != string(b) {
		c.wrong.Add(1)
	}
	return nil
}

// serve echoes, and leaves a stream when it likes.
func (c *chopped) serve(st *session.Stream) {
	r := randOf(c.seed + c.served.Add(1))
	if st.Kind() == wire.CallUnary {
		_ = st.Receive(context.Background(), func(b []byte) error {
			_ = c.check(b)
			switch r.IntN(40) {
			case 0:
				time.Sleep(3 * time.Millisecond)
			case 1:
				_ = st.Context()
			}
			return st.Reply(func(x []byte) ([]byte, error) { return append(x, b...), nil })
		})
		return
	}
	ctx := st.Context()
	for n := r.IntN(12); ; n-- {
		if n == 0 && r.IntN(2) == 0 {
			if r.IntN(2) == 0 {
				st.Stop()
			}
			st.Finish(nil)
			return
		}
		err := st.Receive(ctx, func(b []byte) error {
			if r.IntN(3) == 0 {
				time.Sleep(time.Duration(r.IntN(1000)) * time.Microsecond)
			}
			_ = c.check(b)
			return st.Send(ctx, b)
		})
		if err != nil {
			st.Finish(asError(err))
			return
		}
	}
}

// caller makes calls and streams, some of which have too little time.
func (c *chopped) caller(s *session.Session, r *rand.Rand) {
	for range 3 + r.IntN(10) {
		ctx, cancel := context.WithTimeout(context.Background(), []time.Duration{time.Duration(r.IntN(20)) * time.Millisecond, 20 * time.Second}[r.IntN(2)])
		switch r.IntN(3) {
		case 0:
			for range r.IntN(60) {
				reply, err := call(ctx, s, "X", letter(r)[:1])
				if err != nil {
					break
				}
				_ = c.check(reply)
			}
		case 1:
			if reply, err := call(ctx, s, "X", letter(r)); err == nil {
				_ = c.check(reply)
			}
		default:
			c.stream(ctx, s, r)
		}
		cancel()
	}
}

func (c *chopped) stream(ctx context.Context, s *session.Session, r *rand.Rand) {
	st, err := s.Open(ctx, &session.CallSpec{Name: "S", Kind: wire.CallStream})
	if err != nil {
		return
	}
	var sending sync.WaitGroup
	of := randOf(r.Uint64())
	sending.Go(func() {
		for range of.IntN(8) {
			if st.Send(ctx, letter(of)) != nil {
				return
			}
		}
		_ = st.CloseSend()
	})
	for st.Receive(ctx, c.check) == nil && r.IntN(20) > 0 {
	}
	st.Cancel()
	sending.Wait()
}

// run returns how many frames landed.
func (c *chopped) run() uint64 {
	var callers sync.WaitGroup
	for range 1 + c.r.IntN(6) {
		for _, s := range []*session.Session{c.a, c.b} {
			r := randOf(c.r.Uint64())
			callers.Go(func() { c.caller(s, r) })
		}
	}
	aborted := c.r.IntN(4) == 0
	if aborted {
		s := []*session.Session{c.a, c.b}[c.r.IntN(2)]
		time.AfterFunc(time.Duration(c.r.IntN(60))*time.Millisecond, func() { s.Abort(session.ErrClosed) })
	}
	over := make(chan struct{})
	go func() { callers.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(time.Minute):
		assert.Fail(c.t, "it hangs")
		return 0
	}
	if !c.broken && !aborted {
		assert.NoError(c.t, c.a.Err())
		assert.NoError(c.t, c.b.Err())
	}
	landed := c.a.Stats().Landed + c.b.Stats().Landed
	_ = c.a.Close()
	_ = c.b.Close()
	for _, end := range c.ends {
		_ = end.Close()
	}
	c.pipes.Wait()
	assert.Zero(c.t, c.wrong.Load(), "messages with wrong bytes")
	for _, b := range c.budgets {
		assert.Zero(c.t, b.Used())
	}
	return landed
}
