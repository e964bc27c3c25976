package main

import (
	"fmt"
	"strconv"
	"time"

	"gobnode/bench/internal/load"
	"gobnode/bench/internal/peers"
)

// A cell is one thing that all peers are measured at. To have another: add it to allCells, and a target to targets if it has one. Another
// kind of load is a function in internal/load besides, and a kind here.
type cell struct {
	name  string // what -only matches
	title string
	kind  *kind
	spec  load.Spec
	quick bool // part of a -quick run
	most  int  // rounds, 0 for all of them
}

// A kind is cells that are reported in one table.
type kind struct {
	title   string
	about   string
	columns []column
	ratios  []load.Metric // in which this library is compared with the others
	busy    bool          // the rule about dropped samples holds: see dropped
	who     func(*peers.Peer) bool
}

func allPeers(*peers.Peer) bool { return true }

func everybody(p *peers.Peer) bool { return p.Name != peers.Spinning } // whose set-up is of interest for calls alone

func streamers(p *peers.Peer) bool { return p.Streams && p.Name != peers.GRPCWorkers }

func someFlat(p *peers.Peer) bool {
	return p.Names || p.Name == peers.NetRPC || p.Name == peers.GRPC || p.Name == peers.Bare
}

// The kinds of cell.
var (
	callKind = &kind{
		title: "Calls",
		about: "Callers call back to back and share the connections. drpc has a connection for each caller.",
		columns: []column{
			{"calls/s", load.Rate, count},
			{"p50, µs", load.P50, count},
			{"p99, µs", load.P99, count},
			{"CPU, µs/call", load.CPU, two},
			{"server", load.CPUServer, two},
			{"client", load.CPUClient, two},
			{"allocs/call, server", load.AllocsServer, one},
			{"client", load.AllocsClient, one},
			{"B/call, server", load.BytesServer, count},
			{"client", load.BytesClient, count},
		},
		ratios: []load.Metric{load.Rate, load.CPU}, busy: true, who: allPeers,
	}
	streamKind = &kind{
		title: "Streams",
		about: "Messages one way on one stream, until the receiver has said that it got them all; bare is plain TCP.",
		columns: []column{
			{"MB/s", load.Throughput, count},
			{"CPU, µs/MB", load.CPUPerMB, count},
			{"allocs/message, server", load.AllocsServer, one},
			{"client", load.AllocsClient, one},
			{"B/message, server", load.BytesServer, count},
			{"client", load.BytesClient, count},
		},
		ratios: []load.Metric{load.Throughput, load.CPUPerMB}, who: streamers,
	}
	setUpKind = &kind{
		title: "Connection set-up",
		about: "Workers connect, make one call and close, over and over.",
		columns: []column{
			{"connections/s", load.Rate, count},
			{"p50, µs", load.P50, count},
			{"p99, µs", load.P99, count},
			{"CPU, µs", load.CPU, count},
			{"server", load.CPUServer, count},
			{"allocs, server", load.AllocsServer, count},
			{"client", load.AllocsClient, count},
			{"B, server", load.BytesServer, count},
			{"client", load.BytesClient, count},
		},
		ratios: []load.Metric{load.Rate, load.CPU}, who: everybody,
	}
	idleKind = &kind{
		title: "Idle connections",
		about: "Bytes of the server per connection: heap and stack in use, and resident, after two collections with the free memory given " +
			"back; when it stands, and again when it has carried a call. All of them carry another call afterwards. connect connects with the first call. " +
			"The floor is left out: it waits with its buffers.",
		columns: []column{
			{"heap + stack, B", load.Memory, count},
			{"RSS, B", load.RSS, count},
			{"after a call: heap + stack, B", load.UsedMemory, count},
			{"RSS, B", load.UsedRSS, count},
			{"goroutines", load.Goroutines, one},
		},
		ratios: []load.Metric{load.UsedMemory}, who: func(p *peers.Peer) bool { return !p.Buffers },
	}
	fanInKind = &kind{
		title: "Fan-in",
		about: "Each connection makes a call a second, at a moment of its own.",
		columns: []column{
			{"server CPU, s/s", load.LoadServer, three},
			{"client CPU, s/s", load.LoadClient, three},
			{"calls/s", load.Rate, count},
			{"p50, µs", load.P50, count},
			{"p99, µs", load.P99, count},
			{"server RSS, MB", load.RSS, count},
		},
		ratios: []load.Metric{load.LoadServer}, who: everybody,
	}
	besideKind = &kind{
		title: "Small calls beside a transfer",
		about: "Calls alone, and then beside transfers of 64 MiB in messages of 1 MiB, one after the other, on the same connection. Peers " +
			"without streams, or with one call at a time on a connection, are left out.",
		columns: []column{
			{"calls/s", load.Rate, count},
			{"p50, µs", load.P50, count},
			{"p99, µs", load.P99, count},
			{"beside: calls/s", load.LoadedRate, count},
			{"p50, µs", load.LoadedP50, count},
			{"p99, µs", load.LoadedP99, count},
			{"p99 / (2 × alone + 1 ms)", load.P99Bound, two},
			{"transfer, MB/s", load.Throughput, count},
		},
		ratios: []load.Metric{load.LoadedP99},
		who:    func(p *peers.Peer) bool { return p.Streams && !p.OneCall && !p.Buffers },
	}
	sleepyKind = &kind{
		title: "Slow calls among fast ones",
		about: "One call in 5,000 sleeps for 20 ms in its handler.",
		columns: []column{
			{"calls/s", load.Rate, count},
			{"p99, µs", load.P99, count},
			{"with sleepers: calls/s", load.LoadedRate, count},
			{"share", load.RateShare, two},
			{"p50, µs", load.LoadedP50, count},
			{"p99, µs", load.LoadedP99, count},
		},
		ratios: []load.Metric{load.LoadedRate}, busy: true, who: everybody,
	}
	flatKind = &kind{
		title: "Flatness",
		about: "CPU per call as connections and commands grow. Held: 16 callers on a connection each, without and with 4,984 more that are " +
			"idle. Spread: the same callers go round all 5,000, each on its part, so that every call finds its connection out of the processor's caches; what " +
			"that costs the floor, nobody can save. Commands: 128 callers on one connection call the one that is registered, and then 10,000 in turn.",
		columns: []column{
			{"few: calls/s", load.Rate, count},
			{"CPU, µs/call", load.CPU, two},
			{"many: calls/s", load.LoadedRate, count},
			{"CPU, µs/call", load.LoadedCPU, two},
			{"growth", load.CPUGrowth, two},
		},
		ratios: []load.Metric{load.CPUGrowth}, who: someFlat,
	}
	commandKind = &kind{title: flatKind.title, about: flatKind.about, columns: flatKind.columns, who: func(p *peers.Peer) bool { return p.Names }}
)

// allCells returns the cells, with windows of that length.
func allCells(window time.Duration) []*cell {
	base := load.Spec{Body: 64, Callers: 1, Conns: 1, Window: window, Warm: window/4 + 50*time.Millisecond, Settle: 5 * time.Second}
	var cells []*cell
	add := func(k *kind, name, title string, set func(*load.Spec)) *cell {
		c := &cell{name: name, title: title, kind: k, spec: base}
		set(&c.spec)
		cells = append(cells, c)
		return c
	}
	for _, body := range []int{64, 1 << 10, 64 << 10} {
		for _, callers := range []int{1, 16, 128, 1024} {
			c := add(callKind, fmt.Sprintf("calls/%s/%d", size(body), callers), plural(callers, "caller"), func(s *load.Spec) {
				s.Kind, s.Body, s.Callers = load.Calls, body, callers
			})
			c.quick = body == 64
		}
		c := add(callKind, fmt.Sprintf("calls/%s/64over16", size(body)), "64 callers over 16 connections", func(s *load.Spec) {
			s.Kind, s.Body, s.Callers, s.Conns = load.Calls, body, 64, 16
		})
		c.quick = body == 64
	}
	for _, n := range []int{32 << 10, 1 << 20} {
		c := add(streamKind, "streams/"+size(n), "messages of "+spaced(n), func(s *load.Spec) { s.Kind, s.Size = load.Streams, n })
		c.quick = true
	}
	for _, workers := range []int{1, 8} {
		c := add(setUpKind, "set-up/"+strconv.Itoa(workers), plural(workers, "worker"), func(s *load.Spec) { s.Kind, s.Callers = load.SetUp, workers })
		c.quick = workers == 8
	}
	for _, callers := range []int{1, 16} {
		add(besideKind, "beside/"+strconv.Itoa(callers), plural(callers, "caller"), func(s *load.Spec) {
			s.Kind, s.Callers, s.Size, s.Transfer = load.Beside, callers, 1<<20, 64<<20
		})
	}
	add(sleepyKind, "sleepy/128", "128 callers", func(s *load.Spec) {
		s.Kind, s.Callers, s.Every, s.Pause = load.Sleepy, 128, 5000, 20*time.Millisecond
	}).quick = true
	add(flatKind, "flat/held", "16 and 5,000 connections, 16 of them in use", func(s *load.Spec) { s.Kind, s.Callers, s.Conns = load.Held, 16, 5000 })
	add(flatKind, "flat/spread", "16 and 5,000 connections, all in use", func(s *load.Spec) { s.Kind, s.Callers, s.Conns = load.Spread, 16, 5000 })
	add(commandKind, "flat/commands", "1 and 10,000 commands", func(s *load.Spec) { s.Kind, s.Callers, s.Commands = load.Commands, 128, 10_000 })
	add(fanInKind, "fan-in/5000", "5,000 connections", func(s *load.Spec) {
		s.Kind, s.Conns, s.Warm, s.Window = load.FanIn, 5000, time.Second, max(2*time.Second, 2*window)
	})
	// Memory hardly varies, and a round of it takes a minute and a half.
	add(idleKind, "idle/15000", "15,000 connections", func(s *load.Spec) { s.Kind, s.Conns = load.Idle, 15_000 }).most = 3
	return cells
}

// size is a number of bytes in a cell's name.
func size(n int) string {
	switch {
	case n >= 1<<20:
		return strconv.Itoa(n>>20) + "MiB"
	case n >= 1<<10:
		return strconv.Itoa(n>>10) + "KiB"
	}
	return strconv.Itoa(n) + "B"
}

// spaced is the same in a title.
func spaced(n int) string {
	s := size(n)
	unit := len(s) - 1
	for unit > 0 && s[unit-1] > '9' {
		unit--
	}
	return s[:unit] + " " + s[unit:]
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return count(float64(n)) + " " + what + "s"
}

// cost is roughly how long a sample takes: what is left of a run is told by it.
func (c *cell) cost() time.Duration {
	const (
		start      = 100 * time.Millisecond // of two processes
		connection = 250 * time.Microsecond // to make, of a thousand
		call       = 100 * time.Microsecond // the same
		drain      = 40 * time.Millisecond  // of callers
	)
	windows := 1
	switch c.spec.Kind {
	case load.Idle:
		return start + time.Duration(c.spec.Conns)*(connection+2*call) + 3*c.spec.Settle
	case load.Sleepy, load.Beside, load.Held, load.Spread, load.Commands:
		windows = 2
	case load.Calls, load.Streams, load.SetUp, load.FanIn:
	}
	return start + time.Duration(c.spec.Conns)*connection + time.Duration(windows)*(c.spec.Warm+c.spec.Window+drain)
}

// limit is when a sample has failed: well above what the slowest peer needs.
func (c *cell) limit() time.Duration { return 20*time.Second + 6*c.cost() }
