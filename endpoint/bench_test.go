//go:build unix

package endpoint_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/types"

	"github.com/stretchr/testify/require"
)

// holdEnv makes the test binary a client that holds connections: its value is
// an address and a number.
const holdEnv = "GOBNODE_BENCH_HOLD"

func init() {
	if v := os.Getenv(holdEnv); v != "" {
		var addr string
		var n int
		if _, err := fmt.Sscan(v, &addr, &n); err != nil {
			fatal(err)
		}
		hold(addr, n)
		os.Exit(0)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "holding client:", err)
	os.Exit(1)
}

// hold opens n connections, says so, and runs a STRING on each whenever it is
// sent a line.
func hold(addr string, n int) {
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			fatal(err)
		}
		conns[i] = c
	}
	fmt.Println("holding")
	reply := make([]byte, 64)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); fmt.Println("done") {
		for _, c := range conns {
			_, err := c.Write([]byte("STRING\nAdditional data.\n"))
			if err == nil {
				_, err = c.Read(reply)
			}
			if err != nil {
				fatal(err)
			}
		}
	}
}

// BenchmarkHeld holds 10,000 idle connections from a second process and reports
// what each costs here, before and after each has run a command. It needs about
// 10,100 file descriptors a process. Run it with -benchtime 1x.
func BenchmarkHeld(b *testing.B) {
	n := 10_000
	if s := os.Getenv("GOBNODE_BENCH_CONNS"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		require.NoError(b, err)
	}
	for b.Loop() {
		e := stringEndpoint()
		addr := serve(b, e)
		before := settledMemory()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", holdEnv, addr, n))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		require.NoError(b, err)
		pipe, err := cmd.StdoutPipe()
		require.NoError(b, err)
		out := bufio.NewScanner(pipe)
		require.NoError(b, cmd.Start())
		require.True(b, out.Scan())
		report(b, "idle", before, n)
		_, err = io.WriteString(in, "go\n")
		require.NoError(b, err)
		require.True(b, out.Scan())
		time.Sleep(1500 * time.Millisecond) // the waiting is handed over after a second
		report(b, "after-a-command", before, n)
		require.NoError(b, in.Close())
		require.NoError(b, cmd.Wait())
		require.NoError(b, e.Close())
	}
	b.ReportMetric(0, "ns/op")
}

type memory struct{ heap, stack, rss int }

func settledMemory() memory {
	for range 3 { // pools are emptied by the second collection
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var pages int
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		fields := strings.Fields(string(statm))
		pages, _ = strconv.Atoi(fields[1])
	}
	return memory{heap: int(m.HeapAlloc), stack: int(m.StackInuse), rss: pages * os.Getpagesize()}
}

func report(b *testing.B, when string, before memory, n int) {
	b.Helper()
	m := settledMemory()
	heap, stack := float64(m.heap-before.heap)/float64(n), float64(m.stack-before.stack)/float64(n)
	b.ReportMetric(heap, when+"-heap-B/conn")
	b.ReportMetric(stack, when+"-stack-B/conn")
	b.ReportMetric(heap+stack, when+"-B/conn")
	b.ReportMetric(float64(m.rss-before.rss)/float64(n), when+"-rss-B/conn")
}

func stringEndpoint() *endpoint.Endpoint {
	e := &endpoint.Endpoint{Logger: slog.New(slog.DiscardHandler)}
	e.Handle(types.StringCommand, endpoint.ServeFunc(handlers.String))
	return e
}

// serveBare answers every line on l with the line "Thank you.": the floor.
func serveBare(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			reply := []byte("Thank you.\n")
			for r := bufio.NewReader(c); ; {
				if _, err := r.ReadSlice('\n'); err != nil {
					return
				}
				if _, err := c.Write(reply); err != nil {
					return
				}
			}
		}()
	}
}

// BenchmarkRoundTrip compares STRING round trips with those of a bare line echo,
// in interleaved rounds. "ratio" is the median over the rounds of the CPU time
// per round trip, both sides together, relative to the bare echo's.
func BenchmarkRoundTrip(b *testing.B) {
	for _, conns := range []int{1, 64} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			e := stringEndpoint()
			defer e.Close()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(b, err)
			defer l.Close()
			go serveBare(l)
			ours := dialAll(b, serve(b, e), conns)
			bare := dialAll(b, l.Addr().String(), conns)
			const rounds, trips = 9, 32_000
			var ratios, cpuOurs, cpuBare []float64
			for b.Loop() {
				for range rounds {
					o := cpuPerTrip(b, ours, "STRING Additional data.\n", trips)
					f := cpuPerTrip(b, bare, "Additional data, padded.\n", trips)
					ratios, cpuOurs, cpuBare = append(ratios, o/f), append(cpuOurs, o), append(cpuBare, f)
				}
			}
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(median(cpuOurs), "cpu-µs/trip")
			b.ReportMetric(median(cpuBare), "bare-cpu-µs/trip")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func dialAll(b *testing.B, addr string, n int) []net.Conn {
	b.Helper()
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		require.NoError(b, err)
		b.Cleanup(func() { _ = c.Close() })
		conns[i] = c
	}
	return conns
}

func cpuPerTrip(b *testing.B, conns []net.Conn, request string, trips int) float64 {
	b.Helper()
	start := cpuTime()
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() {
			reply, line := make([]byte, 64), []byte(request)
			for range trips / len(conns) {
				if _, err := c.Write(line); err != nil {
					b.Error(err)
					return
				}
				if _, err := c.Read(reply); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return float64((cpuTime() - start).Microseconds()) / float64(trips)
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
