// Package gauge tells what a process has used, from inside and over a connection of its own.
package gauge

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"gobnode/bench/internal/rounds"
)

// Usage is what a process has used since it began, and what it holds.
type Usage struct {
	CPU         time.Duration // user and system
	Mallocs     uint64        // allocations so far
	Allocated   uint64        // their bytes
	Heap, Stack uint64        // bytes in use: of spans, so that a page half used counts whole
	RSS         uint64        // bytes resident, 0 where the system does not tell in /proc
	Goroutines  int
}

// Read returns the usage of this process.
func Read() Usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Usage{
		CPU: rounds.CPUTime(), Mallocs: m.Mallocs, Allocated: m.TotalAlloc,
		Heap: m.HeapInuse, Stack: m.StackInuse, RSS: resident(), Goroutines: runtime.NumGoroutine(),
	}
}

// Collected returns the usage after a garbage collection, so that what follows does not pay for what was before.
func Collected() Usage {
	runtime.GC()
	return Read()
}

// Settled returns the usage when all that can be freed has been freed: pools are emptied by the second collection, and the memory is
// given back.
func Settled() Usage {
	runtime.GC()
	runtime.GC()
	debug.FreeOSMemory()
	return Read()
}

func resident() uint64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}
