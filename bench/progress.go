package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// progress tells what is running and how long the rest takes: on a line of its own that changes, or, where w is no terminal, on a line
// every ten seconds.
type progress struct {
	w           io.Writer
	terminal    bool
	began       time.Time
	total, done time.Duration // estimated
	told        time.Time
}

func newProgress(w io.Writer, total time.Duration) *progress {
	p := &progress{w: w, began: time.Now(), total: total}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *progress) show(round, rounds int, cell, peer string) {
	which := fmt.Sprintf("round %d of %d", round, rounds)
	if round > rounds {
		which = fmt.Sprintf("extra round %d", round-rounds) // for samples that were dropped
	}
	line := fmt.Sprintf("%s  %-20s %-12s  %v left", which, cell, peer, p.left().Round(time.Second))
	switch {
	case p.terminal:
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
	case time.Since(p.told) >= 10*time.Second:
		fmt.Fprintln(p.w, line)
		p.told = time.Now()
	}
}

// more says that there is more to do than was thought.
func (p *progress) more(d time.Duration) { p.total += d }

// did says that a part was done, by its estimate.
func (p *progress) did(d time.Duration) { p.done += d }

// left corrects the estimate by how wrong it was so far.
func (p *progress) left() time.Duration {
	rest := p.total - p.done
	if p.done == 0 {
		return rest
	}
	return time.Duration(float64(rest) * float64(time.Since(p.began)) / float64(p.done))
}

func (p *progress) end() {
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
