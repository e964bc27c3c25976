package endpoint_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
)

// TestHealLeaving: a peer that drains each session and lets none end is not
// connected to any more while eight of them are there, and again when one has
// ended.
func TestHealLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.up("a:1", nil)
		c := w.client(endpoint.Dialer{}, "a:1")
		w.down("a:1")
		synctest.Wait()
		rude := &host{mem: memnet.Listen()}
		w.mu.Lock()
		w.hosts["a:1"] = rude
		w.mu.Unlock()
		release := make(chan bool)
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				conn, err := rude.mem.Accept()
				if err != nil {
					return
				}
				e := &endpoint.Endpoint{Logger: slog.New(slog.DiscardHandler)}
				work.Handle(e, func(_ context.Context, j job) (job, error) {
					wg.Go(func() { _ = e.Shutdown(context.Background()) })
					<-release
					return j, nil
				})
				wg.Go(func() { e.ServeConn(context.Background(), conn) })
			}
		})
		const calls = 12
		done := make(chan error, calls)
		for range calls {
			go func() { done <- within(t, c, time.Hour) }()
			time.Sleep(30 * time.Second)
		}
		before := len(w.dialled("a:1"))
		time.Sleep(5 * time.Minute)
		assert.Len(t, w.dialled("a:1"), before, "eight sessions have not ended")
		assert.Equal(t, endpoint.PhaseDraining, c.State().Phase)
		assert.Empty(t, done)

		close(release)
		for range calls {
			assert.NoError(t, <-done)
		}
		assert.Greater(t, len(w.dialled("a:1")), before)
		assert.NoError(t, rude.mem.Close())
		w.mu.Lock()
		delete(w.hosts, "a:1")
		w.mu.Unlock()
		assert.NoError(t, c.Close())
		wg.Wait()
	})
}
