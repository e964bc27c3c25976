// Package load is what a client process does to its server: one kind of load a file.
//
// All of them measure in windows. A window begins and ends when no call is under way, with the usage of both processes read at both
// moments: so what is divided by its calls belongs to these calls alone, where reading it in mid-flight would divide by whichever calls
// happened to end inside. The price is that a window runs a little over, until the slowest call is back. Before it comes a warm-up, in
// which every connection and every caller has carried a call: pools, grown stacks and compiled types are part of the steady state. Then
// both processes collect their garbage.
package load

import (
	"context"
	"fmt"
	"time"

	"gobnode/bench/internal/gauge"
	"gobnode/bench/internal/peers"
)

// A Kind is a kind of load.
type Kind string

// The kinds.
const (
	Calls    Kind = "calls"    // Callers call back to back over Conns connections
	Sleepy   Kind = "sleepy"   // Calls without and with one call in Every sleeping for Pause
	Beside   Kind = "beside"   // Calls without and with a transfer of Transfer bytes in messages of Size on their connection
	Held     Kind = "held"     // Calls over Callers connections, without and with others idle, up to Conns altogether
	Spread   Kind = "spread"   // Calls over Callers and over Conns connections, a call at a time on each
	Commands Kind = "commands" // Calls to one and to Commands registered commands
	Streams  Kind = "streams"  // messages of Size bytes on one stream
	SetUp    Kind = "set-up"   // Callers connect, make one call and close, over and over
	Idle     Kind = "idle"     // Conns connections do nothing
	FanIn    Kind = "fan-in"   // Conns connections make a call a second each
)

// A Spec says what a sample is of.
type Spec struct {
	Peer string
	Kind Kind

	Body     int           // bytes of a call's message
	Callers  int           // that call at once
	Conns    int           // connections; callers share them, or go round theirs if they are fewer
	Size     int           // bytes of a stream's message
	Transfer int           // bytes of one transfer
	Every    int           // one call in so many sleeps
	Pause    time.Duration // how long it does
	Commands int           // registered

	Warm   time.Duration // before each window
	Window time.Duration // measured
	Settle time.Duration // before idle memory is looked at

	Profile string // if set, where CPU profiles of the windows go: the beginning of their files' names
}

// A Metric is one figure of a sample.
type Metric string

// The metrics. "Server" and "client" are the processes. What is per call is per message set-up or message where the load is of those.
const (
	Rate         Metric = "rate"          // per second: calls, or connections set up
	P50          Metric = "p50"           // µs
	P99          Metric = "p99"           // µs
	CPU          Metric = "cpu"           // µs per call, both processes
	CPUServer    Metric = "cpu-server"    // µs per call
	CPUClient    Metric = "cpu-client"    // µs per call
	AllocsServer Metric = "allocs-server" // per call
	AllocsClient Metric = "allocs-client" // per call
	BytesServer  Metric = "bytes-server"  // allocated per call
	BytesClient  Metric = "bytes-client"  // allocated per call
	Busy         Metric = "busy"          // processors that both processes kept busy
	Throughput   Metric = "throughput"    // MB/s (10⁶ bytes)
	CPUPerMB     Metric = "cpu-mb"        // µs, both processes
	LoadedBusy   Metric = "loaded-busy"   // as Busy, in the second of two windows
	LoadedRate   Metric = "loaded-rate"
	LoadedP50    Metric = "loaded-p50"
	LoadedP99    Metric = "loaded-p99"
	LoadedCPU    Metric = "loaded-cpu"
	RateShare    Metric = "rate-share"  // LoadedRate / Rate
	CPUGrowth    Metric = "cpu-growth"  // LoadedCPU / CPU
	P99Bound     Metric = "p99-bound"   // LoadedP99 / (2 × P99 + 1 ms)
	Memory       Metric = "memory"      // bytes of heap and stack in use per connection, server
	RSS          Metric = "rss"         // bytes per connection, server; for FanIn all of it in MB
	UsedMemory   Metric = "used-memory" // as Memory, after a call on each connection
	UsedRSS      Metric = "used-rss"
	Goroutines   Metric = "goroutines"  // per connection, server
	LoadServer   Metric = "load-server" // processors the server kept busy
	LoadClient   Metric = "load-client" // processors the client kept busy
)

// Figures are what a sample measured.
type Figures map[Metric]float64

// A Target is what is loaded. It is for one goroutine.
type Target struct {
	Peer   *peers.Peer
	Addr   string
	Server *gauge.Remote

	profile string // as of the Spec
	windows int    // so far
}

// Run puts the load of spec on t.
func Run(ctx context.Context, spec *Spec, t *Target) (Figures, error) {
	run, ok := map[Kind]func(context.Context, *Spec, *Target) (Figures, error){
		Calls: runCalls, Sleepy: runSleepy, Beside: runBeside, Held: runConns, Spread: runConns, Commands: runCommands,
		Streams: runStreams, SetUp: runSetUp, Idle: runIdle, FanIn: runFanIn,
	}[spec.Kind]
	if !ok {
		return nil, fmt.Errorf("no kind of load is called %q", spec.Kind)
	}
	t.profile = spec.Profile
	return run(ctx, spec, t)
}

// window is the usage of both processes between two moments at which neither had a call under way.
type window struct {
	began          time.Time
	took           time.Duration
	server, client [2]gauge.Usage
}

// open begins a window with collected heaps on both sides.
func (t *Target) open() (w *window, err error) {
	w = new(window)
	if w.server[0], err = t.Server.Do(gauge.Order{Op: gauge.OpCollect}); err != nil {
		return nil, err
	}
	w.client[0] = gauge.Collected()
	if t.profile != "" {
		err = t.startProfiles()
	}
	w.began = time.Now()
	return w, err
}

// close ends it.
func (t *Target) close(w *window) (err error) {
	w.took = time.Since(w.began)
	w.client[1] = gauge.Read()
	if w.server[1], err = t.Server.Do(gauge.Order{Op: gauge.OpRead}); err != nil || t.profile == "" {
		return err
	}
	if _, err = t.Server.Do(gauge.Order{Op: gauge.OpProfiled}); err != nil {
		return err
	}
	return gauge.StopProfile()
}

// startProfiles begins a profile of each side, in files that tell the window.
func (t *Target) startProfiles() error {
	t.windows++
	name := fmt.Sprintf("%s-%d-", t.profile, t.windows)
	if _, err := t.Server.Do(gauge.Order{Op: gauge.OpProfile, Path: name + "server.pprof"}); err != nil {
		return err
	}
	return gauge.StartProfile(name + "client.pprof")
}

// figures are those per call of a window with n calls.
func (w *window) figures(n int64) Figures {
	per := func(u [2]gauge.Usage) (cpu, allocs, bytes float64) {
		return float64(u[1].CPU-u[0].CPU) / 1e3 / float64(n),
			float64(u[1].Mallocs-u[0].Mallocs) / float64(n),
			float64(u[1].Allocated-u[0].Allocated) / float64(n)
	}
	f := Figures{Rate: float64(n) / w.took.Seconds()}
	f[CPUServer], f[AllocsServer], f[BytesServer] = per(w.server)
	f[CPUClient], f[AllocsClient], f[BytesClient] = per(w.client)
	f[CPU] = f[CPUServer] + f[CPUClient]
	f[Busy] = f[CPU] * f[Rate] / 1e6
	return f
}
