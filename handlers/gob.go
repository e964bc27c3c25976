package handlers

import (
	"bufio"
	"bytes"
	"context"
	"strings"

	"gobnode/endpoint"
	"gobnode/types"

	"github.com/pkg/errors"
)

// Gob serves GOB. It takes one gob value of a types.ComplexData, definitions
// first, as a new encoding/gob Encoder writes it, and logs it with the value
// inside it: of large ones the beginning. It answers nothing.
func Gob(ctx context.Context, rw *bufio.ReadWriter) error {
	data, err := readBrief(rw.Reader)
	if err != nil {
		return errors.WithMessage(err, "GOB data")
	}
	info := endpoint.InfoFrom(ctx)
	info.Logger.InfoContext(ctx, "gob received", "peer", info.Peer,
		"n", data.N, "s", data.S, "m", data.M, "p", data.P, "c", data.C)
	return nil
}

// readBrief reads a value and returns what is logged of it. The value itself is
// garbage then: a log line of 10 MB takes a second to make, and 64 MiB for each
// connection that waits for its line are in nobody's account.
func readBrief(r *bufio.Reader) (*types.ComplexData, error) {
	var data types.ComplexData
	if err := endpoint.ReadGob(r, &data, endpoint.Limits{}); err != nil {
		return nil, err
	}
	return brief(&data, 1), nil
}

// brief copies the beginning of v, and of so many levels inside it.
func brief(v *types.ComplexData, levels int) *types.ComplexData {
	const maxText, maxKey, maxEntries = 1 << 10, 64, 64
	if v == nil {
		return nil
	}
	b := &types.ComplexData{N: v.N, S: strings.Clone(cut(v.S, maxText)), P: bytes.Clone(v.P[:min(len(v.P), maxText)])}
	b.M = make(map[string]int, min(len(v.M), maxEntries))
	left := maxEntries
	for key, n := range v.M {
		if left--; left < 0 {
			break
		}
		b.M[strings.Clone(cut(key, maxKey))] = n
	}
	if levels > 0 {
		b.C = brief(v.C, levels-1)
	}
	return b
}

func cut(s string, n int) string { return s[:min(len(s), n)] }
