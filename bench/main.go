// Bench runs this library beside net/rpc, grpc, drpc, connect and a bare framed echo, and says how they compare:
//
//	go -C bench run .          everything: about an hour
//	go -C bench run . -quick   the cells that tell most: about two minutes
//	go -C bench run . -help    what can be chosen
//
// Every sample has a server and a client process of its own, over the loopback. All peers take their turn in every round of a cell, and
// are compared within it: what the machine does besides moves them alike. The report, in Markdown, has a line for each target.
//
// The exit status is 1 if a target was missed or a peer failed, 2 if the run itself did. bench/codec measures the codecs alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"time"

	"gobnode/bench/internal/peers"
	"gobnode/bench/internal/process"
)

func main() {
	process.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	p, err := parse(args, stdout, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	case p == nil: // it was a question
		return 0
	}
	if p.profile != "" {
		if err = os.MkdirAll(p.profile, 0o755); err != nil {
			fmt.Fprintln(stderr, "bench:", err)
			return 2
		}
	}
	began := time.Now()
	samples, err := p.run(ctx, newProgress(stderr, p.cost()))
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	r := newReport(p, samples, began, args)
	r.write(stdout)
	if p.out != "" {
		if err := r.save(p.out); err != nil {
			fmt.Fprintln(stderr, "bench:", err)
			return 2
		}
	}
	if !r.good() {
		return 1
	}
	return 0
}

// A plan is what a run measures.
type plan struct {
	rounds  int
	seconds float64 // of a window
	cells   []*cell
	peers   []*peers.Peer
	out     string
	profile string // folder for CPU profiles, "" for none
}

// The windows and rounds of a run that was not told otherwise.
const (
	defaultRounds  = 9 // fewer are noise
	defaultSeconds = 1.0
	quickRounds    = 4
	quickSeconds   = 0.25
)

// parse returns nil if the arguments only asked what there is.
func parse(args []string, stdout, stderr io.Writer) (*plan, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	p := new(plan)
	flags.IntVar(&p.rounds, "rounds", 0, fmt.Sprintf("interleaved rounds (default %d, with -quick %d)", defaultRounds, quickRounds))
	flags.Float64Var(&p.seconds, "seconds", 0, fmt.Sprintf("length of a sample (default %v, with -quick %v)", defaultSeconds, quickSeconds))
	flags.StringVar(&p.out, "out", "", "file of Markdown whose section of these results is replaced; its plots go to plots/ beside it")
	flags.StringVar(&p.profile, "profile", "", "`folder` for CPU profiles of every sample's processes, each round's in place of the last; they slow the samples down")
	only := flags.String("only", "", "regular `expression`: measure only the cells whose names it matches")
	names := flags.String("peers", "", "measure only these, separated by commas")
	quick := flags.Bool("quick", false, "measure the cells that tell most, in about two minutes")
	list := flags.Bool("list", false, "print the names of the cells and peers")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: go -C bench run . [flags]")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *list {
		printNames(stdout)
		return nil, nil
	}
	rounds, seconds := defaultRounds, defaultSeconds
	if *quick {
		rounds, seconds = quickRounds, quickSeconds
	}
	if p.rounds == 0 {
		p.rounds = rounds
	}
	if p.seconds == 0 {
		p.seconds = seconds
	}
	if p.rounds < 1 || p.seconds <= 0 {
		return nil, errors.New("rounds and seconds are more than 0")
	}
	return p, p.choose(*only, *names, *quick)
}

// choose fills in the cells and peers.
func (p *plan) choose(only, names string, quick bool) error {
	expression, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	for _, c := range allCells(time.Duration(p.seconds * float64(time.Second))) {
		if expression.MatchString(c.name) && (!quick || only != "" || c.quick) {
			p.cells = append(p.cells, c)
		}
	}
	if p.cells == nil {
		return fmt.Errorf("no cell is called %q; -list prints their names", only)
	}
	if names == "" {
		p.peers = peers.All()
		return nil
	}
	for name := range strings.SplitSeq(names, ",") {
		peer := peers.Find(strings.TrimSpace(name))
		if peer == nil {
			return fmt.Errorf("no peer is called %q; -list prints their names", name)
		}
		p.peers = append(p.peers, peer)
	}
	return nil
}

func printNames(w io.Writer) {
	fmt.Fprintln(w, "cells:")
	for _, c := range allCells(time.Second) {
		fmt.Fprintf(w, "  %-20s %s\n", c.name, c.title)
	}
	fmt.Fprintln(w, "peers:")
	for _, p := range peers.All() {
		fmt.Fprintf(w, "  %-20s %s\n", p.Name, p.About)
	}
}
