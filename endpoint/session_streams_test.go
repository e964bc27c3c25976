package endpoint_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type numbered struct {
	Stream, N int
	Data      []byte
}

const (
	bounce endpoint.StreamCommand[numbered, numbered] = "BOUNCE" // sends and receives at once, as many as the first message says
	stall  endpoint.StreamCommand[numbered, numbered] = "STALL"  // never receives, sends until it cannot
)

// block is bytes that only this message of this stream has.
func block(stream, i, size int) numbered {
	m := numbered{Stream: stream, N: i, Data: make([]byte, size)}
	for k := range m.Data {
		m.Data[k] = byte(stream*31 + i*7 + k)
	}
	return m
}

func streamCommands(e *endpoint.Endpoint) {
	echoStream.Handle(e, func(_ context.Context, s *endpoint.Stream[line, line]) error {
		for l, err := range s.All() {
			if err != nil {
				return err
			}
			switch l.Text {
			case "fail":
				return endpoint.Errorf(endpoint.NotFound, "as asked")
			case "panic":
				panic("a secret")
			}
			if err := s.Send(l); err != nil {
				return err
			}
		}
		return nil
	})
	bounce.Handle(e, func(_ context.Context, s *endpoint.Stream[numbered, numbered]) error {
		first, err := s.Recv()
		if err != nil {
			return err
		}
		sent := make(chan error, 1)
		go func() { sent <- sendBlocks(s, first.Stream, first.N, len(first.Data)) }()
		err = receiveBlocks(s, first.Stream, first.N, len(first.Data))
		if err := <-sent; err != nil {
			return err
		}
		return err
	})
	stall.Handle(e, func(ctx context.Context, s *endpoint.Stream[numbered, numbered]) error {
		for i := 0; ; i++ {
			if err := s.Send(block(0, i, 1000)); err != nil {
				return err
			}
		}
	})
}

func sendBlocks(s interface{ Send(numbered) error }, stream, n, size int) error {
	for i := range n {
		if err := s.Send(block(stream, i, size)); err != nil {
			return err
		}
	}
	return nil
}

// receiveBlocks receives n blocks in order and then the end.
func receiveBlocks(s interface{ Recv() (numbered, error) }, stream, n, size int) error {
	for i := range n {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		if want := block(stream, i, size); m.Stream != stream || m.N != i || !bytes.Equal(m.Data, want.Data) {
			return endpoint.Errorf(endpoint.DataLoss, "message %d of stream %d is %d of %d", i, stream, m.N, m.Stream)
		}
	}
	if _, err := s.Recv(); err != io.EOF { //nolint:errorlint // Recv returns it as it is
		return endpoint.Errorf(endpoint.DataLoss, "no end after %d messages: %v", n, err)
	}
	return nil
}

// exchange sends n blocks while it receives n.
func exchange(ctx context.Context, to endpoint.Caller, stream, n, size int) error {
	s, err := bounce.Open(ctx, to)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		err := s.Send(block(stream, n, size))
		if err == nil {
			err = sendBlocks(s, stream, n, size)
		}
		if err == nil {
			err = s.CloseSend()
		}
		sent <- err
	}()
	err = receiveBlocks(s, stream, n, size)
	if err := <-sent; err != nil {
		return err
	}
	return err
}

// streamCallers runs f on every Caller that can open streams.
func streamCallers(t *testing.T, register func(*endpoint.Endpoint), f func(t *testing.T, n *node, to endpoint.Caller)) {
	t.Run("Client", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := memNode(t, register)
			f(t, n, dialNode(t, n, nil))
		})
	})
	t.Run("Endpoint", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(register)
			defer func() { assert.NoError(t, n.Close()) }()
			f(t, n, n.Endpoint)
		})
	})
	t.Run("Peer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			met := make(chan *endpoint.Peer, 1)
			hub := memNode(t, func(e *endpoint.Endpoint) {
				meet.Handle(e, func(ctx context.Context, _ empty) (empty, error) {
					met <- endpoint.PeerFrom(ctx)
					return empty{}, nil
				})
			})
			n := newNode(register)
			c := dialNode(t, hub, &endpoint.Dialer{Endpoint: n.Endpoint, Logger: n.Logger})
			_, err := meet.Call(t.Context(), c, empty{})
			require.NoError(t, err)
			f(t, n, <-met)
		})
	})
}

func TestSessionStreams(t *testing.T) {
	streamCallers(t, streamCommands, func(t *testing.T, n *node, to endpoint.Caller) {
		for _, size := range []int{0, 1, 1000, 300 << 10, 1 << 20} { // larger than the window, at last
			require.NoError(t, exchange(t.Context(), to, 1, 5, size), size)
		}

		s, err := echoStream.Open(t.Context(), to)
		require.NoError(t, err)
		for i := range 3 {
			require.NoError(t, s.Send(line{strconv.Itoa(i)}))
		}
		require.NoError(t, s.Send(line{"fail"}))
		for i := range 3 {
			got, err := s.Recv()
			require.NoError(t, err, "what was sent before the error comes first")
			assert.Equal(t, strconv.Itoa(i), got.Text)
		}
		_, err = s.Recv()
		assertFailed(t, err, endpoint.NotFound, endpoint.OutcomeFailed, "as asked")
		assert.Equal(t, "ECHOSTREAM", failure(t, err).Command)
		_, err = s.Recv()
		assertFailed(t, err, endpoint.NotFound, endpoint.OutcomeFailed, "as asked")
		assert.Error(t, s.Send(line{}))

		s, err = echoStream.Open(t.Context(), to)
		require.NoError(t, err)
		require.NoError(t, s.Send(line{"panic"}))
		_, err = s.Recv()
		assertFailed(t, err, endpoint.Internal, endpoint.OutcomeFailed, "incident")
		assert.NotContains(t, err.Error(), "secret")
		assert.Len(t, n.with("a secret", "ECHOSTREAM"), 1)

		_, err = endpoint.StreamCommand[line, line]("BOUNCE").Open(endpoint.WithHeader(t.Context(), "k", string(make([]byte, 9000))), to)
		assertFailed(t, err, endpoint.ResourceExhausted, endpoint.OutcomeNotRun, "8 KiB")
	})
}

// TestSessionStreamClose: what ends a stream early ends the handler's context
// at once, and nothing is left.
func TestSessionStreamClose(t *testing.T) {
	ends := map[string]func(s *endpoint.Stream[line, line], cancel context.CancelFunc){
		"Close":  func(s *endpoint.Stream[line, line], _ context.CancelFunc) { _ = s.Close() },
		"cancel": func(_ *endpoint.Stream[line, line], cancel context.CancelFunc) { cancel() },
	}
	handlers := make(chan error, 1)
	register := func(e *endpoint.Endpoint) {
		echoStream.Handle(e, func(ctx context.Context, s *endpoint.Stream[line, line]) error {
			<-ctx.Done()
			handlers <- ctx.Err()
			return ctx.Err()
		})
	}
	streamCallers(t, register, func(t *testing.T, n *node, to endpoint.Caller) {
		handlers = make(chan error, 1)
		for name, end := range ends {
			ctx, cancel := context.WithCancel(t.Context())
			s, err := echoStream.Open(ctx, to)
			require.NoError(t, err)
			synctest.Wait()
			begin := time.Now()
			end(s, cancel)
			assert.ErrorIs(t, <-handlers, context.Canceled, name)
			assert.Zero(t, time.Since(begin))
			_, err = s.Recv()
			assert.ErrorIs(t, err, endpoint.Canceled, name)
			assert.ErrorIs(t, s.Send(line{}), endpoint.Canceled, name)
			require.NoError(t, s.Close())
			cancel()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		s, err := echoStream.Open(ctx, to)
		require.NoError(t, err)
		_, err = s.Recv()
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Minute, time.Since(begin))
		assert.Error(t, <-handlers)
	})
}

// TestSessionStreamCloseByHandler: a handler gets out of a Send and a Recv that
// would wait for ever, and its return is what the caller learns.
func TestSessionStreamCloseByHandler(t *testing.T) {
	const fickle endpoint.StreamCommand[line, numbered] = "FICKLE"
	type ends struct{ send, recv, again, ctx error }
	results := make(chan ends, 1)
	register := func(e *endpoint.Endpoint) {
		bounceLine := func(ctx context.Context, s *endpoint.Stream[line, numbered]) error {
			how, err := s.Recv()
			if err != nil {
				return err
			}
			if how.Text == "early" { // after which all that was sent arrives
				if err := s.Send(block(0, 0, 1000)); err != nil {
					return err
				}
				return s.Close()
			}
			sent := make(chan error, 1)
			go func() { sent <- sendBlocks(s, 0, 10_000, 1000) }()
			time.AfterFunc(time.Second, func() { _ = s.Close() })
			var r ends
			_, r.recv = s.Recv()
			r.send = <-sent
			r.again = s.Send(numbered{})
			<-ctx.Done()
			r.ctx = ctx.Err()
			results <- r
			if how.Text == "fail" {
				return endpoint.Errorf(endpoint.ResourceExhausted, "too slow")
			}
			return nil
		}
		fickle.Handle(e, bounceLine)
	}
	streamCallers(t, register, func(t *testing.T, _ *node, to endpoint.Caller) {
		results = make(chan ends, 1)
		for _, how := range []string{"fail", "end", "early"} {
			s, err := fickle.Open(t.Context(), to)
			require.NoError(t, err)
			require.NoError(t, s.Send(line{how}))
			if how != "early" {
				begin := time.Now()
				r := <-results
				assert.Equal(t, time.Second, time.Since(begin), "it waited for this caller")
				for _, err := range []error{r.send, r.recv, r.again} {
					assertFailed(t, err, endpoint.Canceled, endpoint.OutcomeUnknown, "given up by the handler")
				}
				assert.ErrorIs(t, r.ctx, context.Canceled)
			}
			var last error
			n := 0
			for m, err := range s.All() {
				last = err
				if err == nil {
					assert.Equal(t, block(0, n, 1000), m)
					n++
				}
			}
			switch how {
			case "fail":
				assertFailed(t, last, endpoint.ResourceExhausted, endpoint.OutcomeFailed, "too slow")
			case "end": // inside a message, if the last one was cut; a success would be a lie then
				if last != nil {
					assertFailed(t, last, endpoint.Internal, endpoint.OutcomeFailed, "inside a message")
				}
			case "early":
				assert.NoError(t, last)
				assert.Equal(t, 1, n)
			}
		}
	})
}

// TestSessionUnreadStreams: streams that nobody receives from, on either side,
// stall themselves only.
func TestSessionUnreadStreams(t *testing.T) {
	streamCallers(t, streamCommands, func(t *testing.T, n *node, to endpoint.Caller) {
		var unread []*endpoint.Stream[numbered, numbered]
		for range 10 {
			s, err := stall.Open(t.Context(), to)
			require.NoError(t, err)
			unread = append(unread, s)
		}
		full := make(chan error, 1)
		go func() { full <- sendBlocks(unread[0], 0, 10_000, 1000) }()
		synctest.Wait()
		assert.Empty(t, full, "nobody receives")
		require.NoError(t, exchange(t.Context(), to, 1, 100, 10_000))
		for _, s := range unread {
			require.NoError(t, s.Close())
		}
		assertFailed(t, <-full, endpoint.Canceled, endpoint.OutcomeUnknown, "")
	})
}

// TestSessionLocalStreams: streams in process take no part in what the network
// has, and end with the endpoint.
func TestSessionLocalStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(streamCommands)
		n.TLS = &tls.Config{}
		n.Limits.Connections = 1
		n.ConnContext = func(context.Context, net.Conn) context.Context { panic("not for calls in process") }
		var open []*endpoint.Stream[line, line]
		for i := range 5 {
			s, err := echoStream.Open(t.Context(), n.Endpoint)
			require.NoError(t, err)
			require.NoError(t, s.Send(line{strconv.Itoa(i)}))
			got, err := s.Recv()
			require.NoError(t, err, "not a connection of Limits.Connections")
			assert.Equal(t, strconv.Itoa(i), got.Text)
			open = append(open, s)
		}
		require.NoError(t, open[0].CloseSend())
		_, err := open[0].Recv()
		require.Equal(t, io.EOF, err)
		require.NoError(t, open[1].Close())
		ended := make(chan error, 1)
		go func() { ended <- n.Shutdown(t.Context()) }()
		synctest.Wait()
		assert.Empty(t, ended, "streams under way are waited for")
		_, err = echoStream.Open(t.Context(), n.Endpoint)
		assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, "closed")
		require.NoError(t, open[2].Send(line{"still"}))
		got, err := open[2].Recv()
		require.NoError(t, err)
		assert.Equal(t, "still", got.Text)
		require.NoError(t, n.Close())
		require.NoError(t, <-ended)
		for _, s := range open[2:] {
			_, err := s.Recv()
			assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeUnknown, "")
		}
	}) // which fails if a goroutine is left
}

// TestSessionLocalInfo: a stream in process knows its peer as a call does.
func TestSessionLocalInfo(t *testing.T) {
	n := newNode(func(e *endpoint.Endpoint) {
		echoStream.Handle(e, func(ctx context.Context, s *endpoint.Stream[line, line]) error {
			_, err := headerCall.Call(ctx, endpoint.PeerFrom(ctx), line{})
			assertFailed(t, err, endpoint.FailedPrecondition, endpoint.OutcomeNotRun, "cannot be called back")
			return s.Send(line{endpoint.PeerFrom(ctx).String()})
		})
	})
	defer func() { assert.NoError(t, n.Close()) }()
	s, err := echoStream.Open(t.Context(), n.Endpoint)
	require.NoError(t, err)
	got, err := s.Recv()
	require.NoError(t, err)
	assert.Equal(t, "local", got.Text)
	require.NoError(t, s.Close())
}

// TestRecvInto: each message is what was sent, whatever the one before it left, and the bytes of large ones are read into the same memory.
func TestRecvInto(t *testing.T) {
	const take endpoint.StreamCommand[numbered, numbered] = "TAKE"
	var got []numbered
	rooms := 0
	register := func(e *endpoint.Endpoint) {
		take.Handle(e, func(_ context.Context, s *endpoint.Stream[numbered, numbered]) error {
			v := numbered{Stream: 99, N: 99, Data: []byte("before")}
			for {
				room := cap(v.Data)
				err := s.RecvInto(&v)
				if err != nil {
					assert.Equal(t, numbered{}, v)
					assert.ErrorIs(t, err, io.EOF)
					return nil
				}
				if cap(v.Data) != room {
					rooms++
				}
				got = append(got, numbered{Stream: v.Stream, N: v.N, Data: bytes.Clone(v.Data)})
			}
		})
	}
	streamCallers(t, register, func(t *testing.T, _ *node, to endpoint.Caller) {
		got, rooms = nil, 0
		s, err := take.Open(t.Context(), to)
		require.NoError(t, err)
		sizes := []int{1000, 100_000, 0, 99_999, 7, 100_000, 300_000}
		for i, size := range sizes {
			require.NoError(t, s.Send(block(0, i, size)))
		}
		require.NoError(t, s.CloseSend())
		_, err = s.Recv()
		require.ErrorIs(t, err, io.EOF)
		require.Len(t, got, len(sizes))
		for i, size := range sizes {
			want := block(0, i, size)
			require.Equal(t, want.N, got[i].N)
			require.True(t, bytes.Equal(want.Data, got[i].Data), "message %d", i)
		}
		require.Equal(t, 3, rooms) // for 1,000, 100,000 and 300,000
	})
}
