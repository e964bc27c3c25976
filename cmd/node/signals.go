package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// signals turns the first SIGINT or SIGTERM into the end of a context, and the
// second into the end of the process.
type signals struct {
	ch     chan os.Signal
	cancel context.CancelCauseFunc
	stderr io.Writer
}

// catchSignals returns a context that the first signal ends. stop gives the
// signals back to their default.
func catchSignals(ctx context.Context, stderr io.Writer) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &signals{ch: make(chan os.Signal, 2), cancel: cancel, stderr: stderr}
	signal.Notify(s.ch, os.Interrupt, syscall.SIGTERM)
	go s.watch()
	return ctx, func() {
		signal.Stop(s.ch)
		close(s.ch)
		cancel(nil)
	}
}

// watch ends when s.ch is closed. The second signal exits from here, because
// whatever the rest of the program does then, it does not do it fast enough.
func (s *signals) watch() {
	sig, ok := <-s.ch
	if !ok {
		return
	}
	s.cancel(errors.New(signalText(sig)))
	if sig, ok = <-s.ch; ok {
		_, _ = io.WriteString(s.stderr, "node: "+signalText(sig)+" again: ending at once\n")
		os.Exit(exitInterrupted)
	}
}

func signalText(sig os.Signal) string {
	if sig == os.Interrupt {
		return "interrupted by SIGINT"
	}
	return "interrupted by SIGTERM"
}
