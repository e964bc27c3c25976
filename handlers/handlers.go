// Package handlers holds ready commands as plain functions, to serve and to
// learn from. Each states its bytes in its comment.
package handlers

import (
	"bufio"
	"io"

	"gobnode/endpoint"
	"gobnode/types"

	"github.com/pkg/errors"
)

// Register gives e all commands of this package, with their descriptions. It
// returns the room of CHAT, to be closed before e is shut down: its members are
// running commands, which Shutdown waits for.
func Register(e *endpoint.Endpoint) (room *Chat) {
	e.Handle(types.StringCommand, endpoint.ServeFunc(String))
	e.Describe(types.StringCommand, "Takes one line of text, logs it and says thank you.")
	e.Handle(types.GobCommand, endpoint.ServeFunc(Gob))
	e.Describe(types.GobCommand, "Takes one gob of the complex data struct and logs it. There is no reply.")
	e.Handle(types.EchoCommand, endpoint.ServeFunc(Echo))
	e.Describe(types.EchoCommand, "Sends every line back, until exit or quit.")
	e.AddHandleFunc(types.PingCommand, Ping)
	e.Describe(types.PingCommand, "Answers PONG.")
	e.AddHandleFunc(types.HelpCommand, Help(e))
	e.Describe(types.HelpCommand, "Lists the commands, one a line.")
	types.Sum.Handle(e, Sum)
	e.Describe(string(types.Sum), "Adds numbers up.")
	types.Reverse.Handle(e, Reverse)
	e.Describe(string(types.Reverse), "Turns the nesting of a complex data struct inside out.")
	types.List.Handle(e, List(e))
	e.Describe(string(types.List), "Tells what commands there are, and their kinds.")
	types.Describe.Handle(e, Describe(e))
	e.Describe(string(types.Describe), "Tells all about one command: its Go types, a request as JSON, what it is for.")
	room = new(Chat)
	types.Chat.Handle(e, room.Serve)
	e.Describe(string(types.Chat), "A room to talk in, over a session: everybody in it hears everybody. The header name says who joins.")
	return room
}

// readLine reads one line and returns it without its LF or CRLF, valid until
// the next read. The last line of a connection may lack its end. A line must
// fit the reader's buffer, which bounds what a peer can make a handler hold;
// at the end of the data the error is io.EOF.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, errors.Errorf("a line of more than %d bytes", r.Size())
	case errors.Is(err, io.EOF) && len(line) > 0:
	case err != nil:
		return nil, errors.WithStack(err)
	}
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, nil
}
