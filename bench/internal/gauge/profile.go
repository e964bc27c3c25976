package gauge

import (
	"errors"
	"os"
	"runtime/pprof"
	"sync"
)

// profile is the file that this process's CPU profile goes to, nil while there is none.
var profile struct {
	mu   sync.Mutex
	file *os.File
}

// StartProfile begins a CPU profile of this process.
func StartProfile(path string) error {
	profile.mu.Lock()
	defer profile.mu.Unlock()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	profile.file = f
	return nil
}

// StopProfile ends it and completes the file; without one it does nothing.
func StopProfile() error {
	profile.mu.Lock()
	defer profile.mu.Unlock()
	if profile.file == nil {
		return nil
	}
	pprof.StopCPUProfile()
	err := profile.file.Close()
	profile.file = nil
	return err
}
