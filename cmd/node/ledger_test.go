package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	node "gobnode/cmd/node"
	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ledgerVariable has the test binary be a node with one command more, which keeps
// a ledger in the file that the variable names.
const ledgerVariable = "NODE_TEST_LEDGER"

// An entry is a call that the ledger knows by its number.
type entry struct {
	ID    int
	Takes time.Duration // between the ledger and the reply
}

const ledger endpoint.Command[entry, entry] = "LEDGER"

// serveLedger is main of such a process. Its entries are written with write(2)
// before the reply goes out: they outlast a SIGKILL. Heartbeats are as frequent as
// they can be.
func serveLedger(path string) int {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return node.RunWith(context.Background(), func(e *endpoint.Endpoint) {
		e.Heartbeat = time.Second
		ledger.Handle(e, func(_ context.Context, call entry) (entry, error) {
			if _, err := file.WriteString(strconv.Itoa(call.ID) + "\n"); err != nil {
				return entry{}, err
			}
			time.Sleep(call.Takes)
			return call, nil
		})
	}, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// A cell is one of the restart matrix: nodes with a ledger, and the calls that a
// Client makes while something happens to them.
type cell struct {
	path string // of the ledger, of all nodes together
	back time.Time

	mu    sync.Mutex // guards following
	calls []*made
	noise time.Duration // that a timer of load's was late, at most
}

// made is a call as its caller saw it.
type made struct {
	began, ended time.Time
	limit        time.Duration
	err          error
}

func newCell(t *testing.T) *cell {
	t.Helper()
	return &cell{path: filepath.Join(t.TempDir(), "ledger")}
}

// fixedAddr is an address to which a node can return: its port is not one that the
// system gives to anybody meanwhile.
func fixedAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(20_000+rand.IntN(12_000)))
		if l, err := net.Listen("tcp", addr); err == nil {
			require.NoError(t, l.Close())
			return addr
		}
	}
	require.FailNow(t, "no free port")
	return ""
}

// start starts a node with the ledger. through, if any, is what runs it. A process
// that another test is about to start holds, for a moment, the sockets that this
// one has just closed: an address in use is tried again.
func (c *cell) start(t *testing.T, addr string, through ...string) *process {
	t.Helper()
	args := append(through, os.Args[0], "-listen", addr)
	for {
		p := &process{cmd: exec.Command(args[0], args[1:]...), ended: make(chan struct{})}
		p.cmd.Env = append(os.Environ(), ledgerVariable+"="+c.path)
		p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
		p.begin(t)
		said := p.stderr.await(t, `time=(\S+) level=INFO `+listening+`|address already in use`)
		if said[1] == "" {
			continue
		}
		at, err := time.Parse("2006-01-02T15:04:05.000Z07:00", said[1])
		require.NoError(t, err)
		c.back = at
		return p
	}
}

// dial connects until the end of the test.
func (c *cell) dial(t *testing.T, d endpoint.Dialer, addrs ...string) *endpoint.Client {
	t.Helper()
	d.Logger = quiet
	client, err := d.Dial(t.Context(), addrs...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// call makes one call, which is given limit.
func (c *cell) call(client *endpoint.Client, limit time.Duration) {
	m := &made{limit: limit}
	c.mu.Lock()
	id := len(c.calls)
	c.calls = append(c.calls, m)
	c.mu.Unlock()
	request := entry{ID: id}
	if id%10 == 0 {
		request.Takes = 100 * time.Millisecond // there is always something under way
	}
	m.began = time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	reply, err := ledger.Call(ctx, client, request)
	m.ended = time.Now()
	if m.err = err; err == nil && reply != request {
		m.err = fmt.Errorf("the reply to %v is %v", request, reply)
	}
}

// load makes calls at a steady rate, however long they take, until stop is called,
// which waits for them.
func (c *cell) load(client *endpoint.Client, perSecond int, limit time.Duration) (stop func()) {
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		const step = 5 * time.Millisecond
		tick := time.NewTicker(step)
		defer tick.Stop()
		begin, n := time.Now(), 0
		for {
			select {
			case at := <-tick.C:
				c.late(time.Since(at))
			case <-over:
				return
			}
			for due := int(time.Since(begin) * time.Duration(perSecond) / time.Second); n < due; n++ {
				wg.Go(func() { c.call(client, limit) })
			}
		}
	})
	return func() {
		close(over)
		wg.Wait()
	}
}

// late takes note of how busy the machine is.
func (c *cell) late(d time.Duration) {
	c.mu.Lock()
	c.noise = max(c.noise, d)
	c.mu.Unlock()
}

// busy is more than a busy machine takes for what takes milliseconds: 4 s were seen,
// with seven programs waiting for each processor. That the times themselves hold is
// shown under fake time, by package endpoint; here they are printed.
const busy = 15 * time.Second

// A tally is what became of the calls of a cell.
type tally struct {
	calls, succeeded, notRun, unknown int
	errors                            map[string]int
	latest                            time.Duration // that a caller was back behind its deadline
	reconnected                       time.Duration // from the node's return to the first success; negative: there was none
}

// judge compares what the callers were told with the ledger: nothing ran twice,
// what succeeded ran once, and what did not run did not.
func (c *cell) judge(t *testing.T) *tally {
	t.Helper()
	text, err := os.ReadFile(c.path)
	require.NoError(t, err)
	runs := make([]int, len(c.calls))
	for line := range strings.Lines(string(text)) {
		id, err := strconv.Atoi(strings.TrimSuffix(line, "\n"))
		require.NoError(t, err)
		runs[id]++
	}
	s := &tally{calls: len(c.calls), errors: make(map[string]int), reconnected: -1}
	for id, m := range c.calls {
		s.latest = max(s.latest, m.ended.Sub(m.began.Add(m.limit)))
		assert.LessOrEqual(t, runs[id], 1, "call %d ran twice", id)
		if m.err == nil {
			s.succeeded++
			assert.Equal(t, 1, runs[id], "call %d succeeded", id)
			if after := m.ended.Sub(c.back); after > 0 && (s.reconnected < 0 || after < s.reconnected) {
				s.reconnected = after
			}
			continue
		}
		s.errors[endpoint.CodeOf(m.err).String()]++
		switch endpoint.OutcomeOf(m.err) {
		case endpoint.OutcomeNotRun:
			s.notRun++
			assert.Zero(t, runs[id], "call %d ran, and its caller was told that it did not: %v", id, m.err)
		case endpoint.OutcomeUnknown:
			s.unknown++
		case endpoint.OutcomeFailed:
			assert.Fail(t, "no handler fails", "call %d: %v", id, m.err)
		}
	}
	t.Logf("%d calls: %d succeeded, %d not_run, %d unknown %v; back by deadline + %v (a timer: + %v); connected again within %v",
		s.calls, s.succeeded, s.notRun, s.unknown, s.errors, max(s.latest, 0), c.noise, s.reconnected)
	require.NotZero(t, s.succeeded)
	assert.Less(t, s.latest, busy, "50 ms, but for the noise of the machine")
	return s
}

// returned checks that calls found the node soon after its return.
func (s *tally) returned(t *testing.T) {
	t.Helper()
	assert.GreaterOrEqual(t, s.reconnected, time.Duration(0), "no call found it")
	assert.Less(t, s.reconnected, busy, "200 ms, but for the noise of the machine")
}
