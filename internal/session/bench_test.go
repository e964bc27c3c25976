package session_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// tcpPair is two sessions over a socket.
func tcpPair(tb testing.TB, a, b session.Config) (*session.Session, *session.Session) {
	tb.Helper()
	ca, cb := sockets(tb)
	a.Dialer = true
	return session.New(ca, a), session.New(cb, b)
}

// bounce serves unary calls by sending back what comes, without a copy of it.
func bounce(st *session.Stream) {
	_ = st.Receive(context.Background(), func(msg []byte) error {
		return st.Reply(func(b []byte) ([]byte, error) { return append(b, msg...), nil })
	})
}

func BenchmarkCall(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 64 << 10} {
		for _, callers := range []int{1, 16, 128, 1024} {
			b.Run(fmt.Sprintf("%dB/%d", size, callers), func(b *testing.B) {
				client, server := tcpPair(b, session.Config{}, session.Config{Accept: bounce, Calls: 2000, Budget: session.NewBudget(1<<30, nil)})
				defer server.Close()
				defer client.Close()
				msg := make([]byte, size)
				b.ReportAllocs()
				b.SetBytes(int64(2 * size))
				b.ResetTimer()
				var wg sync.WaitGroup
				for i := range callers {
					n := b.N / callers
					if i < b.N%callers {
						n++
					}
					wg.Go(func() {
						spec := &session.CallSpec{Name: "ECHO", Kind: wire.CallUnary}
						for range n {
							err := client.Call(context.Background(), spec,
								func(p []byte) ([]byte, error) { return append(p, msg...), nil },
								func(p []byte) error {
									if len(p) != size {
										return fmt.Errorf("%d bytes", len(p))
									}
									return nil
								})
							if err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64(client.Stats().Writes+server.Stats().Writes)/float64(b.N), "writes/op")
			})
		}
	}
}

// BenchmarkStream sends messages one way.
func BenchmarkStream(b *testing.B) {
	for _, size := range []int{32 << 10, 1 << 20} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			done := make(chan struct{})
			client, server := tcpPair(b, session.Config{}, session.Config{Accept: func(st *session.Stream) {
				defer close(done)
				for st.Receive(context.Background(), func([]byte) error { return nil }) == nil {
				}
				st.Finish(nil)
			}})
			defer server.Close()
			defer client.Close()
			st, err := client.Open(b.Context(), &session.CallSpec{Name: "S", Kind: wire.CallStream})
			if err != nil {
				b.Fatal(err)
			}
			msg := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if err := st.Send(context.Background(), msg); err != nil {
					b.Fatal(err)
				}
			}
			if err := st.CloseSend(); err != nil {
				b.Fatal(err)
			}
			<-done
		})
	}
}

// BenchmarkPlain is BenchmarkStream without a session: a goroutine that writes and one that reads.
func BenchmarkPlain(b *testing.B) {
	for _, size := range []int{32 << 10, 1 << 20} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			ca, cb := sockets(b)
			done := make(chan struct{})
			go func() {
				defer close(done)
				buf := make([]byte, 128<<10)
				for {
					if _, err := cb.Read(buf); err != nil {
						return
					}
				}
			}()
			msg := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := ca.Write(msg); err != nil {
					b.Fatal(err)
				}
			}
			_ = ca.Close()
			<-done
			_ = cb.Close()
		})
	}
}
