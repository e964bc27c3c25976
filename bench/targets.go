package main

import (
	"fmt"
	"io"

	"gobnode/bench/internal/load"
	"gobnode/bench/internal/peers"
	"gobnode/bench/internal/rounds"
)

// A target bounds a figure of this library, or its ratio to a peer's.
type target struct {
	cell   string
	peer   string // "" for a bound on the figure itself
	metric load.Metric
	least  float64 // either this
	most   float64 // or this
}

// targets are what the library is to reach.
var targets = []target{
	{"calls/64B/128", peers.NetRPC, load.Rate, 6, 0},
	{"calls/64B/128", peers.GRPC, load.Rate, 10, 0},
	{"calls/64B/128", peers.NetRPC, load.CPU, 0, 0.2},
	{"calls/64B/128", "", load.AllocsServer, 0, 8},
	{"calls/64B/128", "", load.AllocsClient, 0, 6},
	{"calls/64B/1024", peers.NetRPC, load.Rate, 5, 0},
	{"calls/64B/1024", peers.GRPC, load.Rate, 9, 0},
	{"calls/64B/16", peers.NetRPC, load.Rate, 2.4, 0},
	{"calls/64B/16", peers.GRPC, load.Rate, 4, 0},
	{"calls/64B/64over16", peers.NetRPC, load.Rate, 2, 0},
	{"calls/64B/64over16", peers.GRPC, load.Rate, 4, 0},
	{"calls/64B/1", peers.NetRPC, load.Rate, 1.2, 0},
	{"calls/64B/1", peers.GRPC, load.Rate, 2, 0},
	{"calls/1KiB/128", peers.NetRPC, load.Rate, 3, 0},
	{"calls/64KiB/16", peers.NetRPC, load.Rate, 1.8, 0},
	{"calls/64KiB/128", peers.NetRPC, load.Rate, 1.8, 0},
	{"streams/32KiB", peers.Bare, load.Throughput, 0.6, 0},
	{"streams/32KiB", peers.GRPC, load.Throughput, 2, 0},
	{"streams/1MiB", peers.Bare, load.Throughput, 0.6, 0},
	{"streams/1MiB", peers.GRPC, load.Throughput, 2, 0},
	{"set-up/1", peers.NetRPC, load.Rate, 1.2, 0},
	{"set-up/8", peers.NetRPC, load.Rate, 1.2, 0},
	{"idle/15000", "", load.UsedMemory, 0, 6000},
	{"beside/1", "", load.P99Bound, 0, 1},
	{"beside/16", "", load.P99Bound, 0, 1},
	{"sleepy/128", "", load.RateShare, 0.8, 0},
	{"sleepy/128", "", load.LoadedP99, 0, 3000},
	{"flat/held", "", load.CPUGrowth, 0, 1.25},
	{"flat/spread", peers.Bare, load.CPUGrowth, 0, 1.25},
	{"flat/commands", "", load.CPUGrowth, 0, 1.25},
}

// near is the factor around a bound on a rate within which CPU per call decides, being the steadier figure.
const near = 1.3

// A verdict is what became of a target.
type verdict struct {
	target

	got *rounds.Spread // nil if no round is used, or none of both
	cpu *rounds.Spread // ratio of CPU per call, where that decided: of the peer's to this library's, so that more is better
	met bool
}

// judge gives a verdict on every target whose cell and peers were to be measured.
func judge(s *samples) []verdict {
	var out []verdict
	for _, t := range targets {
		c, own := s.find(t.cell, peers.Gobnode)
		if own == nil {
			continue
		}
		if t.peer == "" {
			out = append(out, t.bound(c, own))
		} else if _, other := s.find(t.cell, t.peer); other != nil {
			out = append(out, t.compare(c, own, other))
		}
	}
	return out
}

// bound judges a figure of this library's own.
func (t target) bound(c *cell, own *series) verdict {
	got, ok := own.spread(c, t.metric)
	if !ok {
		return verdict{target: t}
	}
	return verdict{target: t, got: &got, met: t.within(got.Median)}
}

// compare judges the ratio to a peer.
func (t target) compare(c *cell, own, other *series) verdict {
	got, ok := ratio(c, own, other, t.metric)
	if !ok {
		return verdict{target: t}
	}
	v := verdict{target: t, got: &got, met: t.within(got.Median)}
	if t.least == 0 || got.Median <= t.least/near || got.Median >= t.least*near {
		return v
	}
	decides := load.CPU
	if t.metric == load.Throughput {
		decides = load.CPUPerMB
	}
	if cpu, ok := ratio(c, other, own, decides); ok {
		v.cpu, v.met = &cpu, t.within(cpu.Median)
	}
	return v
}

func (t target) within(x float64) bool {
	if t.least > 0 {
		return x >= t.least
	}
	return x <= t.most
}

// want is the bound as text.
func (t target) want() string {
	what := string(t.metric)
	if t.peer != "" {
		what += " × " + t.peer
	}
	if t.least > 0 {
		return fmt.Sprintf("%s ≥ %v", what, t.least)
	}
	return fmt.Sprintf("%s ≤ %v", what, t.most)
}

// by is how far the deciding figure is on the good side of the bound, as a factor: 1 is on it.
func (v verdict) by() float64 {
	if v.got == nil {
		return 0
	}
	x := v.got.Median
	if v.cpu != nil {
		x = v.cpu.Median
	}
	if v.least > 0 {
		return x / v.least
	}
	return v.most / x
}

func writeVerdicts(w io.Writer, all []verdict) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(w, "\n### Targets\n\nA rate within %v of its bound is decided by CPU per call, the peer's by %s's. The last column is 1 on the bound and more on its good side.\n\n", near, peers.Gobnode)
	fmt.Fprintln(w, "| cell | target | measured | CPU decides | | by |")
	fmt.Fprintln(w, "|---|---|--:|--:|---|--:|")
	for _, v := range all {
		word, got, cpu := "met", "no round", ""
		if !v.met {
			word = "**missed**"
		}
		if v.got != nil {
			got = brackets(*v.got)
		}
		if v.cpu != nil {
			cpu = brackets(*v.cpu)
		}
		fmt.Fprintf(w, "| `%s` | %s | %s | %s | %s | %.2f |\n", v.cell, v.want(), got, cpu, word, v.by())
	}
}
