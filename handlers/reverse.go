package handlers

import (
	"context"

	"gobnode/types"
)

// Reverse serves types.Reverse: the chain of values by way of C comes back in
// the opposite order.
func Reverse(_ context.Context, data types.ComplexData) (types.ComplexData, error) {
	var outer *types.ComplexData
	for v := &data; v != nil; {
		inner := v.C
		v.C = outer
		outer, v = v, inner
	}
	return *outer, nil
}
