package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"gobnode/bench/internal/load"
	"gobnode/bench/internal/peers"
)

// measured returns samples of one cell.
func measured(t *testing.T, name string, figures map[string][]load.Figures) *samples {
	t.Helper()
	p := &plan{rounds: 1}
	for _, c := range allCells(time.Second) {
		if c.name == name {
			p.cells = append(p.cells, c)
		}
	}
	for peer := range figures {
		p.peers = append(p.peers, peers.Find(peer))
	}
	s := newSamples(p)
	for peer, all := range figures {
		for _, f := range all {
			s.of(p.cells[0], peers.Find(peer)).add(f, nil)
		}
	}
	return s
}

func TestDropped(t *testing.T) {
	busy := []load.Figures{{load.Busy: 2, load.Rate: 10}, {load.Busy: 1.71, load.Rate: 9}, {load.Busy: 1.69, load.Rate: 1}}
	other := []load.Figures{{load.Busy: 1, load.Rate: 5}, {load.Busy: 0.5, load.Rate: 5}, {load.Busy: 1, load.Rate: 5}}
	s := measured(t, "calls/64B/128", map[string][]load.Figures{peers.Gobnode: busy, peers.NetRPC: other})
	c, own := s.find("calls/64B/128", peers.Gobnode)
	if got, want := own.dropped(c), []bool{false, false, true}; !slices.Equal(got, want) {
		t.Errorf("dropped = %v, want %v", got, want)
	}
	if got := own.usedText(c); got != "2 of 3" {
		t.Errorf("used %s, want 2 of 3", got)
	}
	if x, ok := own.spread(c, load.Rate); !ok || x.Low != 9 || x.High != 10 {
		t.Errorf("rate %v, %t, want 9 to 10", x, ok)
	}
	_, rpc := s.find("calls/64B/128", peers.NetRPC)
	if x, ok := ratio(c, own, rpc, load.Rate); !ok || x.Low != 2 || x.High != 2 {
		t.Errorf("ratio %v, %t, want 2: of the one round that neither dropped", x, ok)
	}
	for round, want := range map[int]bool{7: true, 8: true, 11: true, 12: false} {
		p := plan{rounds: 8, peers: s.plan.peers}
		if got := p.wants(c, s, round); got != want {
			t.Errorf("round %d of 8 planned: wanted is %t", round, got)
		}
	}
	enough := plan{rounds: 2, peers: s.plan.peers}
	if enough.wants(c, s, 2) {
		t.Error("a round is wanted though each peer has as many as planned")
	}
	alone := measured(t, "calls/64B/1", map[string][]load.Figures{peers.Gobnode: busy})
	c, own = alone.find("calls/64B/1", peers.Gobnode)
	if slices.Contains(own.dropped(c), true) {
		t.Error("a sample of one caller was dropped")
	}
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name            string
		rate, cpu       float64 // of this library; net/rpc has 100 and 20
		met, cpuDecides bool
	}{
		{"far above", 1000, 10, true, false},
		{"far below", 200, 1, false, false},
		{"just above, too much CPU", 610, 4, false, true},
		{"just below, little CPU", 590, 3, true, true},
	} {
		s := measured(t, "calls/64B/128", map[string][]load.Figures{
			peers.Gobnode: {{load.Busy: 2, load.Rate: c.rate, load.CPU: c.cpu}},
			peers.NetRPC:  {{load.Busy: 2, load.Rate: 100, load.CPU: 20}},
		})
		all := judge(s)
		all = slices.DeleteFunc(all, func(v verdict) bool { return v.peer == "" })
		if len(all) != 2 || all[0].metric != load.Rate || all[1].metric != load.CPU {
			t.Fatalf("%s: verdicts %+v", c.name, all)
		}
		if v := all[0]; v.met != c.met || (v.cpu != nil) != c.cpuDecides {
			t.Errorf("%s: %+v", c.name, v)
		}
		if v := all[1]; v.met != (c.cpu <= 4) {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}

// A target without a figure is one that was missed.
func TestNoFigure(t *testing.T) {
	s := measured(t, "calls/64B/128", map[string][]load.Figures{peers.Gobnode: {{load.Busy: 2, load.Rate: 1}}, peers.GRPC: nil})
	i := slices.IndexFunc(judge(s), func(v verdict) bool { return v.peer == peers.GRPC })
	if i < 0 {
		t.Fatal("there is no verdict")
	}
	if v := judge(s)[i]; v.met || v.got != nil || v.by() != 0 {
		t.Errorf("%+v", v)
	}
	r := newReport(s.plan, s, time.Now(), nil)
	var out strings.Builder
	r.write(&out)
	if !strings.Contains(out.String(), "| no round |") {
		t.Error(out.String())
	}
}

// Every target names a cell, a peer and metrics that there are.
func TestTargets(t *testing.T) {
	for _, target := range targets {
		all := allCells(time.Second)
		i := slices.IndexFunc(all, func(c *cell) bool { return c.name == target.cell })
		if i < 0 || target.peer != "" && !all[i].kind.who(peers.Find(target.peer)) || (target.least > 0) == (target.most > 0) {
			t.Errorf("%+v", target)
			continue
		}
		has := func(c column) bool { return c.metric == target.metric }
		if !slices.ContainsFunc(all[i].kind.columns, has) {
			t.Errorf("%+v: its metric is in no column", target)
		}
	}
}

// A peer that fails is a row of its own, and the run is not a good one.
func TestFailedPeer(t *testing.T) {
	s := measured(t, "calls/64B/16", map[string][]load.Figures{peers.NetRPC: nil})
	s.of(s.plan.cells[0], peers.Find(peers.NetRPC)).add(nil, errors.New("it | broke\nat last"))
	r := newReport(s.plan, s, time.Now(), nil)
	var out strings.Builder
	r.write(&out)
	if r.good() || !strings.Contains(out.String(), `| net/rpc | failed: it \| broke at last |`) {
		t.Errorf("good: %t\n%s", r.good(), out.String())
	}
}

func TestCount(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 999.6: "1,000", 1234567: "1,234,567", -1234: "-1,234", -12: "-12"} {
		if got := count(x); got != want {
			t.Errorf("count(%v) = %s, want %s", x, got, want)
		}
	}
}

func TestReplaceSection(t *testing.T) {
	section := beginMark + "new" + endMark
	for _, c := range []struct{ file, want string }{
		{"", section + "\n"},
		{"# A\n", "# A\n\n" + section + "\n"},
		{"# A\n" + beginMark + "old" + endMark + "\n# B\n", "# A\n" + section + "\n# B\n"},
	} {
		if got := replaceSection(c.file, section); got != c.want {
			t.Errorf("in %q: %q, want %q", c.file, got, c.want)
		}
	}
}
