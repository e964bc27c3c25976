//go:build race

package endpoint_test

// raceEnabled says that the race detector distorts the sizes of stacks.
const raceEnabled = true
