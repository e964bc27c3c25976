//go:build unix

package session_test

const rawSockets = true
