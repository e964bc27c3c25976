package peers

import (
	"context"
	"errors"
	"net"
	"net/rpc"

	"gobnode/bench/internal/echo"
)

// NetRPC is the name of the baseline.
const NetRPC = "net/rpc"

func netRPC() *Peer {
	return &Peer{
		Name: NetRPC,
		NewServer: func(h *echo.Handler) (Server, error) {
			s := rpc.NewServer()
			return rpcServer{s}, s.RegisterName("Echo", rpcEcho{h})
		},
		Dial: func(ctx context.Context, addr string) (Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			return rpcConn{rpc.NewClient(c)}, nil
		},
	}
}

type rpcEcho struct{ h *echo.Handler }

// Call returns its request.
func (e rpcEcho) Call(request, reply *echo.Message) error {
	e.h.Pause()
	*reply = *request
	return nil
}

type rpcServer struct{ s *rpc.Server }

func (s rpcServer) Serve(l net.Listener) error {
	s.s.Accept(l)
	return errors.New("net/rpc accepts no more")
}

type rpcConn struct{ c *rpc.Client }

func (c rpcConn) Close() error { return c.c.Close() }

func (c rpcConn) NewCaller(body int) Caller {
	m := echo.New(body)
	return func(_ context.Context, id uint64) error {
		m.ID = id
		var reply echo.Message
		if err := c.c.Call("Echo.Call", m, &reply); err != nil {
			return err
		}
		return m.Check(reply.ID, reply.Name, reply.Body, reply.Tags)
	}
}
