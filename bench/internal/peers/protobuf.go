package peers

import (
	"context"
	"errors"
	"io"

	"gobnode/bench/internal/echo"
	"gobnode/bench/internal/echo/pb"
)

// pbMessage is echo's message for the peers that speak protobuf.
func pbMessage(body int) (*echo.Message, *pb.Message) {
	m := echo.New(body)
	return m, &pb.Message{Name: m.Name, Body: m.Body, Tags: m.Tags}
}

// pbCaller makes a Caller of a protobuf peer's call.
func pbCaller(body int, call func(context.Context, *pb.Message) (*pb.Message, error)) Caller {
	m, request := pbMessage(body)
	return func(ctx context.Context, id uint64) error {
		m.ID, request.Id = id, id
		reply, err := call(ctx, request)
		if err != nil {
			return err
		}
		return m.Check(reply.GetId(), reply.GetName(), reply.GetBody(), reply.GetTags())
	}
}

// A pbStream is a Stream over a protobuf peer's stream.
type pbStream struct {
	request *pb.Message
	send    func(*pb.Message) error
	finish  func() (*pb.Total, error)
}

func newPBStream(body int, send func(*pb.Message) error, finish func() (*pb.Total, error)) *pbStream {
	_, request := pbMessage(body)
	return &pbStream{request: request, send: send, finish: finish}
}

func (s *pbStream) Send(id uint64) error {
	s.request.Id = id
	return s.send(s.request)
}

func (s *pbStream) Finish() (echo.Total, error) {
	total, err := s.finish()
	return echo.Total{Messages: total.GetMessages(), Bytes: total.GetBytes()}, err
}

// pbTotal counts the messages that recv returns, until more says that it was the last.
func pbTotal(recv func() (m *pb.Message, more bool, err error)) (*pb.Total, error) {
	var total echo.Total
	for {
		m, more, err := recv()
		if err == nil && more {
			err = total.Take(m.GetId(), m.GetBody())
		}
		if err != nil || !more {
			return &pb.Total{Messages: total.Messages, Bytes: total.Bytes}, err
		}
	}
}

// untilEOF makes pbTotal's recv of one that ends with io.EOF.
func untilEOF(recv func() (*pb.Message, error)) func() (*pb.Message, bool, error) {
	return func() (*pb.Message, bool, error) {
		m, err := recv()
		if errors.Is(err, io.EOF) {
			return nil, false, nil
		}
		return m, err == nil, err
	}
}
