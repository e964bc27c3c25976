package main

import (
	"fmt"
	"io"
	"runtime"
	"time"

	"gobnode/bench/internal/rounds"
)

// kept holds the last decoded value, so that decoding allocates it on the heap for every codec alike.
var kept any

// A cost is what an operation took in each round.
type cost struct {
	ns, allocs, bytes []float64
}

// plus is the cost of one operation after another.
func (c cost) plus(d cost) cost {
	return cost{ns: sum(c.ns, d.ns), allocs: sum(c.allocs, d.allocs), bytes: sum(c.bytes, d.bytes)}
}

func sum(a, b []float64) []float64 {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = a[i] + b[i]
	}
	return out
}

// A result is the cost of one codec on one value.
type result struct {
	value, codec         string
	wire                 int // bytes of the message
	encode, decode, both cost
}

// A plan says how long to measure.
type plan struct {
	rounds int
	slice  time.Duration // processor time of one operation in one round
	procs  int           // GOMAXPROCS
}

// run measures all codecs on one value. In every round each codec has its turn, first to encode, then to decode, and every
// round begins with another codec.
func (p plan) run(value string, all []*subject, progress io.Writer) ([]*result, error) {
	timed := make([]*timing, len(all))
	for i, s := range all {
		var err error
		if timed[i], err = p.calibrate(s); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", s.codec, value, err)
		}
	}
	for round := range p.rounds {
		fmt.Fprintf(progress, "\r%-8s round %2d of %d", value, round+1, p.rounds)
		for i := range timed {
			t := timed[(round+i)%len(timed)]
			if err := t.round(); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", t.subject.codec, value, err)
			}
		}
	}
	results := make([]*result, len(all))
	for i, t := range timed {
		results[i] = &result{
			value: value, codec: t.subject.codec, wire: len(t.subject.buffer.b),
			encode: t.encoded, decode: t.decoded, both: t.encoded.plus(t.decoded),
		}
	}
	return results, nil
}

// A timing gathers the costs of one subject.
type timing struct {
	subject          *subject
	encodes, decodes int // a round
	encoded, decoded cost
}

func (p plan) calibrate(s *subject) (*timing, error) {
	t := &timing{subject: s}
	var err error
	if t.encodes, err = p.count(s.encodeTimes); err != nil {
		return nil, err
	}
	t.decodes, err = p.count(s.decodeTimes)
	return t, err
}

// count finds how many operations fill a slice of time, and warms the code up meanwhile.
func (p plan) count(times func(int) error) (int, error) {
	for n := 1; ; n *= 2 {
		start := rounds.CPUTime()
		if err := times(n); err != nil {
			return 0, err
		}
		if d := rounds.CPUTime() - start; d >= p.slice/4 {
			return max(1, int(float64(n)*float64(p.slice)/float64(d))), nil
		}
	}
}

func (t *timing) round() error {
	if err := t.encoded.add(t.encodes, t.subject.encodeTimes); err != nil {
		return err
	}
	return t.decoded.add(t.decodes, t.subject.decodeTimes)
}

// add measures n operations. It begins with a collected heap, so that no codec pays for the garbage of the one before; what the
// collector takes from then on is part of the cost.
func (c *cost) add(n int, times func(int) error) error {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := rounds.CPUTime()
	err := times(n)
	took := rounds.CPUTime() - start
	runtime.ReadMemStats(&after)
	c.ns = append(c.ns, float64(took)/float64(n))
	c.allocs = append(c.allocs, float64(after.Mallocs-before.Mallocs)/float64(n))
	c.bytes = append(c.bytes, float64(after.TotalAlloc-before.TotalAlloc)/float64(n))
	return err
}

func (s *subject) encodeTimes(n int) error {
	for range n {
		if err := s.encode(); err != nil {
			return err
		}
	}
	return nil
}

func (s *subject) decodeTimes(n int) error {
	for range n {
		x, err := s.decode()
		if err != nil {
			return err
		}
		kept = x
	}
	runtime.KeepAlive(kept)
	return nil
}

// ratio is the cost in time of a by that of b, round by round.
func ratio(a, b cost) rounds.Spread { return rounds.Ratio(a.ns, b.ns) }
