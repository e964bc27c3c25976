package main_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	node "gobnode/cmd/node"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// patience is how long a test waits for what must happen. It only ends a test
// that has failed already.
const patience = 2 * time.Minute

// binary is the program under test, built by TestMain.
var binary string

func TestMain(m *testing.M) {
	if path := os.Getenv(ledgerVariable); path != "" {
		os.Exit(serveLedger(path))
	}
	// Most tests wait for processes, clocks and networks, not for processors.
	_ = flag.Set("test.parallel", "8")
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "NODE_") && name != coverVariable {
			_ = os.Unsetenv(name)
		}
	}
	dir, err := build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// coverVariable names the folder for the coverage of the processes that the
// tests start. Unset, they are built without.
const coverVariable = "NODE_TEST_COVERDIR"

func build() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "node-test"); err != nil {
		return "", err
	}
	binary = filepath.Join(dir, "node.exe")
	args := []string{"build", "-o", binary}
	if os.Getenv(coverVariable) != "" {
		args = append(args, "-cover", "-covermode=atomic", "-coverpkg=gobnode/endpoint,gobnode/cmd/node")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
}

// A transcript is an output that can be looked at while it grows.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await waits until the output matches and returns the match and its groups.
func (o *transcript) await(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if m := re.FindStringSubmatch(o.String()); m != nil {
			return m
		}
	}
	require.FailNow(t, "never seen", "%s in:\n%s", pattern, o)
	return nil
}

// A process is a run of the binary.
type process struct {
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr transcript
	ended          chan struct{}
}

// command is a run of the binary that has not begun.
func command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	if dir := os.Getenv(coverVariable); dir != "" {
		cmd.Env = append(os.Environ(), "GOCOVERDIR="+dir)
	}
	return cmd
}

// start starts the binary. It is killed at the end of the test.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: command(args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	p.begin(t)
	return p
}

func (p *process) begin(t *testing.T) {
	t.Helper()
	require.NoError(t, p.cmd.Start())
	go p.reap()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
}

// reap ends with the process.
func (p *process) reap() {
	_ = p.cmd.Wait() // the code is in cmd.ProcessState
	close(p.ended)
}

// wait waits for the process to end and returns its exit code.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		require.FailNow(t, "the process does not end", "%v\n%s", p.cmd.Args, &p.stderr)
	}
	return p.cmd.ProcessState.ExitCode()
}

// kill ends a process with SIGKILL, and waits until its sockets are gone.
func kill(t *testing.T, p *process) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Kill())
	p.wait(t)
}

func (p *process) signal(t *testing.T, sig os.Signal) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(sig))
}

// listening is what the first line of a serving node ends with.
const listening = `msg="listening.*addr=(\S+)`

// startServer starts a serving node and returns its address.
func startServer(t *testing.T, args ...string) (p *process, addr string) {
	t.Helper()
	if !slices.Contains(args, "-listen") {
		args = append([]string{"-listen", "127.0.0.1:0"}, args...)
	}
	p = start(t, args...)
	return p, p.stderr.await(t, listening)[1]
}

// A result is what a run in this process came to.
type result struct {
	code           int
	stdout, stderr string
}

// run runs the program in this process.
func run(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	var stdout, stderr transcript
	code := node.Run(t.Context(), args, stdin, &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// serve serves in this process until the end of the test, where it has to end
// in order.
func serve(t *testing.T, args ...string) (addr string, stderr *transcript) {
	t.Helper()
	if os.Getenv("NODE_LISTEN") == "" && !slices.Contains(args, "-listen") {
		args = append([]string{"-listen", "127.0.0.1:0"}, args...)
	}
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	stderr = new(transcript)
	go func() { code <- node.Run(ctx, args, strings.NewReader(""), io.Discard, stderr) }()
	t.Cleanup(func() {
		cancel()
		require.Zero(t, <-code, "%s", stderr)
	})
	return stderr.await(t, listening)[1], stderr
}
