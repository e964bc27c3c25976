package main

import (
	"fmt"
	"io"

	"gobnode/bench/internal/rounds"
)

// A target bounds gobnode's time to encode and decode a value as a share of another codec's.
type target struct {
	value, codec string
	most         float64
}

var targets = []target{
	{"small", gobPair, 0.5},
	{"medium", gobPair, 0.5},
	{"node", gobPair, 0.5},
	{"large", gobPair, 0.5},
	{"small", gobFresh, 0.07},
	{"medium", protobuf, 0.55},
	{"node", protobuf, 0.55},
	{"large", protobuf, 0.55},
}

// strayAllocs is what an operation that allocates nothing may seem to allocate: the runtime's own few allocations while it is
// measured, spread over hundreds of operations or more.
const strayAllocs = 0.005

// table writes the results as Markdown. The last three columns are gobnode's time by that of the row's codec.
func table(w io.Writer, results []*result) {
	fmt.Fprintln(w, "| value | codec | wire, B | encode, ns | B | allocs | decode, ns | B | allocs | both, ns | B | allocs "+
		"| gobnode by this: encode | decode | both (lowest to highest) |")
	fmt.Fprintln(w, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
	for _, r := range results {
		own := find(results, r.value, gobnode)
		both := ratio(own.both, r.both)
		fmt.Fprintf(w, "| %s | %s | %d |%s|%s|%s| %.2f | %.2f | %.2f (%.2f to %.2f) |\n", r.value, r.codec, r.wire,
			cells(r.encode), cells(r.decode), cells(r.both),
			ratio(own.encode, r.encode).Median, ratio(own.decode, r.decode).Median, both.Median, both.Low, both.High)
	}
}

func cells(c cost) string {
	return fmt.Sprintf(" %.0f | %.0f | %.0f ", rounds.Of(c.ns).Median, rounds.Of(c.bytes).Median, rounds.Of(c.allocs).Median)
}

// verdicts writes a line for each target that the results have figures for, and reports whether all were met.
func verdicts(w io.Writer, results []*result) (met bool) {
	met = true
	say := func(ok bool, format string, args ...any) {
		word := "met:   "
		if !ok {
			word, met = "MISSED:", false
		}
		fmt.Fprintf(w, word+" "+format+"\n", args...)
	}
	for _, t := range targets {
		own, other := find(results, t.value, gobnode), find(results, t.value, t.codec)
		if own == nil {
			continue
		}
		r := ratio(own.both, other.both)
		say(r.Median <= t.most, "%s, encode + decode: %.3f of %s (%.3f to %.3f), to be at most %.2f",
			t.value, r.Median, t.codec, r.Low, r.High, t.most)
	}
	for _, r := range results {
		if r.codec == gobnode {
			allocs := rounds.Of(r.encode.allocs).Median
			say(allocs < strayAllocs, "%s, encode: %.3f allocations, to be none", r.value, allocs)
		}
	}
	return met
}

// find returns nil if the value was not measured.
func find(results []*result, value, codec string) *result {
	for _, r := range results {
		if r.value == value && r.codec == codec {
			return r
		}
	}
	return nil
}
