package handlers

import (
	"bufio"
	"context"

	"gobnode/endpoint"
	"gobnode/types"

	"github.com/pkg/errors"
)

// Gob serves GOB. It takes one gob value of a types.ComplexData, definitions
// first, as a new encoding/gob Encoder writes it, and logs it with the value
// inside it. It answers nothing.
func Gob(ctx context.Context, rw *bufio.ReadWriter) error {
	var data types.ComplexData
	if err := endpoint.ReadGob(rw.Reader, &data, endpoint.Limits{}); err != nil {
		return errors.WithMessage(err, "GOB data")
	}
	info := endpoint.InfoFrom(ctx)
	info.Logger.InfoContext(ctx, "gob received", "peer", info.Peer,
		"n", data.N, "s", data.S, "m", data.M, "p", data.P, "c", data.C)
	return nil
}
