package peers

import (
	"context"

	"gobnode/bench/internal/echo"
	"gobnode/bench/internal/echo/pb"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
)

// The names of grpc in its two set-ups.
const (
	GRPC        = "grpc"
	GRPCWorkers = "grpc-workers"
)

// streamWorkers is the number that made most of 16 to 128 callers on two cores, 1.1 to 1.5 times the default set-up.
const streamWorkers = 8

func grpcPlain() *Peer { return grpcAs(GRPC, "insecure") }

func grpcWorkers() *Peer {
	return grpcAs(GRPCWorkers, "insecure, NumStreamWorkers(8)", grpc.NumStreamWorkers(streamWorkers))
}

func grpcAs(name, about string, options ...grpc.ServerOption) *Peer {
	return &Peer{
		Name: name, Module: "google.golang.org/grpc", About: about, Streams: true,
		NewServer: func(h *echo.Handler) (Server, error) {
			s := grpc.NewServer(options...)
			pb.RegisterEchoServer(s, grpcEcho{h: h})
			return s, nil
		},
		Dial: dialGRPC,
	}
}

// dialGRPC returns a connection that stands: grpc leaves the connecting to the first call otherwise.
func dialGRPC(ctx context.Context, addr string) (Conn, error) {
	c, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	c.Connect()
	for s := c.GetState(); s != connectivity.Ready; s = c.GetState() {
		if !c.WaitForStateChange(ctx, s) {
			return nil, ctx.Err()
		}
	}
	return grpcConn{c: c, stub: pb.NewEchoClient(c)}, nil
}

type grpcEcho struct {
	pb.UnimplementedEchoServer

	h *echo.Handler
}

func (e grpcEcho) Call(_ context.Context, m *pb.Message) (*pb.Message, error) {
	e.h.Pause()
	return m, nil
}

func (e grpcEcho) Pour(st grpc.ClientStreamingServer[pb.Message, pb.Total]) error {
	total, err := pbTotal(untilEOF(st.Recv))
	if err != nil {
		return err
	}
	return st.SendAndClose(total)
}

type grpcConn struct {
	c    *grpc.ClientConn
	stub pb.EchoClient
}

func (c grpcConn) Close() error { return c.c.Close() }

func (c grpcConn) NewCaller(body int) Caller {
	return pbCaller(body, func(ctx context.Context, m *pb.Message) (*pb.Message, error) { return c.stub.Call(ctx, m) })
}

func (c grpcConn) Stream(ctx context.Context, body int) (Stream, error) {
	st, err := c.stub.Pour(ctx)
	if err != nil {
		return nil, err
	}
	return newPBStream(body, st.Send, st.CloseAndRecv), nil
}
