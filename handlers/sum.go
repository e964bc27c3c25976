package handlers

import (
	"context"

	"gobnode/types"
)

// Sum serves types.Sum.
func Sum(_ context.Context, req types.SumRequest) (types.SumReply, error) {
	var reply types.SumReply
	for _, n := range req.Numbers {
		reply.Total += n
	}
	return reply, nil
}
