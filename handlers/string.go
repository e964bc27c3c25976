package handlers

import (
	"bufio"
	"context"

	"gobnode/endpoint"

	"github.com/pkg/errors"
)

// String serves STRING. It takes one line, which it logs, and answers
//
//	Thank you.\n
//
// A connection that ends before the line is an error.
func String(ctx context.Context, rw *bufio.ReadWriter) error {
	line, err := readLine(rw.Reader)
	if err != nil {
		return errors.WithMessage(err, "STRING data")
	}
	info := endpoint.InfoFrom(ctx)
	info.Logger.InfoContext(ctx, "string received", "text", string(line), "peer", info.Peer)
	if _, err := rw.WriteString("Thank you.\n"); err != nil {
		return errors.WithStack(err)
	}
	return errors.WithStack(rw.Flush())
}
