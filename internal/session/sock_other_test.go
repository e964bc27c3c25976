//go:build !unix

package session_test

const rawSockets = false
