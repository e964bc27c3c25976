package handlers

import (
	"bufio"
	"context"
	"io"

	"github.com/pkg/errors"
)

// Echo serves ECHO. It answers every line of data with
//
//	Message received: <line>\n
//
// until a line that is exit or quit, or the end of the connection, neither of
// which it answers.
func Echo(_ context.Context, rw *bufio.ReadWriter) error {
	for {
		line, err := readLine(rw.Reader)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errors.WithMessage(err, "ECHO data")
		}
		if s := string(line); s == "exit" || s == "quit" {
			return nil
		}
		_, _ = rw.WriteString("Message received: ") // a bufio.Writer keeps its first error for Flush
		_, _ = rw.Write(line)
		_ = rw.WriteByte('\n')
		if err := rw.Flush(); err != nil {
			return errors.WithStack(err)
		}
	}
}
