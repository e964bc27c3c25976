package session_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"gobnode/internal/session"
)

// TestTable compares a table with a map, over numbers that rise as they should and numbers that a peer chose so that all of them
// want the same slot.
func TestTable(t *testing.T) {
	seed := seedOf(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		var table session.Table
		model := make(map[uint64]*session.Stream)
		step := uint64(2) << rng.IntN(12)
		next := [2]uint64{2, 1}
		var numbers []uint64
		for range 2000 {
			switch x := rng.IntN(10); {
			case x < 5:
				side := rng.IntN(2)
				st := session.NewNumbered(next[side])
				next[side] += step
				if rng.IntN(4) == 0 {
					next[side] += 2 * rng.Uint64N(1000)
				}
				table.Put(st)
				model[st.Number()] = st
				numbers = append(numbers, st.Number())
			case x < 9 && len(numbers) > 0:
				id := numbers[rng.IntN(len(numbers))]
				require.Same(t, model[id], table.Get(id))
				if st := model[id]; st != nil {
					table.Remove(st)
					delete(model, id)
				}
				require.Nil(t, table.Get(id))
				table.Remove(session.NewNumbered(id))
			default:
				odd := func(id uint64) bool { return id/2%7 == uint64(x) }
				table.RemoveAll(odd)
				for id := range model {
					if odd(id) {
						delete(model, id)
					}
				}
			}
		}
		require.Equal(t, model, table.All())
		for id := range model {
			require.Same(t, model[id], table.Get(id))
		}
	}
}

// TestPace: a reader beside which nobody can run seldom tries to let others run, and never does after a read of many frames.
func TestPace(t *testing.T) {
	in(t, func(t *testing.T) { // no time passes
		var p session.Pace
		for _, pass := range []int{1, 3, 7, 15, 31, 31} {
			require.Equal(t, pass, p.After(1))
			for left := pass - 1; left >= 0; left-- {
				require.Equal(t, left, p.After(4))
			}
		}
		require.Zero(t, p.After(5))
		require.Equal(t, 31, p.After(1))
		require.Equal(t, 31, p.After(5))
	})
}
