package handlers

import (
	"bufio"
	"fmt"
	"strings"

	"gobnode/endpoint"
)

// Help returns a command that takes no data and answers with a line for each
// command of e, sorted by name: the name, spaces up to a common column, and the
// text that Describe gave it, which is put on one line.
//
//	ECHO    Sends every line back, until exit or quit.\n
//	PING    Answers PONG.\n
func Help(e *endpoint.Endpoint) endpoint.HandleFunc {
	return func(rw *bufio.ReadWriter) {
		commands := e.Commands()
		width := 0
		for _, c := range commands {
			width = max(width, len(c.Name))
		}
		for _, c := range commands {
			if c.Doc == "" {
				_, _ = fmt.Fprintln(rw, c.Name)
				continue
			}
			_, _ = fmt.Fprintf(rw, "%-*s  %s\n", width, c.Name, strings.Join(strings.Fields(c.Doc), " "))
		}
		_ = rw.Flush()
	}
}
