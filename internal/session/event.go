package session

import "sync"

// An event happens once. Its channel, 112 bytes that few sessions need of each of their four, is made for the first who waits.
type event struct {
	mu       sync.Mutex
	c        chan struct{}
	happened bool
}

// wait returns a channel that is closed when the event has happened.
func (e *event) wait() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.c == nil {
		e.c = make(chan struct{})
		if e.happened {
			close(e.c)
		}
	}
	return e.c
}

// happen may be called more than once.
func (e *event) happen() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.happened && e.c != nil {
		close(e.c)
	}
	e.happened = true
}
