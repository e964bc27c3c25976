package session

import (
	"sync"
	"time"

	"gobnode/internal/wire"
)

// Workers are goroutines that do one thing after the other: they read sessions and serve the calls on them. A fresh goroutine for
// each call would spend a quarter of the server's time growing its stack, and one for each session of a few calls as much. They
// are shared by all sessions of an endpoint, so that a session that was only just set up, or has a call now and then, finds warm ones.
//
// There is no queue and no fixed number of them: in either, calls that call back would wait for each other. There is never one
// more than things are done at once. The zero value is ready. Those that wait are let go after a while, and when the last who
// holds them has released them.
type Workers struct {
	mu    sync.Mutex // guards following
	users int
	idle  []*worker  // the one that was busy last is the last
	young []*Session // without a timer of their own: see watchYoung
	timer *time.Timer
	armed bool // timer is set: to within coolTime
}

type worker struct {
	next chan job  // room for one; closed when there will be none
	idle time.Time // since then, or before; zero if it was not noticed yet
}

// A job is what a worker does: f, if not nil, which reports whether the goroutine may be used again; or to serve st, or else to
// read s.
type job struct {
	s  *Session
	st *Stream
	f  func() bool
}

func (j job) run() (again bool) {
	switch {
	case j.f != nil:
		return j.f()
	case j.st != nil:
		j.s.serveOn(j.st)
		return true
	}
	return j.s.readLoop(false)
}

// Hold keeps idle workers until Release.
func (p *Workers) Hold() {
	p.mu.Lock()
	p.users++
	p.mu.Unlock()
}

// Release undoes a Hold. Without users no worker waits.
func (p *Workers) Release() {
	p.mu.Lock()
	var idle []*worker
	if p.users--; p.users == 0 {
		idle, p.idle = p.idle, nil
		if p.armed {
			p.armed = !p.timer.Stop()
		}
	}
	p.mu.Unlock()
	for _, w := range idle {
		close(w.next)
	}
}

// Go has a worker run f, which reports whether the goroutine may be used again: it is not to if it waited for long, with a
// stack that has grown.
func (p *Workers) Go(f func() bool) { p.do(job{f: f}) }

// do hands j to the worker that was busy last, whose stack is warm, or to a new one.
func (p *Workers) do(j job) {
	p.mu.Lock()
	n := len(p.idle)
	if n == 0 {
		p.mu.Unlock()
		go p.work(j)
		return
	}
	w := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	w.idle = time.Time{}
	p.mu.Unlock()
	w.next <- j
}

// work does j and then what it is given. It ends when it had nothing to do for a while, or nobody holds p, or a job asks for it.
func (p *Workers) work(j job) {
	var w *worker
	for j.run() {
		if w == nil {
			w = &worker{next: make(chan job, 1)}
		}
		if !p.wait(w) {
			return
		}
		var more bool
		if j, more = <-w.next; !more {
			return
		}
	}
}

// wait has w wait for another job, unless there will be none.
func (p *Workers) wait(w *worker) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users == 0 {
		return false
	}
	p.idle = append(p.idle, w)
	p.arm()
	return true
}

// arm sets the timer if it is not.
func (p *Workers) arm() {
	switch {
	case p.armed:
		return
	case p.timer == nil:
		p.timer = time.AfterFunc(coolTime, p.tick)
	default:
		p.timer.Reset(coolTime)
	}
	p.armed = true
}

// watchYoung has s get a timer of its own within coolTime, unless it has ended: there is nothing to be done for it before. Most
// sessions of a peer that connects for each call never have one: to set it may wake a thread, which costs as much as a system call
// or two.
func (p *Workers) watchYoung(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.young = append(p.young, s)
	s.place = len(p.young)
	p.arm()
}

// forget takes watchYoung back.
func (p *Workers) forget(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.place == 0 {
		return
	}
	last := len(p.young) - 1
	moved := p.young[last]
	p.young[s.place-1], moved.place = moved, s.place
	p.young[last] = nil
	p.young, s.place = p.young[:last], 0
}

// tick is called by the timer.
func (p *Workers) tick() {
	p.mu.Lock()
	young := p.young
	p.young = nil
	for _, s := range young {
		s.place = 0
	}
	p.dismiss()
	p.mu.Unlock()
	for _, s := range young {
		s.growUp()
	}
}

// dismiss lets those go that have been idle for coolTime.
func (p *Workers) dismiss() {
	now := time.Now()
	keep := p.idle[:0]
	for _, w := range p.idle {
		if w.idle.IsZero() {
			w.idle = now
		}
		if now.Sub(w.idle) >= coolTime {
			close(w.next)
			continue
		}
		keep = append(keep, w)
	}
	clear(p.idle[len(keep):])
	p.idle = keep
	if p.armed = len(keep) > 0; p.armed {
		p.timer.Reset(coolTime)
	} else {
		p.idle = nil
	}
}

// dispatch has the reader keep a stream for itself, or hands it to a worker.
func (s *Session) dispatch(st *Stream) {
	st.dispatched = true
	if st.kind == wire.CallUnary && s.quick() {
		s.keep(st)
		return
	}
	s.toWorker(st)
}

func (s *Session) toWorker(st *Stream) {
	s.enter()
	s.cfg.Workers.do(job{s: s, st: st})
}

// serveOn serves a stream on a worker.
func (s *Session) serveOn(st *Stream) {
	defer s.leave()
	s.serve(st, false)
}

var errNotFinished = &Error{Code: wire.Internal, Outcome: wire.OutcomeFailed, Message: "the handler did not finish"}

// serve has Accept serve one stream, on the reader or not. A handler that leaves without a last word, by runtime.Goexit too, has
// failed.
func (s *Session) serve(st *Stream, reader bool) {
	returned := false
	defer func() {
		if returned && reader && st.loose {
			return // nothing is left to do: serveKept gives it back
		}
		s.mu.Lock()
		s.conclude(st, errNotFinished)
		cancel, inline := st.cancel, st.inline
		st.inline = false
		if st.kind == wire.CallUnary {
			st.taking = false
			s.letGo(st)
			if st.in.doomed {
				st.in.drop()
			}
			s.recycle(st) // nobody but Accept knew of it
		}
		s.settle(inline)
		free(cancel)
	}()
	s.cfg.Accept(st)
	returned = true
}

// startReading has a worker read the session, or a goroutine of its own where it has none. It ends when another one takes the
// reading over, or with the session.
func (s *Session) startReading() {
	s.enter()
	if p := s.cfg.Workers; p != nil {
		p.do(job{s: s})
	} else {
		go s.readLoop(false)
	}
}

// enter counts a goroutine of the session's.
func (s *Session) enter() { s.alive.Add(1) }

// leave counts one less. The session itself counts as one until everybody has been woken.
func (s *Session) leave() {
	if s.alive.Add(-1) > 0 {
		return
	}
	if s.cfg.Workers != nil {
		s.cfg.Workers.Release()
	}
	s.gone.happen()
	if f := s.cfg.OnGone; f != nil {
		f()
	}
}
