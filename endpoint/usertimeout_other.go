//go:build !linux

package endpoint

// setUserTimeout does nothing: only Linux has TCP_USER_TIMEOUT.
func setUserTimeout(any) bool { return false }
