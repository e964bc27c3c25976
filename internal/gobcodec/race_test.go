//go:build race

package gobcodec_test

const raceEnabled = true
