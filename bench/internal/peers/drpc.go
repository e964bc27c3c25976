package peers

import (
	"context"
	"net"

	"gobnode/bench/internal/echo"
	"gobnode/bench/internal/echo/pb"

	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcmux"
	"storj.io/drpc/drpcserver"
)

// DRPC is the name of storj.io/drpc.
const DRPC = "drpc"

func drpcPeer() *Peer {
	return &Peer{
		Name: DRPC, Module: "storj.io/drpc", About: "as many connections as callers: one call at a time each",
		OneCall: true, Streams: true,
		NewServer: func(h *echo.Handler) (Server, error) {
			mux := drpcmux.New()
			return drpcServer{drpcserver.New(mux)}, pb.DRPCRegisterEcho(mux, drpcEcho{h})
		},
		Dial: func(ctx context.Context, addr string) (Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			d := drpcconn.New(c)
			return drpcConn{c: d, stub: pb.NewDRPCEchoClient(d)}, nil
		},
	}
}

type drpcServer struct{ s *drpcserver.Server }

func (s drpcServer) Serve(l net.Listener) error { return s.s.Serve(context.Background(), l) }

type drpcEcho struct{ h *echo.Handler }

func (e drpcEcho) Call(_ context.Context, m *pb.Message) (*pb.Message, error) {
	e.h.Pause()
	return m, nil
}

func (e drpcEcho) Pour(st pb.DRPCEcho_PourStream) error {
	total, err := pbTotal(untilEOF(st.Recv))
	if err != nil {
		return err
	}
	return st.SendAndClose(total)
}

type drpcConn struct {
	c    *drpcconn.Conn
	stub pb.DRPCEchoClient
}

func (c drpcConn) Close() error { return c.c.Close() }

func (c drpcConn) NewCaller(body int) Caller { return pbCaller(body, c.stub.Call) }

func (c drpcConn) Stream(ctx context.Context, body int) (Stream, error) {
	st, err := c.stub.Pour(ctx)
	if err != nil {
		return nil, err
	}
	return newPBStream(body, st.Send, st.CloseAndRecv), nil
}
