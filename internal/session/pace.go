package session

import (
	"runtime"
	"time"
)

// A reader that has taken the few frames that were there lets others run before it looks for more: where many sessions share the
// processors, more has come meanwhile, and one read and one write serve it. With 4 callers on each of 16 connections it takes 6 %
// of the CPU time away. It does not where nobody else can run, or where a read brings many frames as it is: with 128 callers on
// one connection it costs 7 %. Whether anybody ran is told by the time it took.
const (
	fewFrames = 4
	othersRan = 5 * time.Microsecond
	maxPass   = 31 // reads, after yielding was in vain, before it is tried again; begins with 1
)

// pace is the part of the reader that has to do with it.
type pace struct {
	frames int // that the last read brought
	pass   int // reads before which not to yield
	passed int // ... after the last time in vain
}

// yield is called before a read.
func (p *pace) yield() {
	if p.frames == 0 || p.frames > fewFrames {
		return
	}
	if p.pass > 0 {
		p.pass--
		return
	}
	begin := time.Now()
	runtime.Gosched()
	if time.Since(begin) >= othersRan {
		p.passed /= 2
		return
	}
	p.passed = min(2*p.passed+1, maxPass)
	p.pass = p.passed
}
