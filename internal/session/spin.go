package session

import (
	"runtime"
	"time"
)

// A reader that waits is woken by the system, which takes 20 to 100 µs where the processor has gone to sleep meanwhile: more than
// all the rest of a lone caller's call. With Config.Spin it looks for the answer itself for a while before it waits: the p50 of
// one caller over the loopback falls from 44 µs to 14 if both ends do for 100 µs, at the price of a processor for each.
//
// It does so only behind a read that brought one small frame, which is what a lone caller's calls look like, and spares a read or
// maxSit of them after it has looked in vain. To spare up to 63 kept two ends from ever finding each other: an answer comes in
// time only if both look. 16 and 128 callers on one connection and 64 on 16 cost the same with and without, within the noise.
const (
	maxSpin   = time.Millisecond
	smallRead = 4 << 10
	maxSit    = 3
)

// spinner is the part of the reader that has to do with it.
type spinner struct {
	lone bool // the last read brought one small frame
	sit  int  // reads that are waited for without
	last int  // ... after the last time in vain
}

// spin reads if there is something to read before Config.Spin is over, and reports whether it did. Others that can run do so
// between any two looks.
func (r *reader) spin() (n int) {
	s := r.s
	if !r.lone {
		return 0
	}
	if r.sit > 0 {
		r.sit--
		return 0
	}
	for start := time.Now(); ; {
		n, err := s.raw.tryRead(r.fill)
		if n > 0 {
			r.last = 0
			s.spins.hits.Add(1)
			return n
		}
		if !isAgain(err) {
			return 0 // whoever waits comes upon it too
		}
		if time.Since(start) >= s.cfg.Spin {
			r.last = min(2*r.last+1, maxSit)
			r.sit = r.last
			s.spins.misses.Add(1)
			return 0
		}
		runtime.Gosched()
	}
}
