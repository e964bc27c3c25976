package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gobnode/bench/internal/load"
	"gobnode/bench/internal/peers"
	"gobnode/bench/internal/process"
)

func TestMain(m *testing.M) {
	process.Main() // the processes of a sample are this program too
	os.Exit(m.Run())
}

// small makes a cell's sample a matter of a few milliseconds.
func small(s load.Spec) load.Spec {
	s.Warm, s.Window, s.Settle = time.Millisecond, 5*time.Millisecond, time.Millisecond
	s.Conns, s.Callers = min(s.Conns, 4), min(s.Callers, 4)
	s.Transfer, s.Commands, s.Every, s.Pause = min(s.Transfer, 2<<20), min(s.Commands, 10), min(s.Every, 50), time.Millisecond
	return s
}

// TestEveryCell runs a sample of each kind of load with every peer that it is for. The loads check every reply.
func TestEveryCell(t *testing.T) {
	p := &plan{rounds: 1, seconds: 0.005, peers: peers.All()}
	seen := make(map[load.Kind]bool)
	for _, c := range allCells(time.Millisecond) {
		if !seen[c.spec.Kind] || c.spec.Kind == load.Calls && c.spec.Body > 1<<10 && c.spec.Callers > 1000 {
			seen[c.spec.Kind] = true
			c.spec = small(c.spec)
			p.cells = append(p.cells, c)
		}
	}
	var told bytes.Buffer
	s, err := p.run(t.Context(), newProgress(&told, p.cost()))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range p.cells {
		for _, peer := range p.of(c) {
			one := s.of(c, peer)
			if one.err != nil {
				t.Errorf("%s: %s: %v", c.name, peer.Name, one.err)
				continue
			}
			for _, col := range c.kind.columns {
				x, ok := one.spread(c, col.metric)
				lazy := peer.Lazy && (col.metric == load.Memory || col.metric == load.RSS)
				if ok == lazy && c.spec.Kind == load.Idle || !ok && c.spec.Kind != load.Idle || x.Median < 0 && c.spec.Kind != load.Idle {
					t.Errorf("%s: %s: %s is %v, %t", c.name, peer.Name, col.metric, x, ok)
				}
			}
		}
	}
	if !strings.Contains(told.String(), " left\n") {
		t.Errorf("no progress was shown: %q", told.String())
	}
	checkReport(t, p, s)
}

// checkReport saves the report of what was measured, twice, into a file that has something else.
func checkReport(t *testing.T, p *plan, s *samples) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "RESULTS.md")
	if err := os.WriteFile(file, []byte("# Results\n\nOther figures.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newReport(p, s, time.Now(), nil)
	for range 2 {
		if err := r.save(file); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]int{"Other figures.": 1, beginMark: 1, endMark: 1, "### Streams": 1, "plots/idle.svg": 1, "| failed": 0} {
		if got := strings.Count(string(text), what); got != want {
			t.Errorf("the report has %q %d times, want %d:\n%s", what, got, want, text)
		}
	}
	rows := 0
	for _, c := range p.cells {
		rows += len(p.of(c))
	}
	tables, _, _ := strings.Cut(string(text), "### Plots")
	_, tables, _ = strings.Cut(tables, "### Calls")
	if got := strings.Count(tables, "\n| ") - len(p.cells); got != rows {
		t.Errorf("%d rows of peers, want %d", got, rows)
	}
	svg, err := os.ReadFile(filepath.Join(filepath.Dir(file), "plots", "idle.svg"))
	if err != nil || !bytes.Contains(svg, []byte("<svg")) || !bytes.Contains(svg, []byte(peers.Gobnode)) {
		t.Errorf("the plot of idle connections: %v, %d bytes", err, len(svg))
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{
		{"-rounds", "-1"},
		{"-seconds", "-1"},
		{"-only", "("},
		{"-only", "nothing"},
		{"-peers", "nobody"},
		{"-unknown"},
		{"more"},
	} {
		if status := run(t.Context(), args, new(bytes.Buffer), new(bytes.Buffer)); status != 2 {
			t.Errorf("%v: exit status %d, want 2", args, status)
		}
	}
	var out bytes.Buffer
	if status := run(t.Context(), []string{"-list"}, &out, &out); status != 0 || !strings.Contains(out.String(), "calls/64KiB/64over16") {
		t.Errorf("-list: exit status %d:\n%s", status, out.String())
	}
	out.Reset()
	if status := run(t.Context(), []string{"-help"}, &out, &out); status != 0 || !strings.Contains(out.String(), "-rounds") {
		t.Errorf("-help: exit status %d:\n%s", status, out.String())
	}
}

// A run of one cell says so in its exit status: none has figures for a target that is met by everything.
func TestRun(t *testing.T) {
	var out, told bytes.Buffer
	profiles := filepath.Join(t.TempDir(), "profiles")
	args := []string{"-rounds", "1", "-seconds", "0.01", "-only", "^calls/64B/16$", "-peers", "net/rpc, bare", "-profile", profiles}
	if status := run(t.Context(), args, &out, &told); status != 0 {
		t.Errorf("exit status %d: %s", status, told.String())
	}
	if got := strings.Count(out.String(), "\n| "); got != 3 {
		t.Errorf("%d rows with the heading, want 3:\n%s", got, out.String())
	}
	for _, name := range []string{"calls-64B-16-bare-1-server.pprof", "calls-64B-16-net-rpc-1-client.pprof"} {
		if info, err := os.Stat(filepath.Join(profiles, name)); err != nil || info.Size() == 0 {
			t.Errorf("profile %s: %v", name, err)
		}
	}
}

// A quick run takes about two minutes and a whole one about an hour, by their own estimate.
func TestCost(t *testing.T) {
	for _, c := range []struct {
		args        []string
		least, most time.Duration
	}{
		{[]string{"-quick"}, time.Minute, 150 * time.Second},
		{nil, 30 * time.Minute, 80 * time.Minute},
	} {
		p, err := parse(c.args, nil, new(bytes.Buffer))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.cost(); got < c.least || got > c.most {
			t.Errorf("%v: %v, want %v to %v", c.args, got, c.least, c.most)
		}
	}
}
