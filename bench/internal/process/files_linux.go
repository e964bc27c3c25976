package process

import (
	"fmt"
	"syscall"
)

// allowFiles has the process open n files. The runtime has raised its limit as far as it is allowed to already; the superuser may allow
// itself more.
func allowFiles(n int) error {
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
		return err
	}
	need := syscall.Rlimit{Cur: uint64(n), Max: max(uint64(n), now.Max)}
	if now.Cur >= need.Cur {
		return nil
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &need); err != nil {
		return fmt.Errorf("%d open files are needed and %d allowed (ulimit -n): %w", n, now.Cur, err)
	}
	return nil
}
