package endpoint

import (
	"context"
	"net"
	"time"
)

const (
	// raceDelay is after which time without an answer the next address is tried
	// beside the last.
	raceDelay = 300 * time.Millisecond

	// While a call waits, addresses that do not answer are tried anew after
	// againDelay, each time for againTime: TCP's own repetition comes after 1 s,
	// then 2 s, and a host that is back should be found within 200 ms.
	againDelay = 150 * time.Millisecond
	againTime  = time.Second
)

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// hosts returns the addresses to try for address: one for each IP address of
// its host, in the resolver's order.
func hosts(ctx context.Context, lookup func(context.Context, string) ([]string, error), address string) ([]string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || net.ParseIP(host) != nil {
		return []string{address}, nil
	}
	ips, err := lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	for i, ip := range ips {
		ips[i] = net.JoinHostPort(ip, port)
	}
	return ips, nil
}

// A race is the attempts to connect to one of several addresses.
type race struct {
	dial    dialFunc
	network string
	hurried func() bool // a call waits; nil: never
	results chan raced
	running int
	failed  error // the first
}

type raced struct {
	c   net.Conn
	err error
}

// run connects to the first of addresses that answers. The next one is tried when
// one fails, or after raceDelay. Its error is that of the first which failed.
func (r *race) run(ctx context.Context, addresses []string) (net.Conn, error) {
	if len(addresses) == 1 && r.hurried == nil {
		return r.dial(ctx, r.network, addresses[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.results = make(chan raced)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next := 0; ; {
		select {
		case <-timer.C:
			switch {
			case next < len(addresses):
				r.start(ctx, addresses[next], 0)
				if next++; next < len(addresses) {
					timer.Reset(raceDelay)
				} else {
					timer.Reset(againDelay)
				}
			case r.hurried == nil:
			case r.hurried():
				r.start(ctx, addresses[next%len(addresses)], againTime)
				next++
				timer.Reset(againDelay)
			default:
				timer.Reset(againDelay)
			}
		case got := <-r.results:
			if r.running--; got.err == nil {
				return got.c, nil
			}
			if r.failed == nil {
				r.failed = got.err
			}
			if next < len(addresses) {
				timer.Reset(0)
			} else if r.running == 0 {
				return nil, r.failed
			}
		case <-ctx.Done():
			if r.failed == nil {
				r.failed = ctx.Err()
			}
			return nil, r.failed
		}
	}
}

func (r *race) start(ctx context.Context, address string, limit time.Duration) {
	r.running++
	go r.attempt(ctx, address, limit)
}

// attempt makes one connection. It ends with the attempt; a connection that
// nobody waits for any more is closed.
func (r *race) attempt(ctx context.Context, address string, limit time.Duration) {
	dialing := ctx
	if limit > 0 {
		var cancel context.CancelFunc
		dialing, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	c, err := r.dial(dialing, r.network, address)
	select {
	case r.results <- raced{c, err}:
	case <-ctx.Done():
		if err == nil {
			_ = c.Close()
		}
	}
}
