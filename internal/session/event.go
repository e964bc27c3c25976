package session

import "sync"

// An event happens once. Its channel, 112 bytes that few sessions need of each of their four, is made for the first who waits.
type event struct {
	mu       sync.Mutex
	c        chan struct{}
	happened bool
}

// past is the channel of every event for which nobody waited before it happened.
var past = make(chan struct{})

func init() { close(past) }

// wait returns a channel that is closed when the event has happened.
func (e *event) wait() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.c == nil {
		if e.happened {
			return past
		}
		e.c = make(chan struct{})
	}
	return e.c
}

// happen may be called more than once. It reports whether it was the first time.
func (e *event) happen() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.happened {
		return false
	}
	e.happened = true
	if e.c != nil {
		close(e.c)
	}
	return true
}
