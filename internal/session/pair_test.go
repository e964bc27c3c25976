package session_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"gobnode/internal/memnet"
	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// logBook is a slog.Handler's writer that tests read.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// count returns how many lines name the limit.
func (l *logBook) count(limit session.Limit) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), "limit="+limit.String()+" ")
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// pair is two sessions over a connection in memory.
type pair struct {
	a, b       *session.Session // a dialled
	ca, cb     *memnet.Conn
	logA, logB *logBook
}

// newPair connects two sessions. Their log is theirs.
func newPair(a, b session.Config) *pair {
	p := &pair{logA: new(logBook), logB: new(logBook)}
	p.ca, p.cb = memnet.Pipe()
	p.start(a, b)
	return p
}

func (p *pair) start(a, b session.Config) {
	a.Dialer = true
	a.Logger, b.Logger = p.logA.logger(), p.logB.logger()
	p.a, p.b = session.New(p.ca, a), session.New(p.cb, b)
}

func (p *pair) close() {
	p.a.Close()
	p.b.Close()
}

// in runs f in a bubble and requires that nothing is left when it ends.
func in(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// echo serves every kind of call by sending back what comes. The command FAIL fails, WAIT waits for its context.
func echo(st *session.Stream) {
	ctx := st.Context()
	switch {
	case st.Name() == "FAIL":
		st.Finish(&session.Error{Code: wire.Internal, Outcome: wire.OutcomeFailed, Message: "as asked", Pairs: []string{"k", "v"}})
	case st.Name() == "WAIT":
		<-ctx.Done()
		st.Finish(&session.Error{Code: wire.Canceled, Outcome: wire.OutcomeFailed, Message: "gone"})
	case st.Kind() == wire.CallUnary:
		var msg []byte
		err := st.Receive(ctx, func(b []byte) error { msg = append(msg, b...); return nil })
		if err != nil {
			st.Finish(asError(err))
			return
		}
		if err := st.Reply(func(b []byte) ([]byte, error) { return append(b, msg...), nil }); err != nil {
			st.Finish(asError(err))
		}
	case st.Kind() == wire.CallStream:
		for {
			err := st.Receive(ctx, func(b []byte) error { return st.Send(ctx, b) })
			if err != nil {
				st.Finish(asError(err))
				return
			}
		}
	default:
		buf := make([]byte, 1000)
		for {
			n, err := st.Read(ctx, buf)
			if err == nil {
				_, err = st.Write(ctx, buf[:n])
			}
			if err != nil {
				st.Finish(asError(err))
				return
			}
		}
	}
}

// asError is err as a last word: nil for the end of the stream.
func asError(err error) *session.Error {
	var e *session.Error
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &e):
		return &session.Error{Code: e.Code, Outcome: wire.OutcomeFailed, Message: e.Message}
	}
	return &session.Error{Code: wire.Internal, Outcome: wire.OutcomeFailed, Message: err.Error()}
}

// call makes a unary call.
func call(ctx context.Context, s *session.Session, name string, msg []byte) ([]byte, error) {
	var reply []byte
	err := s.Call(ctx, &session.CallSpec{Name: name},
		func(b []byte) ([]byte, error) { return append(b, msg...), nil },
		func(b []byte) error { reply = append([]byte{}, b...); return nil })
	return reply, err
}

// requireError requires an *Error of this code and outcome.
func requireError(t testing.TB, err error, code wire.Code, outcome wire.Outcome) {
	t.Helper()
	_ = asCall(t, err, code, outcome)
}

// asCall is requireError and returns the error.
func asCall(t testing.TB, err error, code wire.Code, outcome wire.Outcome) *session.Error {
	t.Helper()
	var e *session.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.Code, "code of: %v", err)
	require.Equal(t, outcome, e.Outcome, "outcome of: %v", err)
	return e
}

// contextIn returns the test's context with d left.
func contextIn(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
