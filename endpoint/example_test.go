package endpoint_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"gobnode/endpoint"
)

// What both sides import. The compiler checks every call against it.
type (
	greetRequest struct{ Name string }
	greetReply   struct{ Text string }
)

const greet endpoint.Command[greetRequest, greetReply] = "GREET"

// A server with one typed command, and a client that calls it.
func Example() {
	// The server.
	e := endpoint.New()
	greet.Handle(e, func(_ context.Context, req greetRequest) (greetReply, error) {
		if req.Name == "" {
			return greetReply{}, endpoint.Errorf(endpoint.InvalidArgument, "whom shall I greet?")
		}
		return greetReply{Text: "Hello, " + req.Name + "."}, nil
	})
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = e.Serve(l) }()
	defer e.Close()

	// The client.
	c, err := endpoint.Open(l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	reply, err := greet.Call(context.Background(), c, greetRequest{Name: "gopher"})
	fmt.Println(reply.Text, err)
	_, err = greet.Call(context.Background(), c, greetRequest{})
	fmt.Println(err)
	// Output:
	// Hello, gopher. <nil>
	// GREET: whom shall I greet? (invalid_argument, failed)
}
