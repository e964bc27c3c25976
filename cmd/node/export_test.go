package main

import "flag"

// What the tests need of the inside.
var (
	Run        = run
	EnvName    = envName
	Harmless   = harmless
	Completion = completion
	ChatLines  = chatLines
)

// FlagNames are the names of all flags.
func FlagNames() (names []string) {
	new(config).flags().VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	return names
}
