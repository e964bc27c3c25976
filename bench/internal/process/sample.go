package process

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"gobnode/bench/internal/load"
)

// reapTime is how long a process that was killed may hold its pipes open.
const reapTime = 5 * time.Second

// Sample runs one sample within limit. Processes are fresh for each, so that none inherits a heap, a grown stack or a warm pool from the
// peer or cell before it; it costs a tenth of a second. Both processes are gone when it returns. The error of one that took longer says so.
func Sample(ctx context.Context, spec load.Spec, limit time.Duration) (load.Figures, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %v", limit))
	defer cancel()
	server, err := start(ctx, "server", &task{Spec: spec})
	if err != nil {
		return nil, err
	}
	defer server.end()
	var at address
	if err = server.answer(ctx, &at); err != nil {
		return nil, err
	}
	client, err := start(ctx, "client", &task{Spec: spec, Address: at})
	if err != nil {
		return nil, err
	}
	defer client.end()
	var figures load.Figures
	if err := client.answer(ctx, &figures); err != nil {
		if said := server.complaint(); said != "" {
			err = fmt.Errorf("%w; the server said: %s", err, said)
		}
		return nil, err
	}
	return figures, nil
}

// A child is a process with a role.
type child struct {
	role   string
	cmd    *exec.Cmd
	cancel context.CancelFunc
	stdin  io.Closer
	stdout *json.Decoder
	stderr tail
	ended  bool
}

func start(ctx context.Context, role string, t *task) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &child{role: role, cmd: exec.CommandContext(ctx, program), cancel: cancel}
	c.cmd.Env = append(os.Environ(), roleVariable+"="+role, taskVariable+"="+string(text))
	c.cmd.Stderr = &c.stderr
	c.cmd.WaitDelay = reapTime
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	c.stdin, c.stdout = stdin, json.NewDecoder(stdout)
	if err := c.cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	return c, nil
}

// answer reads what the process has to tell into v.
func (c *child) answer(ctx context.Context, v any) error {
	err := c.stdout.Decode(v)
	if err == nil {
		return nil
	}
	c.end()
	if cause := context.Cause(ctx); cause != nil {
		err = cause // it was killed, and that is why
	}
	if said := c.complaint(); said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return fmt.Errorf("%s: %w", c.role, err)
}

// end kills the process and reaps it. A server has no other end; a client that has answered is through.
func (c *child) end() {
	if c.ended {
		return
	}
	c.ended = true
	c.cancel()
	_ = c.stdin.Close()
	_ = c.cmd.Wait() // that it was killed
}

// complaint is what the process wrote to standard error last, once it has ended or was killed.
func (c *child) complaint() string {
	c.end()
	return c.stderr.String()
}

// A tail keeps the end of what is written to it. It is written by one goroutine, and read after that has ended.
type tail struct{ kept []byte }

const tailSize = 1000

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - tailSize; over > 0 {
		t.kept = bytes.Clone(t.kept[over:])
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.kept)) }
