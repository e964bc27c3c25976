package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"

	"gobnode/endpoint"
	"gobnode/handlers"
)

// A node is one run of the program.
type node struct {
	config
	stdin  io.Reader
	stdout io.Writer // results; see display for what reaches a terminal
	stderr io.Writer // everything else
	log    *slog.Logger

	register func(*endpoint.Endpoint) *handlers.Chat // gives a serving node its commands
	lastAddr string                                  // the address that was connected to last
}

// run does what args and the environment ask for and returns the exit code.
// Results go to stdout, everything else to stderr. The end of ctx is taken as a
// first SIGINT or SIGTERM is. A goroutine that waits for stdin may outlast it,
// until stdin ends: there is no way to call it back.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return (&node{stdin: stdin, stdout: stdout, stderr: stderr, register: handlers.Register}).main(ctx, args)
}

func (n *node) main(ctx context.Context, args []string) int {
	err := n.run(ctx, args)
	if err == nil {
		return exitOK
	}
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f = &failure{code: exitInternal, text: err.Error()}
	}
	_, _ = io.WriteString(n.stderr, "node: "+harmless(f.text)+"\n")
	return f.code
}

func (n *node) run(ctx context.Context, args []string) error {
	err := n.parse(args, os.LookupEnv)
	if errors.Is(err, flag.ErrHelp) {
		return n.print(helpText())
	}
	if err != nil {
		return err
	}
	if n.version {
		return n.print(versionText())
	}
	n.log = slog.New(slog.NewTextHandler(n.stderr, &slog.HandlerOptions{Level: n.level()}))
	ctx, stop := catchSignals(ctx, n.stderr)
	defer stop()
	switch {
	case !n.connecting:
		return n.serve(ctx)
	case n.chatName != "":
		return n.chat(ctx)
	case n.prompting:
		return n.prompt(ctx)
	case n.watching:
		return n.watch(ctx)
	case len(n.args) > 0:
		return n.command(ctx)
	}
	return n.join(ctx)
}

func (n *node) level() slog.Level {
	switch {
	case n.verbose:
		return slog.LevelDebug
	case n.quiet:
		return slog.LevelError
	}
	return slog.LevelInfo
}

// print writes a result of the program itself.
func (n *node) print(text string) error {
	if _, err := io.WriteString(n.stdout, text); err != nil {
		return cannotPrint(err)
	}
	return nil
}
