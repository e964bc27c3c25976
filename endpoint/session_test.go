package endpoint_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/types"

	"github.com/stretchr/testify/require"
)

type line struct{ Text string }

const (
	echoStream endpoint.StreamCommand[line, line] = "ECHOSTREAM"
	backCall   endpoint.Command[line, line]       = "BACK"
	waitCall   endpoint.Command[line, line]       = "WAIT"
	headerCall endpoint.Command[line, line]       = "HEADER"
)

func sessionEndpoint(t *testing.T) *endpoint.Endpoint {
	t.Helper()
	e := &endpoint.Endpoint{}
	handlers.Register(e)
	echoStream.Handle(e, func(_ context.Context, s *endpoint.Stream[line, line]) error {
		for l, err := range s.All() {
			if err != nil {
				return err
			}
			if l.Text == "fail" {
				return endpoint.Errorf(endpoint.NotFound, "as asked")
			}
			if err := s.Send(line{"got " + l.Text}); err != nil {
				return err
			}
		}
		return nil
	})
	backCall.Handle(e, func(ctx context.Context, l line) (line, error) {
		return backCall.Call(ctx, endpoint.PeerFrom(ctx), line{l.Text + " back"})
	})
	waitCall.Handle(e, func(ctx context.Context, _ line) (line, error) {
		<-ctx.Done()
		return line{}, ctx.Err()
	})
	headerCall.Handle(e, func(ctx context.Context, _ line) (line, error) {
		return line{endpoint.InfoFrom(ctx).Header("user")}, nil
	})
	return e
}

func TestSessionSmoke(t *testing.T) {
	e := sessionEndpoint(t)
	addr := serve(t, e)
	callee := endpoint.New()
	backCall.Handle(callee, func(_ context.Context, l line) (line, error) { return line{l.Text + "!"}, nil })
	d := endpoint.Dialer{Endpoint: callee}
	c, err := d.Dial(t.Context(), addr)
	require.NoError(t, err)

	reply, err := types.Sum.Call(t.Context(), c, types.SumRequest{Numbers: []float64{1, 2, 3}})
	require.NoError(t, err)
	require.InDelta(t, 6, reply.Total, 0)

	_, err = types.Describe.Call(t.Context(), c, types.DescribeRequest{Name: "NOPE"})
	require.ErrorIs(t, err, endpoint.NotFound)
	require.Equal(t, endpoint.OutcomeFailed, endpoint.OutcomeOf(err))

	back, err := backCall.Call(t.Context(), c, line{"there and"})
	require.NoError(t, err)
	require.Equal(t, "there and back!", back.Text)

	h, err := headerCall.Call(endpoint.WithHeader(t.Context(), "user", "me"), c, line{})
	require.NoError(t, err)
	require.Equal(t, "me", h.Text)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	_, err = waitCall.Call(ctx, c, line{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	cancel()

	for name, to := range map[string]endpoint.Caller{"client": c, "endpoint": e} {
		s, err := echoStream.Open(t.Context(), to)
		require.NoError(t, err, name)
		for i := range 100 {
			require.NoError(t, s.Send(line{strconv.Itoa(i)}))
			l, err := s.Recv()
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint("got ", i), l.Text)
		}
		require.NoError(t, s.CloseSend())
		_, err = s.Recv()
		require.Equal(t, io.EOF, err)

		s, err = echoStream.Open(t.Context(), to)
		require.NoError(t, err)
		require.NoError(t, s.Send(line{"fail"}))
		_, err = s.Recv()
		require.ErrorIs(t, err, endpoint.NotFound)
	}

	raw, err := c.Open(t.Context(), types.EchoCommand)
	require.NoError(t, err)
	_, err = raw.WriteString("one\ntwo\n")
	require.NoError(t, err)
	require.NoError(t, raw.CloseWrite())
	b, err := io.ReadAll(raw)
	require.NoError(t, err)
	require.Equal(t, "Message received: one\nMessage received: two\n", string(b))

	_, err = types.Sum.Call(t.Context(), endpoint.PeerFrom(t.Context()), types.SumRequest{})
	require.ErrorIs(t, err, endpoint.FailedPrecondition)

	require.NoError(t, e.Shutdown(t.Context()))
	soon, cancelSoon := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancelSoon()
	_, err = types.Sum.Call(soon, c, types.SumRequest{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
	require.NoError(t, c.Close())
	var told *endpoint.Error
	require.True(t, errors.As(err, &told))
}

func serve(tb testing.TB, e *endpoint.Endpoint) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	go func() { _ = e.Serve(l) }()
	return l.Addr().String()
}
