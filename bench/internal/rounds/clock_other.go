//go:build !unix

package rounds

import "time"

// CPUTime is the time that has passed: package syscall has no other clock in common here.
func CPUTime() time.Duration { return time.Since(start) }
