// Package process runs a sample: a server and a client, each in a process of its own, over the loopback. The processes are the program
// itself, started again with a role.
package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"gobnode/bench/internal/echo"
	"gobnode/bench/internal/gauge"
	"gobnode/bench/internal/load"
	"gobnode/bench/internal/peers"
)

// The environment of a process with a role.
const (
	roleVariable = "GOBNODE_BENCH_ROLE" // "server" or "client"
	taskVariable = "GOBNODE_BENCH_TASK" // a task as JSON
)

// A task is what a process is to do.
type task struct {
	Spec    load.Spec
	Address address // of the server; of no meaning to it
}

// An address is where a server is reached: for calls, and for orders.
type address struct{ Calls, Orders string }

// loopback is where servers listen. One address is enough: a client makes at most 15,000 connections to one port of it, of the 28,000
// that Linux has for that by default, and the process of each sample has another port.
const loopback = "127.0.0.1:0"

// spareFiles is what a process opens beside its connections, listeners and the runtime's included.
const spareFiles = 100

// Main runs the role that the process was started with, and then ends it. It returns if it was started with none.
func Main() {
	var run func(*task) error
	switch role := os.Getenv(roleVariable); role {
	case "":
		return
	case "server":
		run = serve
	case "client":
		run = drive
	default:
		run = func(*task) error { return fmt.Errorf("there is no role %q", role) }
	}
	var t task
	err := json.Unmarshal([]byte(os.Getenv(taskVariable)), &t)
	if err == nil {
		err = allowFiles(t.Spec.Conns + spareFiles)
	}
	if err == nil {
		go untilOrphaned()
		err = run(&t)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// untilOrphaned ends the process when the one that started it is gone, however it went: the other end of standard input closes then.
func untilOrphaned() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// serve tells on standard output where it is reached, and serves for good.
func serve(t *task) error {
	p := peers.Find(t.Spec.Peer)
	if p == nil {
		return fmt.Errorf("there is no peer %q", t.Spec.Peer)
	}
	h := new(echo.Handler)
	server, err := p.NewServer(h)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	calls, err := lc.Listen(context.Background(), "tcp", loopback)
	if err != nil {
		return err
	}
	orders, err := lc.Listen(context.Background(), "tcp", loopback)
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- server.Serve(calls) }()
	go func() { ended <- gauge.Answer(orders, func(o gauge.Order) error { return carryOut(o, h, server) }) }()
	here := address{Calls: calls.Addr().String(), Orders: orders.Addr().String()}
	if err := json.NewEncoder(os.Stdout).Encode(here); err != nil {
		return err
	}
	return fmt.Errorf("serving ended: %w", <-ended)
}

func carryOut(o gauge.Order, h *echo.Handler, server peers.Server) error {
	switch o.Op {
	case gauge.OpSleep:
		h.Sleep(o.N, o.Pause)
		return nil
	case gauge.OpRegister:
		r, ok := server.(peers.Registrar)
		if !ok {
			return errors.New("this server registers no commands")
		}
		r.Register(o.N)
		return nil
	default: // the others are not of this package
	}
	return fmt.Errorf("there is no order %q", o.Op)
}

// drive puts the load on the server and writes the figures to standard output.
func drive(t *task) error {
	ctx := context.Background() // the process that started this one ends it
	server, err := gauge.Reach(ctx, t.Address.Orders)
	if err != nil {
		return err
	}
	defer func() { _ = server.Close() }()
	p := peers.Find(t.Spec.Peer)
	if p == nil {
		return fmt.Errorf("there is no peer %q", t.Spec.Peer)
	}
	figures, err := load.Run(ctx, &t.Spec, &load.Target{Peer: p, Addr: t.Address.Calls, Server: server})
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	if err := json.NewEncoder(out).Encode(figures); err != nil {
		return err
	}
	return out.Flush()
}
