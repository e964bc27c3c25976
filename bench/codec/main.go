// Codec measures gobnode's gob codec beside encoding/gob, protobuf, vtprotobuf and encoding/json, in one run:
//
//	go -C bench run ./codec
//
// Times are processor time with GOMAXPROCS at 1 (-procs), so that the garbage collector's work is part of the cost of whoever
// makes the garbage: with more, it runs on cores that a busy server does not have idle.
//
// It prints a table in Markdown and a line for each target. The exit status is 1 if a target was missed, 2 if the run failed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"gobnode/bench/internal/rounds"
)

// minRounds is the fewest rounds whose median is worth printing.
const minRounds = 9

// values are the values measured, each with a function that makes its codecs.
var values = []struct {
	name     string
	subjects func() ([]*subject, error)
}{
	{"small", func() ([]*subject, error) { v := newSmall(); return subjects(v, v.message()) }},
	{"medium", func() ([]*subject, error) { v := newMedium(); return subjects(v, v.message()) }},
	{"node", func() ([]*subject, error) { v := newNode(); return subjects(v, v.message()) }},
	{"large", func() ([]*subject, error) { v := newLarge(); return subjects(v, v.message()) }},
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("codec", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var p plan
	flags.IntVar(&p.rounds, "rounds", 15, fmt.Sprintf("rounds, at least %d", minRounds))
	flags.DurationVar(&p.slice, "slice", 40*time.Millisecond, "processor time of one operation in one round")
	flags.IntVar(&p.procs, "procs", 1, "GOMAXPROCS")
	only := flags.String("value", "", "measure this value only: small, medium, node or large")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	met, err := p.all(*only, stdout, stderr)
	switch {
	case err != nil:
		fmt.Fprintln(stderr, "codec:", err)
		return 2
	case !met:
		return 1
	}
	return 0
}

// all measures and reports, and says whether the targets were met.
func (p plan) all(only string, stdout, progress io.Writer) (met bool, err error) {
	if p.rounds < minRounds || p.slice <= 0 || p.procs < 1 {
		return false, fmt.Errorf("at least %d rounds of some time on a processor are needed", minRounds)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(p.procs))
	var results []*result
	for _, v := range values {
		if only != "" && only != v.name {
			continue
		}
		all, err := v.subjects()
		if err != nil {
			return false, err
		}
		measured, err := p.run(v.name, all, progress)
		if err != nil {
			return false, err
		}
		results = append(results, measured...)
	}
	if results == nil {
		return false, errors.New("no such value: " + only)
	}
	fmt.Fprintln(progress)
	fmt.Fprintln(stdout, rounds.Environment("google.golang.org/protobuf", "github.com/planetscale/vtprotobuf"))
	fmt.Fprintf(stdout, "%d rounds of %v; medians of processor time\n\n", p.rounds, p.slice)
	table(stdout, results)
	fmt.Fprintln(stdout)
	return verdicts(stdout, results), nil
}
