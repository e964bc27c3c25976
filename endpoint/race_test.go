//go:build race

package endpoint_test

// raceEnabled: tests that measure allocation do not under the race detector.
const raceEnabled = true
