package process_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gobnode/bench/internal/load"
	"gobnode/bench/internal/peers"
	"gobnode/bench/internal/process"
)

func TestMain(m *testing.M) {
	process.Main()
	os.Exit(m.Run())
}

// running returns the processes that this one has started and not reaped.
func running(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", os.Getpid()))
	if err != nil || files == nil {
		t.Skip("this system does not tell a process's children")
	}
	var pids strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil { // a thread may have ended
			pids.Write(b)
		}
	}
	return pids.String()
}

func TestSampleEnds(t *testing.T) {
	spec := load.Spec{Peer: peers.NetRPC, Kind: load.Calls, Body: 64, Callers: 2, Conns: 1, Window: time.Millisecond}
	never := spec
	never.Kind, never.Every, never.Pause = load.Sleepy, 1, time.Hour
	nobody := spec
	nobody.Peer = "nobody"
	refused := spec
	refused.Kind = load.Commands
	for _, c := range []struct {
		name  string
		spec  load.Spec
		limit time.Duration
		want  string // of the error
	}{
		{"done", spec, time.Minute, ""},
		{"a call that hangs", never, time.Second, "client: not done after 1s"},
		{"a server that does not start", nobody, time.Minute, `server: EOF: there is no peer "nobody"`},
		{"a client that fails", refused, time.Minute, "this server registers no commands"},
	} {
		f, err := process.Sample(t.Context(), c.spec, c.limit)
		switch {
		case c.want == "" && (err != nil || f[load.Rate] <= 0):
			t.Errorf("%s: %v, %v", c.name, f, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: the error is %v, want %q", c.name, err, c.want)
		}
		if pids := running(t); pids != "" {
			t.Errorf("%s: still there: %s", c.name, pids)
		}
	}
}
