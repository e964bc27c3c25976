package session_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/memnet"
	"gobnode/internal/session"
	"gobnode/internal/wire"
)

func TestUnaryBothWays(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newPair(session.Config{Accept: echo}, session.Config{Accept: echo})
		defer p.close()
		for _, n := range []int{0, 1, 100, wire.MaxPayload - 20, wire.MaxPayload, wire.MaxPayload + 1, 256 << 10, 1 << 20, 4 << 20} {
			msg := bytes.Repeat([]byte{byte(n), 7, 9}, n/3+1)[:n]
			for _, s := range []*session.Session{p.a, p.b} {
				got, err := call(t.Context(), s, "ECHO", msg)
				require.NoError(t, err, n)
				require.True(t, bytes.Equal(msg, got), n)
			}
		}
		_, err := call(t.Context(), p.a, "ECHO", make([]byte, 4<<20+1))
		requireError(t, err, wire.ResourceExhausted, wire.OutcomeNotRun)
	})
}

func TestErrorsCross(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newPair(session.Config{}, session.Config{Accept: echo})
		defer p.close()
		_, err := call(t.Context(), p.a, "FAIL", nil)
		e := asCall(t, err, wire.Internal, wire.OutcomeFailed)
		assert.Equal(t, "as asked", e.Message)
		assert.Equal(t, []string{"k", "v"}, e.Pairs)
		_, err = call(t.Context(), p.b, "ECHO", nil)
		requireError(t, err, wire.Unimplemented, wire.OutcomeNotRun)
	})
}

func TestStreams(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newPair(session.Config{}, session.Config{Accept: echo})
		defer p.close()
		st, err := p.a.Open(t.Context(), &session.CallSpec{Name: "CHAT", Kind: wire.CallStream})
		require.NoError(t, err)
		for _, n := range []int{0, 0, 1, 0, 70000, 500000, 3, 0} {
			msg := bytes.Repeat([]byte{1, 2, 3, 4, 5}, n/5+1)[:n]
			require.NoError(t, st.Send(t.Context(), msg))
			require.NoError(t, st.Receive(t.Context(), func(b []byte) error {
				assert.True(t, bytes.Equal(msg, b), n)
				return nil
			}))
		}
		require.NoError(t, st.CloseSend())
		require.ErrorIs(t, st.Send(t.Context(), nil), session.ErrSendClosed)
		require.Equal(t, io.EOF, st.Receive(t.Context(), nil))
		require.Equal(t, io.EOF, st.Receive(t.Context(), nil))
	})
}

func TestRawStream(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newPair(session.Config{}, session.Config{Accept: echo})
		defer p.close()
		st, err := p.a.Open(t.Context(), &session.CallSpec{Name: "RAW", Kind: wire.CallRaw})
		require.NoError(t, err)
		sent := bytes.Repeat([]byte("0123456789"), 100_000)
		done := make(chan []byte)
		go func() {
			var got []byte
			buf := make([]byte, 7777)
			for {
				n, err := st.Read(t.Context(), buf)
				got = append(got, buf[:n]...)
				if err != nil {
					done <- got
					return
				}
			}
		}()
		n, err := st.Write(t.Context(), sent)
		require.NoError(t, err)
		require.Equal(t, len(sent), n)
		require.NoError(t, st.CloseSend())
		require.True(t, bytes.Equal(sent, <-done))
	})
}

func TestDeadlineTravels(t *testing.T) {
	in(t, func(t *testing.T) {
		left := make(chan time.Duration, 1)
		cause := make(chan error, 1)
		p := newPair(session.Config{}, session.Config{Accept: func(st *session.Stream) {
			d, _ := st.Context().Deadline()
			left <- time.Until(d)
			<-st.Context().Done()
			cause <- context.Cause(st.Context())
			time.Sleep(time.Second) // the caller does not wait for this
			st.Finish(nil)
		}})
		defer p.close()
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := call(ctx, p.a, "SLOW", nil)
		requireError(t, err, wire.DeadlineExceeded, wire.OutcomeUnknown)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1500*time.Millisecond, time.Since(start))
		require.Equal(t, 1500*time.Millisecond, <-left)
		if err := <-cause; !errors.Is(err, context.DeadlineExceeded) { // both sides' time is over at once: the CANCEL may be there first
			requireError(t, err, wire.Canceled, wire.OutcomeUnknown)
		}
		require.Equal(t, 1, p.a.Stats().Open, "the place is free before the last word")
		time.Sleep(2 * time.Second)
		require.Zero(t, p.a.Stats().Open)
	})
}

// TestContextEnds: the end of Config.Context is that of the handlers' contexts, and of nothing else: replies of any size get out.
func TestContextEnds(t *testing.T) {
	for range 20 {
		in(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			p := newPair(session.Config{}, session.Config{Context: ctx, Accept: func(st *session.Stream) {
				own := st.Context()
				cancel()
				<-own.Done()
				assert.NoError(t, st.Reply(func(b []byte) ([]byte, error) { return append(b, make([]byte, 2<<20)...), nil }))
			}})
			defer p.close()
			for range 2 {
				got, err := call(t.Context(), p.a, "X", nil)
				require.NoError(t, err)
				require.Len(t, got, 2<<20)
			}
		})
	}
}

// TestReaderPanics: a panic of the session's own comes to light, instead of a lock that is never free.
func TestReaderPanics(t *testing.T) {
	in(t, func(t *testing.T) {
		a, b := memnet.Pipe()
		defer b.Close()
		s := session.Begin(a, session.Config{})
		defer s.Abort(session.ErrClosed)
		require.Equal(t, "in the reader", s.ReadPanics())
	})
}
