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
	if n := len(s.idle); n > 0 {
		w := s.idle[n-1]
		s.idle[n-1] = nil
		s.idle = s.idle[:n-1]
		w.since = time.Time{}
		w.next <- st
		return
	}
	s.handlers.Add(1)
	go s.work(st)
}

// work serves st and then what it is given. It ends with the session, or after it had nothing to do for a while.
func (s *Session) work(st *Stream) {
	defer s.handlers.Done()
	w := &worker{next: make(chan *Stream, 1)}
	for ; st != nil; st = <-w.next {
		if !s.serve(st, w) {
			return
		}
	}
}

// serve has Accept serve one stream and reports whether the worker is to wait for another. A handler that leaves without
// a last word, by runtime.Goexit too, has failed.
func (s *Session) serve(st *Stream, w *worker) (again bool) {
	returned := false
	defer func() {
		s.mu.Lock()
		s.conclude(st, &Error{Code: wire.Internal, Outcome: wire.OutcomeFailed, Message: "the handler did not finish"})
		cancel := st.cancel
		if st.kind == wire.CallUnary && st.closed {
			s.recycle(st) // nobody but Accept knew of it
		}
		if again = returned && !s.torn; again {
			s.idle = append(s.idle, w)
			s.watchIdle()
		}
		s.release(true)
		free(cancel)
	}()
	s.cfg.Accept(st)
	returned = true
	return
}

// dismiss ends the workers that have been idle for too long and reports when to look again; zero if none is idle.
func (s *Session) dismiss(now time.Time) time.Time {
	keep := s.idle[:0]
	for _, w := range s.idle {
		if w.since.IsZero() {
			w.since = now
		}
		if now.Sub(w.since) >= workerIdle {
			close(w.next)
			continue
		}
		keep = append(keep, w)
	}
	clear(s.idle[len(keep):])
	s.idle = keep
	if len(keep) == 0 {
		return time.Time{}
	}
	return now.Add(workerIdle)
}
