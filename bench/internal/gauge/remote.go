package gauge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// An Order is what a client asks of its server's process beside the calls.
type Order struct {
	Op    Op
	N     int
	Pause time.Duration
	Path  string
}

// An Op is what an Order asks for. The answer to each is the usage, after it was done.
type Op string

// The orders.
const (
	OpRead     Op = "read"
	OpCollect  Op = "collect"  // garbage, once
	OpSettle   Op = "settle"   // as Settled
	OpProfile  Op = "profile"  // begin a CPU profile, to the file at Path
	OpProfiled Op = "profiled" // end it
	OpSleep    Op = "sleep"    // one call in N sleeps for Pause; N = 0: none
	OpRegister Op = "register" // N more commands
)

type answer struct {
	Usage Usage
	Err   string `json:",omitempty"`
}

// Answer answers the orders of every connection that l accepts, until it fails. do carries out what is not of this package.
func Answer(l net.Listener, do func(Order) error) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go answerOne(c, do)
	}
}

// answerOne ends with its connection.
func answerOne(c net.Conn, do func(Order) error) {
	defer c.Close()
	in, out := json.NewDecoder(c), json.NewEncoder(c)
	for {
		var o Order
		if in.Decode(&o) != nil {
			return
		}
		if out.Encode(carryOut(o, do)) != nil {
			return
		}
	}
}

func carryOut(o Order, do func(Order) error) answer {
	var err error
	switch o.Op {
	case OpRead:
	case OpCollect:
		return answer{Usage: Collected()}
	case OpSettle:
		return answer{Usage: Settled()}
	case OpProfile:
		err = StartProfile(o.Path)
	case OpProfiled:
		err = StopProfile()
	case OpSleep, OpRegister:
		err = do(o)
	default:
		err = errors.New("unknown")
	}
	if err != nil {
		return answer{Err: err.Error()}
	}
	return answer{Usage: Read()}
}

// A Remote is another process that answers orders. It is for one goroutine.
type Remote struct {
	c   net.Conn
	in  *json.Decoder
	out *json.Encoder
}

// Reach connects to the process that answers orders at addr.
func Reach(ctx context.Context, addr string) (*Remote, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Remote{c: c, in: json.NewDecoder(c), out: json.NewEncoder(c)}, nil
}

// Close closes the connection.
func (r *Remote) Close() error { return r.c.Close() }

// Do has o carried out and returns the usage after it.
func (r *Remote) Do(o Order) (Usage, error) {
	if err := r.out.Encode(o); err != nil {
		return Usage{}, fmt.Errorf("order %q: %w", o.Op, err)
	}
	var a answer
	if err := r.in.Decode(&a); err != nil {
		return Usage{}, fmt.Errorf("order %q: %w", o.Op, err)
	}
	if a.Err != "" {
		return Usage{}, fmt.Errorf("order %q: %w", o.Op, errors.New(a.Err))
	}
	return a.Usage, nil
}
