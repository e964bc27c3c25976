package handlers

import (
	"context"

	"gobnode/endpoint"
	"gobnode/types"
)

// List returns the function that serves types.List for e.
func List(e *endpoint.Endpoint) func(context.Context, types.ListRequest) (types.ListReply, error) {
	return func(context.Context, types.ListRequest) (types.ListReply, error) {
		var reply types.ListReply
		for _, c := range e.Commands() {
			reply.Commands = append(reply.Commands, types.CommandSummary{Name: c.Name, Kind: c.Kind.String(), Doc: c.Doc})
		}
		return reply, nil
	}
}

// Describe returns the function that serves types.Describe for e. Its error is
// not_found if e has no such command.
func Describe(e *endpoint.Endpoint) func(context.Context, types.DescribeRequest) (types.CommandDescription, error) {
	return func(_ context.Context, req types.DescribeRequest) (types.CommandDescription, error) {
		for _, c := range e.Commands() {
			if c.Name == req.Name {
				return types.CommandDescription{
					Name: c.Name, Kind: c.Kind.String(), Doc: c.Doc,
					Request: c.Request, Reply: c.Reply, Example: c.Example,
				}, nil
			}
		}
		return types.CommandDescription{}, endpoint.Errorf(endpoint.NotFound, "no command %q here; LIST {} tells what there is", req.Name)
	}
}
