//go:build race

package endpoint_test

// raceEnabled says that the race detector distorts the sizes of stacks and the counts of allocations.
const raceEnabled = true
