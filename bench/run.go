package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gobnode/bench/internal/load"
	"gobnode/bench/internal/peers"
	"gobnode/bench/internal/process"
)

// of returns the plan's peers that are measured in c.
func (p *plan) of(c *cell) []*peers.Peer {
	var who []*peers.Peer
	for _, peer := range p.peers {
		if c.kind.who(peer) {
			who = append(who, peer)
		}
	}
	return who
}

// roundsOf returns how many rounds c has.
func (p *plan) roundsOf(c *cell) int {
	if c.most > 0 {
		return min(p.rounds, c.most)
	}
	return p.rounds
}

// cost is roughly how long the run takes.
func (p *plan) cost() (d time.Duration) {
	for _, c := range p.cells {
		d += time.Duration(p.roundsOf(c)*len(p.of(c))) * c.cost()
	}
	return d
}

// wants says whether c is to have a round of that number: as many as planned, and up to half as many more while samples of it are
// dropped.
func (p *plan) wants(c *cell, s *samples, round int) bool {
	planned := p.roundsOf(c)
	if round < planned || round >= planned+planned/2 {
		return round < planned
	}
	return slices.ContainsFunc(p.of(c), func(peer *peers.Peer) bool {
		one := s.of(c, peer)
		return one.err == nil && one.used(c) < planned
	})
}

// run takes all samples. The error is that of a run that was interrupted.
func (p *plan) run(ctx context.Context, progress *progress) (*samples, error) {
	s := newSamples(p)
	defer progress.end()
	for round := range p.rounds + p.rounds/2 {
		for _, c := range p.cells {
			if !p.wants(c, s, round) {
				continue
			}
			if round >= p.roundsOf(c) {
				progress.more(time.Duration(len(p.of(c))) * c.cost())
			}
			p.round(ctx, c, s, round, progress)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
		}
	}
	return s, nil
}

// round takes a sample of each peer at c, one after the other; every round begins with another. A peer that has failed is not tried again.
func (p *plan) round(ctx context.Context, c *cell, s *samples, round int, progress *progress) {
	who := p.of(c)
	for i := range who {
		peer := who[(i+round)%len(who)]
		if one := s.of(c, peer); one.err == nil && ctx.Err() == nil {
			progress.show(round+1, p.rounds, c.name, peer.Name)
			one.add(p.sample(ctx, c, peer))
		}
		progress.did(c.cost())
	}
}

func (p *plan) sample(ctx context.Context, c *cell, peer *peers.Peer) (load.Figures, error) {
	spec := c.spec
	spec.Peer = peer.Name
	if p.profile != "" {
		spec.Profile = filepath.Join(p.profile, strings.ReplaceAll(c.name+"-"+peer.Name, "/", "-"))
	}
	return process.Sample(ctx, spec, c.limit())
}
