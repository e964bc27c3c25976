package load

import (
	"testing"
	"time"
)

func TestLatencies(t *testing.T) {
	l := newLatencies()
	for i := range 1000 {
		l.add(i, time.Duration(i+1)*time.Microsecond)
	}
	l.add(0, 0)
	l.add(1, time.Hour)
	for q, want := range map[float64]float64{50: 500, 99: 990} {
		if got := l.quantile(q); got < want*0.98 || got > want*1.02 {
			t.Errorf("quantile %v is %v µs, want %v", q, got, want)
		}
	}
}
