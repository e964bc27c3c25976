// Package rounds is what the benchmarks share: figures of interleaved rounds, and what they were measured on.
//
// A shared or virtual machine moves absolute times by up to 40 % between runs and within one. So everything that is compared
// is measured in turn, many rounds of it, and compared within each round; what is reported is the median of the rounds.
package rounds

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// start is what CPUTime counts from where there is no clock of its own for it.
var start = time.Now()

// A Spread is the median of one figure over all rounds, with the lowest and highest it had.
type Spread struct {
	Median, Low, High float64
}

// Of returns the spread of a figure that has at least one round. xs is not changed.
func Of(xs []float64) Spread {
	s := slices.Sorted(slices.Values(xs))
	n := len(s)
	return Spread{Median: (s[(n-1)/2] + s[n/2]) / 2, Low: s[0], High: s[n-1]}
}

// Ratio returns the spread of a[i] / b[i]: each figure by another of the same round.
func Ratio(a, b []float64) Spread {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = a[i] / b[i]
	}
	return Of(ratios)
}

// Environment says in one line what the figures were measured on: Go, the machine, and the versions of the modules named.
func Environment(modules ...string) string {
	parts := []string{
		runtime.Version(),
		strings.TrimSpace(runtime.GOOS + "/" + runtime.GOARCH + " " + kernel()),
		fmt.Sprintf("%s, GOMAXPROCS %d", processor(), runtime.GOMAXPROCS(0)),
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return strings.Join(parts, "; ")
	}
	for _, dep := range info.Deps {
		if slices.Contains(modules, dep.Path) {
			parts = append(parts, dep.Path+" "+dep.Version)
		}
	}
	return strings.Join(parts, "; ")
}

// kernel is the kernel's release where the system tells it in a file.
func kernel() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(release))
}

// processor is the processor's name where the system tells it in a file.
func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, name, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(name)
		}
	}
	return "unknown processor"
}
