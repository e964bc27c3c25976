package peers

import (
	"context"
	"net/http"

	"gobnode/bench/internal/echo"
	"gobnode/bench/internal/echo/pb"
	"gobnode/bench/internal/echo/pb/pbconnect"

	"connectrpc.com/connect"
)

// Connect is the name of connectrpc.com/connect.
const Connect = "connect"

// connectStreams lets the cells of 1,024 callers run on one connection; net/http's default is 250.
const connectStreams = 4096

func connectPeer() *Peer {
	return &Peer{
		Name: Connect, Module: "connectrpc.com/connect",
		About: "net/http's HTTP/2 without TLS, MaxConcurrentStreams 4,096, no compression",
		Lazy:  true, Streams: true,
		NewServer: func(h *echo.Handler) (Server, error) {
			mux := http.NewServeMux()
			// A handler compresses what its caller can read unless it is told that it cannot; nobody else does.
			mux.Handle(pbconnect.NewEchoHandler(connectEcho{h}, connect.WithCompression("gzip", nil, nil)))
			return &http.Server{Handler: mux, Protocols: plainHTTP2(), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: connectStreams}}, nil
		},
		Dial: func(_ context.Context, addr string) (Conn, error) {
			// One connection: a second would be opened only where the server takes no more streams on the first.
			t := &http.Transport{Protocols: plainHTTP2()}
			stub := pbconnect.NewEchoClient(&http.Client{Transport: t}, "http://"+addr, connect.WithAcceptCompression("gzip", nil, nil))
			return connectConn{t: t, stub: stub}, nil
		},
	}
}

func plainHTTP2() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

type connectEcho struct{ h *echo.Handler }

func (e connectEcho) Call(_ context.Context, r *connect.Request[pb.Message]) (*connect.Response[pb.Message], error) {
	e.h.Pause()
	return connect.NewResponse(r.Msg), nil
}

func (e connectEcho) Pour(_ context.Context, st *connect.ClientStream[pb.Message]) (*connect.Response[pb.Total], error) {
	total, err := pbTotal(func() (*pb.Message, bool, error) {
		more := st.Receive()
		return st.Msg(), more, st.Err()
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(total), nil
}

type connectConn struct {
	t    *http.Transport
	stub pbconnect.EchoClient
}

func (c connectConn) Close() error {
	c.t.CloseIdleConnections()
	return nil
}

func (c connectConn) NewCaller(body int) Caller {
	return pbCaller(body, func(ctx context.Context, m *pb.Message) (*pb.Message, error) {
		reply, err := c.stub.Call(ctx, connect.NewRequest(m))
		if err != nil {
			return nil, err
		}
		return reply.Msg, nil
	})
}

func (c connectConn) Stream(ctx context.Context, body int) (Stream, error) {
	st := c.stub.Pour(ctx)
	return newPBStream(body, st.Send, func() (*pb.Total, error) {
		total, err := st.CloseAndReceive()
		if err != nil {
			return nil, err
		}
		return total.Msg, nil
	}), nil
}
