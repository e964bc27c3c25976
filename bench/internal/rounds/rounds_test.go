package rounds_test

import (
	"testing"
	"time"

	"gobnode/bench/internal/rounds"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		want rounds.Spread
	}{
		{[]float64{3}, rounds.Spread{Median: 3, Low: 3, High: 3}},
		{[]float64{9, 1, 2}, rounds.Spread{Median: 2, Low: 1, High: 9}},
		{[]float64{4, 1, 2, 8}, rounds.Spread{Median: 3, Low: 1, High: 8}},
	} {
		if got := rounds.Of(c.xs); got != c.want {
			t.Errorf("Of(%v) = %v, want %v", c.xs, got, c.want)
		}
	}
}

// The median of the ratios is not the ratio of the medians: a slow round slows both.
func TestRatio(t *testing.T) {
	got := rounds.Ratio([]float64{1, 20, 3}, []float64{2, 40, 3})
	if want := (rounds.Spread{Median: 0.5, Low: 0.5, High: 1}); got != want {
		t.Errorf("Ratio = %v, want %v", got, want)
	}
}

func TestCPUTimeMoves(t *testing.T) {
	begin, deadline := rounds.CPUTime(), time.Now().Add(10*time.Second)
	for rounds.CPUTime() == begin {
		if time.Now().After(deadline) {
			t.Fatal("CPUTime stands still")
		}
	}
}
