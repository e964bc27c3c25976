package main

import (
	"context"
	"flag"
	"io"

	"gobnode/endpoint"
	"gobnode/handlers"
)

// What the tests need of the inside.
var (
	Run        = run
	EnvName    = envName
	Harmless   = harmless
	Completion = completion
	ChatLines  = chatLines
)

// RunWith is run, and more gives a serving node further commands.
func RunWith(ctx context.Context, more func(*endpoint.Endpoint), args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	n := &node{stdin: stdin, stdout: stdout, stderr: stderr, register: func(e *endpoint.Endpoint) *handlers.Chat {
		more(e)
		return handlers.Register(e)
	}}
	return n.main(ctx, args)
}

// FlagNames are the names of all flags.
func FlagNames() (names []string) {
	new(config).flags().VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	return names
}
