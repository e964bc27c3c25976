package main

import (
	"fmt"
	"strconv"

	"gobnode/bench/internal/load"
	"gobnode/bench/internal/peers"
	"gobnode/bench/internal/rounds"
)

// leastBusy is the share of a peer's busiest round that each of its rounds must have. With several callers back to back a peer keeps the
// processors equally busy in all rounds, unless something else runs on them. One caller leaves them idle for most of the time, and nothing
// can be told.
const leastBusy = 0.85

// droppedRule is the rule that dropped carries out, for the report.
const droppedRule = "Where several callers call back to back, a sample in which both processes together kept the processors less than 85 % as busy as " +
	"in the busiest round of that peer at that cell is dropped: something else had the machine. Up to half as many rounds are added where samples were. The rule was there before the samples."

// samples are what a run measured.
type samples struct {
	plan *plan
	all  map[*cell]map[string]*series // by the peer's name
}

func newSamples(p *plan) *samples {
	s := &samples{plan: p, all: make(map[*cell]map[string]*series)}
	for _, c := range p.cells {
		s.all[c] = make(map[string]*series)
		for _, peer := range p.of(c) {
			s.all[c][peer.Name] = new(series)
		}
	}
	return s
}

func (s *samples) of(c *cell, p *peers.Peer) *series { return s.all[c][p.Name] }

// find returns the series of a cell and a peer by name, nil if the plan has none.
func (s *samples) find(cellName, peer string) (*cell, *series) {
	for c, all := range s.all {
		if c.name == cellName {
			return c, all[peer]
		}
	}
	return nil, nil
}

// A series is the samples of one peer at one cell, round by round, up to the first that failed.
type series struct {
	figures []load.Figures
	err     error
}

func (s *series) add(f load.Figures, err error) {
	if err != nil {
		s.err = err
		return
	}
	s.figures = append(s.figures, f)
}

// dropped says which rounds are not to be used, by droppedRule.
func (s *series) dropped(c *cell) []bool {
	out := make([]bool, len(s.figures))
	if !c.kind.busy || c.spec.Callers < 2 {
		return out
	}
	for _, m := range []load.Metric{load.Busy, load.LoadedBusy} {
		best := 0.0
		for _, f := range s.figures {
			best = max(best, f[m])
		}
		for i, f := range s.figures {
			out[i] = out[i] || f[m] < leastBusy*best
		}
	}
	return out
}

// spread returns the figures of the rounds that are used; ok is false if there are none.
func (s *series) spread(c *cell, m load.Metric) (r rounds.Spread, ok bool) {
	var xs []float64
	for i, drop := range s.dropped(c) {
		if x, has := s.figures[i][m]; has && !drop {
			xs = append(xs, x)
		}
	}
	if xs == nil {
		return r, false
	}
	return rounds.Of(xs), true
}

// ratio returns own by other, in the rounds that are used of both.
func ratio(c *cell, own, other *series, m load.Metric) (r rounds.Spread, ok bool) {
	if own == nil || other == nil {
		return r, false
	}
	var a, b []float64
	dropOwn, dropOther := own.dropped(c), other.dropped(c)
	for i := range min(len(own.figures), len(other.figures)) {
		x, hasX := own.figures[i][m]
		y, hasY := other.figures[i][m]
		if hasX && hasY && !dropOwn[i] && !dropOther[i] {
			a, b = append(a, x), append(b, y)
		}
	}
	if a == nil {
		return r, false
	}
	return rounds.Ratio(a, b), true
}

// used returns how many rounds are used.
func (s *series) used(c *cell) (n int) {
	for _, drop := range s.dropped(c) {
		if !drop {
			n++
		}
	}
	return n
}

// usedText is the same for a table.
func (s *series) usedText(c *cell) string {
	n := s.used(c)
	if n == len(s.figures) {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d of %d", n, len(s.figures))
}
