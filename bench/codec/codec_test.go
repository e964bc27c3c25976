package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

// subjects verifies that every codec gives the value back.
func TestSubjects(t *testing.T) {
	for _, v := range values {
		all, err := v.subjects()
		if err != nil {
			t.Error(err)
			continue
		}
		for _, s := range all {
			if s.equal(nil) || s.equal(new(Small)) {
				t.Errorf("%s: %s takes anything for the value", v.name, s.codec)
			}
		}
	}
}

func TestRun(t *testing.T) {
	var out, progress bytes.Buffer
	p := plan{rounds: minRounds, slice: 10 * time.Microsecond, procs: 2}
	if _, err := p.all("", &out, &progress); err != nil {
		t.Fatal(err)
	}
	rows := strings.Count(out.String(), "\n| ")
	if want := 1 + len(values)*6; rows != want {
		t.Errorf("%d rows with the heading, want %d:\n%s", rows, want, out.String())
	}
	said := strings.Count(out.String(), "\nmet:") + strings.Count(out.String(), "\nMISSED:")
	if want := len(targets) + len(values); said != want {
		t.Errorf("%d verdicts, want %d:\n%s", said, want, out.String())
	}
	if !strings.Contains(progress.String(), "large") {
		t.Error("no progress was shown")
	}
}

// A verdict can fail, and makes the whole fail.
func TestVerdicts(t *testing.T) {
	same := cost{ns: []float64{6, 5, 7}, allocs: []float64{0, 0, 0}}
	half := cost{ns: []float64{3, 2.5, 3.5}, allocs: []float64{0, 0, 0}}
	for _, c := range []struct {
		name string
		own  cost
		met  bool
	}{
		{"at the bound", half, true},
		{"over the bound", same, false},
		{"an allocation", cost{ns: half.ns, allocs: []float64{0, 1, 1}}, false},
	} {
		results := []*result{
			{value: "medium", codec: gobnode, encode: c.own, both: c.own},
			{value: "medium", codec: gobPair, encode: same, both: same},
			{value: "medium", codec: protobuf, encode: same, both: same},
		}
		var out bytes.Buffer
		if met := verdicts(&out, results); met != c.met {
			t.Errorf("%s: met = %t\n%s", c.name, met, out.String())
		}
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "8"}, {"-value", "huge"}, {"-slice", "0"}, {"-procs", "0"}, {"-unknown"}} {
		if status := run(args, io.Discard, io.Discard); status != 2 {
			t.Errorf("%v: exit status %d, want 2", args, status)
		}
	}
}

// BenchmarkCodec is the same codecs under go test, for profiles:
//
//	go test -run '^$' -bench Codec/medium/gobnode -cpuprofile cpu.out ./codec
func BenchmarkCodec(b *testing.B) {
	for _, v := range values {
		all, err := v.subjects()
		if err != nil {
			b.Fatal(err)
		}
		for _, s := range all {
			name := v.name + "/" + s.codec
			b.Run(name+"/encode", func(b *testing.B) { repeat(b, s.encodeTimes) })
			b.Run(name+"/decode", func(b *testing.B) { repeat(b, s.decodeTimes) })
		}
	}
}

func repeat(b *testing.B, times func(int) error) {
	b.ReportAllocs()
	for b.Loop() {
		if err := times(1); err != nil {
			b.Fatal(err)
		}
	}
}
