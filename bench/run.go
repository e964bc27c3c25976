package main

import (
	"context"
	"path/filepath"
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

// run takes all samples. In a round of a cell its peers follow each other, and every round begins with another peer. A peer that fails
// at a cell is not tried there again. The error is that of a run that was interrupted.
func (p *plan) run(ctx context.Context, progress *progress) (*samples, error) {
	s := newSamples(p)
	defer progress.end()
	for round := range p.rounds {
		for _, c := range p.cells {
			if round >= p.roundsOf(c) {
				continue
			}
			who := p.of(c)
			for i := range who {
				peer := who[(i+round)%len(who)]
				one := s.of(c, peer)
				if one.err == nil {
					progress.show(round+1, p.rounds, c.name, peer.Name)
					one.add(p.sample(ctx, c, peer))
				}
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				progress.did(c.cost())
			}
		}
	}
	return s, nil
}

func (p *plan) sample(ctx context.Context, c *cell, peer *peers.Peer) (load.Figures, error) {
	spec := c.spec
	spec.Peer = peer.Name
	if p.profile != "" {
		spec.Profile = filepath.Join(p.profile, strings.ReplaceAll(c.name+"-"+peer.Name, "/", "-"))
	}
	return process.Sample(ctx, spec, c.limit())
}
