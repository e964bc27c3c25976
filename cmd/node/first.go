package main

import (
	"context"
	"io"
	"time"
)

// answerTime is how long an address may take to answer before the next one is
// tried beside it.
const answerTime = 300 * time.Millisecond

// unanswered is an address that could not be connected to, and why.
type unanswered struct {
	addr string
	err  error
}

// opened is what became of opening a connection to one address.
type opened[T io.Closer] struct {
	c    T
	addr string
	err  error
}

// first opens a connection to the first of addrs that answers: the next one is
// tried when one fails, and after answerTime. ctx bounds the attempts. failed is
// nil after a success, otherwise it has all of addrs.
func first[T io.Closer](ctx context.Context, addrs []string, open func(context.Context, string) (T, error)) (c T, addr string, failed []unanswered) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results, over := make(chan opened[T]), make(chan struct{})
	defer close(over)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next := 0; ; {
		select {
		case <-timer.C:
			go openOne(ctx, addrs[next], open, results, over)
			if next++; next < len(addrs) {
				timer.Reset(answerTime)
			}
		case o := <-results:
			if o.err == nil {
				return o.c, o.addr, nil
			}
			if failed = append(failed, unanswered{o.addr, o.err}); len(failed) == len(addrs) {
				return c, "", failed
			}
			if next < len(addrs) {
				timer.Reset(0)
			}
		}
	}
}

// openOne makes one attempt, and ends with it; ctx bounds it. A connection that
// comes when all is over is closed.
func openOne[T io.Closer](ctx context.Context, addr string, open func(context.Context, string) (T, error), results chan<- opened[T], over <-chan struct{}) {
	c, err := open(ctx, addr)
	select {
	case results <- opened[T]{c, addr, err}:
	case <-over:
		if err == nil {
			_ = c.Close()
		}
	}
}
