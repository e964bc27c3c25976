package load

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"gobnode/bench/internal/peers"
)

// pour sends messages on a new stream while more says so, at least one, and returns their bytes when the receiver has said that it got
// them.
func pour(ctx context.Context, c peers.Conn, size int, more func(sent uint64) bool) (bytes uint64, err error) {
	streamer, ok := c.(peers.Streamer)
	if !ok {
		return 0, fmt.Errorf("a %T has no streams", c)
	}
	st, err := streamer.Stream(ctx, size)
	if err != nil {
		return 0, err
	}
	sent := uint64(0)
	for sent == 0 || more(sent) {
		if err = st.Send(sent); err != nil {
			return 0, err
		}
		sent++
	}
	total, err := st.Finish()
	if err != nil {
		return 0, err
	}
	if total.Messages != sent || total.Bytes != sent*uint64(size) {
		return 0, fmt.Errorf("a stream of %d messages of %d bytes arrived as %d of %d altogether", sent, size, total.Messages, total.Bytes)
	}
	return total.Bytes, nil
}

// until returns a more that ends after d.
func until(d time.Duration) func(uint64) bool {
	end := time.Now().Add(d)
	return func(uint64) bool { return time.Now().Before(end) }
}

// runStreams warms up on a stream of its own, on the same connection.
func runStreams(ctx context.Context, spec *Spec, t *Target) (Figures, error) {
	conns, closeAll, err := t.dial(ctx, 1)
	defer closeAll()
	if err != nil {
		return nil, err
	}
	if _, err = pour(ctx, conns[0], spec.Size, until(spec.Warm)); err != nil {
		return nil, err
	}
	w, err := t.open()
	if err != nil {
		return nil, err
	}
	bytes, err := pour(ctx, conns[0], spec.Size, until(spec.Window))
	if err != nil {
		return nil, err
	}
	if err := t.close(w); err != nil {
		return nil, err
	}
	f := w.figures(int64(bytes) / int64(spec.Size))
	f[Throughput] = float64(bytes) / 1e6 / w.took.Seconds()
	f[CPUPerMB] = f[CPU] * 1e6 / float64(spec.Size)
	return f, nil
}

// runBeside makes its calls alone, and then beside transfers that follow each other on the same connection.
func runBeside(ctx context.Context, spec *Spec, t *Target) (Figures, error) {
	conns, closeAll, err := t.dial(ctx, 1)
	defer closeAll()
	if err != nil {
		return nil, err
	}
	c := newCrew(spec.Callers, conns, func(c peers.Conn) peers.Caller { return c.NewCaller(spec.Body) })
	quiet, err := t.measure(ctx, spec, c)
	if err != nil {
		return nil, err
	}
	b := &background{spec: spec, conn: conns[0], done: make(chan error, 1)}
	go b.transfer(ctx)
	loaded, err := t.measure(ctx, spec, c)
	b.stop.Store(true)
	if failed := <-b.done; err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	f := quiet.loaded(loaded)
	f[Throughput] = float64(b.bytes) / 1e6 / b.took.Seconds()
	return f, nil
}

// background is transfers beside calls. bytes and took are what the whole ones came to, once done has told.
type background struct {
	spec *Spec
	conn peers.Conn
	stop atomic.Bool
	done chan error

	bytes uint64
	took  time.Duration
}

// transfer ends with the first whole transfer after stop.
func (b *background) transfer(ctx context.Context) {
	messages := uint64(b.spec.Transfer / b.spec.Size)
	began := time.Now()
	for b.bytes == 0 || !b.stop.Load() {
		n, err := pour(ctx, b.conn, b.spec.Size, func(sent uint64) bool { return sent < messages })
		if err != nil {
			b.done <- err
			return
		}
		b.bytes += n
		b.took = time.Since(began)
	}
	b.done <- nil
}
