package endpoint_test

import (
	"context"
	"testing"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
)

var marshalled func()

// A callingType does something while it becomes an example of itself.
type callingType struct{ N int }

func (callingType) MarshalJSON() ([]byte, error) {
	marshalled()
	return []byte("{}"), nil
}

// TestCommandsHoldNoLockOverMarshalJSON: a type's own method may use the
// endpoint.
func TestCommandsHoldNoLockOverMarshalJSON(t *testing.T) {
	e := endpoint.New()
	marshalled = func() { e.Describe("CALLING", "described") }
	endpoint.Command[callingType, struct{}]("CALLING").Handle(e, func(context.Context, callingType) (struct{}, error) {
		return struct{}{}, nil
	})
	done := make(chan []endpoint.CommandInfo, 1)
	go func() { done <- e.Commands() }()
	select {
	case list := <-done:
		assert.Equal(t, "{}", list[0].Example)
	case <-time.After(10 * time.Second):
		t.Fatal("Commands waits for itself")
	}
}
