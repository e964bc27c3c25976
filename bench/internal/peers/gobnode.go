package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	"gobnode/bench/internal/echo"
	"gobnode/endpoint"
)

const (
	call endpoint.Command[echo.Message, echo.Message]     = "ECHO"
	pour endpoint.StreamCommand[echo.Message, echo.Total] = "POUR"
)

// Gobnode is the name of this library among the peers.
const Gobnode = "gobnode"

func gobnode() *Peer {
	return gobnodeAs(Gobnode, "Limits.Calls 2,048 and InFlight 4 GiB for 1,024 callers on one connection, Limits.Connections 20,000 for 15,000 of them", nil, nil)
}

// Spinning is this library with Spin at both ends.
const Spinning = "gobnode-spin"

func spinning() *Peer {
	const spin = 100 * time.Microsecond
	p := gobnodeAs(Spinning, "gobnode with Spin of 100 µs at both ends",
		func(e *endpoint.Endpoint) { e.Spin = spin }, func(d *endpoint.Dialer) { d.Spin = spin })
	p.Streams, p.Names = false, false
	return p
}

// gobnodeAs is this library in a set-up of its own; tune functions may be nil. Another set-up of it is another peer in All, beside this one:
// it then has rows of its own, a column to compare it with, and its share of the rounds.
func gobnodeAs(name, about string, tuneServer func(*endpoint.Endpoint), tuneClient func(*endpoint.Dialer)) *Peer {
	return &Peer{
		Name: name, About: about, Streams: true, Names: true,
		NewServer: func(h *echo.Handler) (Server, error) {
			e := &endpoint.Endpoint{
				Logger: slog.New(slog.DiscardHandler),
				Limits: endpoint.Limits{Connections: 20_000, Calls: 2048, InFlight: 4 << 30},
			}
			if tuneServer != nil {
				tuneServer(e)
			}
			s := &gobnodeServer{Endpoint: e, h: h}
			call.Handle(e, s.call)
			pour.Handle(e, s.pour)
			return s, nil
		},
		Dial: func(ctx context.Context, addr string) (Conn, error) {
			d := &endpoint.Dialer{Logger: slog.New(slog.DiscardHandler)}
			if tuneClient != nil {
				tuneClient(d)
			}
			c, err := d.Dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			return gobnodeConn{c}, nil
		},
	}
}

type gobnodeServer struct {
	*endpoint.Endpoint

	h *echo.Handler
}

func (s *gobnodeServer) call(_ context.Context, m echo.Message) (echo.Message, error) {
	s.h.Pause()
	return m, nil
}

func (s *gobnodeServer) pour(_ context.Context, st *endpoint.Stream[echo.Message, echo.Total]) error {
	var total echo.Total
	var m echo.Message
	for {
		err := st.RecvInto(&m)
		if errors.Is(err, io.EOF) {
			return st.Send(total)
		}
		if err == nil {
			err = total.Take(m.ID, m.Body)
		}
		if err != nil {
			return err
		}
	}
}

func (s *gobnodeServer) Register(n int) {
	for i := range n {
		commandOf(i).Handle(s.Endpoint, s.call)
	}
}

func commandOf(i int) endpoint.Command[echo.Message, echo.Message] {
	return endpoint.Command[echo.Message, echo.Message]("ECHO." + strconv.Itoa(i))
}

type gobnodeConn struct{ c *endpoint.Client }

func (c gobnodeConn) Close() error { return c.c.Close() }

func (c gobnodeConn) NewCaller(body int) Caller {
	m := echo.New(body)
	return func(ctx context.Context, id uint64) error { return c.call(ctx, call, m, id) }
}

func (c gobnodeConn) NewNamedCaller(body, n int) Caller {
	m := echo.New(body)
	names := make([]endpoint.Command[echo.Message, echo.Message], n)
	for i := range names {
		names[i] = commandOf(i)
	}
	return func(ctx context.Context, id uint64) error { return c.call(ctx, names[id%uint64(n)], m, id) }
}

func (c gobnodeConn) call(ctx context.Context, name endpoint.Command[echo.Message, echo.Message], m *echo.Message, id uint64) error {
	m.ID = id
	reply, err := name.Call(ctx, c.c, *m)
	if err != nil {
		return err
	}
	return m.Check(reply.ID, reply.Name, reply.Body, reply.Tags)
}

func (c gobnodeConn) Stream(ctx context.Context, body int) (Stream, error) {
	st, err := pour.Open(ctx, c.c)
	if err != nil {
		return nil, err
	}
	return &gobnodeStream{st: st, m: *echo.New(body)}, nil
}

type gobnodeStream struct {
	st *endpoint.Stream[echo.Total, echo.Message]
	m  echo.Message
}

func (s *gobnodeStream) Send(id uint64) error {
	s.m.ID = id
	return s.st.Send(s.m)
}

func (s *gobnodeStream) Finish() (echo.Total, error) {
	defer func() { _ = s.st.Close() }()
	if err := s.st.CloseSend(); err != nil {
		return echo.Total{}, err
	}
	total, err := s.st.Recv()
	if err != nil {
		return total, err
	}
	if _, err := s.st.Recv(); !errors.Is(err, io.EOF) {
		return total, fmt.Errorf("after the total: %w", err)
	}
	return total, nil
}
