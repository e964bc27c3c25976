package endpoint_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestLocalShutdown: a shutdown waits for the calls in process and lets no new
// one in; Close ends the contexts of their handlers.
func TestLocalShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := endpoint.New()
		release := make(chan struct{})
		fail.Handle(e, func(ctx context.Context, req text) (text, error) {
			if req.S == "patient" {
				<-release
				return req, nil
			}
			<-ctx.Done()
			return text{}, context.Cause(ctx)
		})
		var replies [2]text
		var errs [2]error
		for i, s := range []string{"patient", "until the end"} {
			go func() { replies[i], errs[i] = fail.Call(t.Context(), e, text{s}) }()
		}
		synctest.Wait()
		assert.EqualValues(t, 2*endpoint.LeastCharge, e.Held())
		shut := make(chan error)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		go func() { shut <- e.Shutdown(ctx) }()
		synctest.Wait()
		_, err := fail.Call(t.Context(), e, text{})
		assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, "closed")
		close(release)
		synctest.Wait()
		assert.NoError(t, errs[0])
		assert.Equal(t, "patient", replies[0].S)
		begin := time.Now()
		err = <-shut
		assert.Equal(t, 10*time.Second, time.Since(begin))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "1 running")
		synctest.Wait()
		assertFailed(t, errs[1], endpoint.Unknown, endpoint.OutcomeFailed, "cut by the endpoint's end")
		assert.Zero(t, e.Held())
	})
}

// TestLocalClose: Close waits for a handler whose caller has long gone.
func TestLocalClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := endpoint.New()
		returned := false
		fail.Handle(e, func(context.Context, text) (text, error) {
			time.Sleep(time.Minute)
			returned = true
			return text{}, nil
		})
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := fail.Call(ctx, e, text{})
		assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeUnknown, "")
		assert.Equal(t, time.Second, time.Since(begin), "on time, whatever the handler does")
		require.NoError(t, e.Close())
		assert.True(t, returned)
		assert.Equal(t, time.Minute, time.Since(begin))
		_, err = fail.Call(t.Context(), e, text{})
		assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, "closed")
	})
}

// TestLocalFromHandler: a handler calls its own endpoint.
func TestLocalFromHandler(t *testing.T) {
	e := endpoint.New()
	numbers.Handle(e, func(ctx context.Context, list []int) (int, error) {
		if len(list) == 0 {
			return 0, nil
		}
		n, err := numbers.Call(ctx, e, list[1:])
		return n + list[0], err
	})
	n, err := numbers.Call(t.Context(), e, []int{1, 2, 3, 4})
	require.NoError(t, err)
	assert.Equal(t, 10, n)
	require.NoError(t, e.Close())
	assert.Zero(t, e.Held())
}

// TestLocalCalls runs many at a time.
func TestLocalCalls(t *testing.T) {
	e := endpoint.New()
	numbers.Handle(e, func(_ context.Context, list []int) (int, error) { return list[0], nil })
	done := make(chan struct{})
	for g := range 16 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range 200 {
				n, err := numbers.Call(t.Context(), e, []int{g*1000 + i})
				assert.NoError(t, err)
				assert.Equal(t, g*1000+i, n)
			}
		}()
	}
	for range 16 {
		<-done
	}
	require.NoError(t, e.Close())
	assert.Zero(t, e.Held())
}
