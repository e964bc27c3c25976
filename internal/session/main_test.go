package session_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"gobnode/internal/session"
)

// long makes the tests whose figures matter run in full; without it they run in counts that fit into CI.
var long = flag.Bool("long", false, "run the long tests in full")

// TestMain fails when a goroutine or a pooled buffer is left over.
func TestMain(m *testing.M) {
	flag.Parse()
	session.CountBuffers()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		if n := session.BuffersOut(); n != 0 {
			fmt.Fprintln(os.Stderr, n, "pooled buffers did not come back")
			code = 1
		}
	}
	os.Exit(code)
}
