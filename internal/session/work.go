package session

import (
	"time"

	"gobnode/internal/wire"
)

// A worker is a goroutine that serves one call after the other. A fresh goroutine for each would spend a quarter of the
// server's time growing its stack.
type worker struct {
	next  chan *Stream // room for one; closed when there will be none
	since time.Time    // idle since; zero if it was not noticed yet
}

// dispatch hands a stream to the worker that was idle last, whose stack is warm, or to a new one. There is no queue and no
// fixed number of workers: in either, calls that call back would wait for each other. There is never one more than calls
// are served.
func (s *Session) dispatch(st *Stream) {
	st.dispatched = true
	if st.kind == wire.CallUnary && s.quick() {
		s.keep(st)
		return
	}
	s.toWorker(st)
}

func (s *Session) toWorker(st *Stream) {
	if n := len(s.idle); n > 0 {
		w := s.idle[n-1]
		s.idle[n-1] = nil
		s.idle = s.idle[:n-1]
		w.since = time.Time{}
		w.next <- st
		return
	}
	s.wg.Add(1)
	go s.work(st)
}

// work serves st, if not nil, and then what it is given. It ends with the session, or after it had nothing to do for a while.
func (s *Session) work(st *Stream) {
	defer s.wg.Done()
	s.workOn(st)
}

func (s *Session) workOn(st *Stream) {
	w := &worker{next: make(chan *Stream, 1)}
	if st == nil {
		s.mu.Lock()
		more := s.wait(w)
		s.release(true)
		if !more {
			return
		}
		st = <-w.next
	}
	for ; st != nil; st = <-w.next {
		if !s.serve(st, w) {
			return
		}
	}
}

// wait has w wait for another call, unless there will be none.
func (s *Session) wait(w *worker) bool {
	if s.torn {
		return false
	}
	s.idle = append(s.idle, w)
	return true
}

var errNotFinished = &Error{Code: wire.Internal, Outcome: wire.OutcomeFailed, Message: "the handler did not finish"}

// serve has Accept serve one stream and reports whether the worker is to wait for another; w is nil on the reader. A handler that leaves without
// a last word, by runtime.Goexit too, has failed.
func (s *Session) serve(st *Stream, w *worker) (again bool) {
	returned := false
	defer func() {
		if returned && w == nil && st.loose {
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
		again = returned && w != nil && s.wait(w)
		s.settle(inline)
		free(cancel)
	}()
	s.cfg.Accept(st)
	returned = true
	return
}

// dismiss ends the workers that have been idle for too long.
func (s *Session) dismiss(now time.Time) {
	keep := s.idle[:0]
	for _, w := range s.idle {
		if w.since.IsZero() {
			w.since = now
		}
		if now.Sub(w.since) >= coolTime {
			close(w.next)
			continue
		}
		keep = append(keep, w)
	}
	clear(s.idle[len(keep):])
	s.idle = keep
}
