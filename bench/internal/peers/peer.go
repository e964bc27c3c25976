// Package peers is the echo service on each of the systems that are measured, one file each.
package peers

import (
	"context"
	"net"
	"slices"

	"gobnode/bench/internal/echo"
)

// A Peer is one system, in one set-up.
type Peer struct {
	Name   string
	Module string // that has its version; "" is Go's
	About  string // the set-up measured, where it is not the defaults

	OneCall bool // a connection carries one call at a time: as many connections as callers
	Lazy    bool // Dial leaves the connecting to the first call
	Streams bool // its connections are Streamers
	Names   bool // its servers are Registrars, its connections Namers
	Buffers bool // a connection waits with its buffers, as no real system would have to

	NewServer func(h *echo.Handler) (Server, error)
	Dial      func(ctx context.Context, addr string) (Conn, error)
}

// A Server serves connections until its process ends.
type Server interface {
	Serve(l net.Listener) error
}

// A Registrar is a Server that can be given more commands.
type Registrar interface {
	// Register adds commands that echo, named Command(0) to Command(n-1).
	Register(n int)
}

// A Conn is a client's connection. Its methods but Close may be called from any number of goroutines.
type Conn interface {
	NewCaller(body int) Caller
	Close() error
}

// A Caller makes calls with messages of one size, for one goroutine: it sends the message with that ID and compares the reply.
type Caller func(ctx context.Context, id uint64) error

// A Streamer is a Conn that carries streams beside calls.
type Streamer interface {
	Stream(ctx context.Context, body int) (Stream, error)
}

// A Namer is a Conn to a Registrar.
type Namer interface {
	// NewNamedCaller is as NewCaller; its calls go to the n registered commands in turn.
	NewNamedCaller(body, n int) Caller
}

// A Stream carries messages one way. It is for one goroutine.
type Stream interface {
	Send(id uint64) error
	// Finish says that no more comes and returns what the receiver got.
	Finish() (echo.Total, error)
}

// All returns the peers: this library first, then the others, the floor last.
func All() []*Peer {
	return []*Peer{gobnode(), spinning(), netRPC(), grpcPlain(), grpcWorkers(), drpcPeer(), connectPeer(), bare()}
}

// Find returns the peer of that name, nil if there is none.
func Find(name string) *Peer {
	all := All()
	if i := slices.IndexFunc(all, func(p *Peer) bool { return p.Name == name }); i >= 0 {
		return all[i]
	}
	return nil
}
