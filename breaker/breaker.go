// Package breaker gives the nodes of an [endpoint.Client] circuit breakers, those
// of github.com/sony/gobreaker:
//
//	d := endpoint.Dialer{Breaker: breaker.New(breaker.Config{})}
//
// A node that fails half of its calls gets none for a while, then a few to see
// whether it is well again. What counts as a failure is that the node did not
// answer, or had no room; an error that a handler returned is an answer.
package breaker

import (
	"math/rand/v2"
	"slices"
	"time"

	"gobnode/endpoint"

	"github.com/sony/gobreaker/v2"
)

// A Config says when a breaker opens and closes. A zero field means the default
// in its comment.
type Config struct {
	Calls   int           // 20: with fewer in Window it stays closed
	Failed  float64       // 0.5: the share of failures at which it opens
	Window  time.Duration // 10 s: what the share is taken of, in steps of a tenth
	Open    time.Duration // 5 s, up to 20 % more or less: how long it keeps calls away
	Probes  int           // 3: calls that must succeed, at once at most, before it closes
	OnState func(addr, from, to string)
}

func (c Config) withDefaults() Config {
	if c.Calls <= 0 {
		c.Calls = 20
	}
	if c.Failed <= 0 {
		c.Failed = 0.5
	}
	if c.Window <= 0 {
		c.Window = 10 * time.Second
	}
	if c.Open <= 0 {
		c.Open = 5 * time.Second
	}
	if c.Probes <= 0 {
		c.Probes = 3
	}
	return c
}

// New returns what Dialer.Breaker takes: a function that makes a breaker for each
// node. OnState, if not nil, is called when one changes between "closed",
// "open" and "half-open"; it must not block.
func New(c Config) func(addr string) endpoint.Breaker {
	c = c.withDefaults()
	return func(addr string) endpoint.Breaker {
		return gobreaker.NewTwoStepCircuitBreaker[struct{}](c.settings(addr))
	}
}

func (c Config) settings(addr string) gobreaker.Settings {
	s := gobreaker.Settings{
		Name: addr, MaxRequests: uint32(min(c.Probes, 1<<30)), Interval: c.Window, BucketPeriod: c.Window / 10,
		// Many clients that lost the same node are not to probe it all at once.
		Timeout: c.Open*8/10 + rand.N(c.Open*4/10+1),
		ReadyToTrip: func(n gobreaker.Counts) bool {
			valid := n.Requests - min(n.TotalExclusions, n.Requests)
			return uint64(valid) >= uint64(c.Calls) && float64(n.TotalFailures) >= c.Failed*float64(valid)
		},
		IsSuccessful: func(err error) bool { return !failed(err) },
		IsExcluded:   excluded,
	}
	if c.OnState != nil {
		s.OnStateChange = func(name string, from, to gobreaker.State) { c.OnState(name, from.String(), to.String()) }
	}
	return s
}

// failed reports whether err says something of the node: it did not answer, or
// had no room. What a handler said is an answer.
func failed(err error) bool {
	if err == nil || endpoint.OutcomeOf(err) == endpoint.OutcomeFailed {
		return false
	}
	return slices.Contains(ofTheNode, endpoint.CodeOf(err))
}

// ofTheNode are the codes of failures that another node may not have.
var ofTheNode = []endpoint.Code{endpoint.Unavailable, endpoint.ResourceExhausted, endpoint.DeadlineExceeded, endpoint.Internal}

// excluded reports whether err says nothing either way: the caller gave up.
func excluded(err error) bool {
	return endpoint.CodeOf(err) == endpoint.Canceled && endpoint.OutcomeOf(err) != endpoint.OutcomeFailed
}
