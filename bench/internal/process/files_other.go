//go:build !linux

package process

// allowFiles does nothing: the limit, where there is one, shows when it is reached.
func allowFiles(int) error { return nil }
