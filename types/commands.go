package types

import "gobnode/endpoint"

// The names of the raw commands in package handlers.
const (
	StringCommand = "STRING"
	GobCommand    = "GOB"
	EchoCommand   = "ECHO"
	PingCommand   = "PING"
	HelpCommand   = "HELP"
)

// Sum adds numbers up.
const Sum endpoint.Command[SumRequest, SumReply] = "SUM"

// SumRequest holds the numbers to add.
type SumRequest struct{ Numbers []float64 }

// SumReply holds their sum; that of no numbers is 0.
type SumReply struct{ Total float64 }

// Reverse turns the nesting of a value inside out: what was innermost comes
// back outermost.
const Reverse endpoint.Command[ComplexData, ComplexData] = "REVERSE"

// List tells what commands an endpoint has.
const List endpoint.Command[ListRequest, ListReply] = "LIST"

// ListRequest is empty.
type ListRequest struct{}

// ListReply holds the commands, sorted by name.
type ListReply struct{ Commands []CommandSummary }

// CommandSummary is a command in a ListReply. Kind is raw, unary or stream.
type CommandSummary struct{ Name, Kind, Doc string }

// Describe tells all about one command.
const Describe endpoint.Command[DescribeRequest, CommandDescription] = "DESCRIBE"

// DescribeRequest names the command.
type DescribeRequest struct{ Name string }

// CommandDescription is what is known of a command. The last three are empty
// for a raw one: its Doc has to say what its bytes are. Of a stream, Request and
// Reply are the types of the messages to the handler and from it.
type CommandDescription struct {
	Name, Kind, Doc string
	Request, Reply  string // the Go types as text
	Example         string // a request as JSON
}
