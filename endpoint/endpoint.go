package endpoint

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gobnode/internal/netaddr"
	"gobnode/internal/session"

	"github.com/pkg/errors"
)

// DefaultAddr is where Listen listens when it is given no address.
const DefaultAddr = netaddr.Default

// An Endpoint listens and dispatches named commands. The zero value is ready.
// Exported fields are set before the first Listen, Serve or ServeConn; methods
// may be called at any time from any goroutine, registering commands while
// serving included. An Endpoint must not be copied after first use.
type Endpoint struct {
	// TLS, if set, makes every connection TLS from its first byte. The least
	// version is 1.3 unless MinVersion says otherwise. The configuration is
	// cloned.
	TLS *tls.Config

	// Logger takes what cannot be returned to anybody; nil: slog.Default().
	Logger *slog.Logger

	// Interceptors run around every command; the first is outermost.
	Interceptors []Interceptor

	// ConnContext, if set, derives the context of a connection's commands. The
	// connection is given as its peer sees it: a *tls.Conn under TLS. It must
	// not be read from or written to.
	ConnContext func(context.Context, net.Conn) context.Context

	// Heartbeat is for how long the peer of a session may send nothing before it
	// is asked for a sign of life: 15 s, or what the peer wishes if that is
	// longer; between 1 s and 2 min. So that not all ask at once it is up to a
	// quarter less. A peer that has sent nothing for 10 s after that is taken for
	// gone.
	Heartbeat time.Duration

	// Spin is for how long a session that has got one small message looks for the
	// next by itself before it waits for the system to bring it: 0, the default, not
	// at all; 100 µs suits a loopback or a rack; 1 ms is the most. A processor that
	// has gone to sleep takes 20 to 100 µs to wake, more than the rest of a lone
	// caller's call: where both ends spin, its time falls to a third. The price is
	// up to a processor at each end for as long as such messages come. Sessions with
	// many calls at once do not spin, nor do any over TLS; those that looked in vain
	// spare the next three messages.
	Spin time.Duration

	// Limits bound what peers can make the process hold.
	Limits Limits

	once      sync.Once
	limits    Limits          // with defaults
	tlsConfig *tls.Config     // a clone of TLS
	inFlight  *session.Budget // of Limits.InFlight
	buffers   sync.Pool       // of *buffers
	stop      chan struct{}   // closed when closing begins
	ended     chan struct{}   // closed when all has ended
	closing   atomic.Bool     // set under mu
	back      backCalls
	workers   session.Workers // used while there are listeners, connections, or sessions that call back
	tally     tally

	mu         sync.RWMutex // guards following
	handlers   map[string]*entry
	docs       map[string]string
	listeners  []*net.Listener // pointers, because not every listener can be compared
	conns      map[*lineConn]struct{}
	locals     map[*localCall]struct{}
	turnedAway int    // those of conns that are over Limits.Connections
	inProcess  int    // those of conns that are streams in process, which do not count
	accepting  int    // running calls of Serve
	refused    seldom // newcomers turned away
}

// New returns an endpoint with no commands. It is the same as new(Endpoint).
func New() *Endpoint { return new(Endpoint) }

// init settles the configuration at the first use that serves.
func (e *Endpoint) init() {
	e.once.Do(func() {
		e.stop = make(chan struct{})
		e.ended = make(chan struct{})
		e.limits = e.Limits.withDefaults()
		e.inFlight = newBudget(e.limits.InFlight)
		e.back.ctx, e.back.cancel = context.WithCancelCause(context.Background())
		if e.TLS != nil {
			e.tlsConfig = e.TLS.Clone()
			if e.tlsConfig.MinVersion == 0 {
				e.tlsConfig.MinVersion = tls.VersionTLS13
			}
		}
	})
}

func (e *Endpoint) logger() *slog.Logger { return loggerOr(e.Logger) }

func loggerOr(l *slog.Logger) *slog.Logger {
	if l != nil {
		return l
	}
	return slog.Default()
}

// Listen listens on addr and serves until Shutdown or Close; its error is
// Serve's, or says why it could not listen. addr is "host:port" or
// "unix:path"; a missing port is that of DefaultAddr, and "" is DefaultAddr.
func (e *Endpoint) Listen(addr string) error {
	l, err := netaddr.Listen(context.Background(), addr)
	if err != nil {
		return errors.WithStack(err)
	}
	return e.Serve(l)
}

// Serve accepts connections from l and serves them until Shutdown or Close,
// after which its error is ErrClosed, or until l fails for good. It closes l.
// Passing failures, such as a lack of file descriptors, are waited out with a
// pause of 5 ms that doubles up to 1 s. The error is never nil.
func (e *Endpoint) Serve(l net.Listener) error {
	e.init()
	if !e.addListener(&l) {
		_ = l.Close()
		return ErrClosed
	}
	defer e.removeListener(&l)
	tuned := setUserTimeout(l)
	var failures seldom
	for pause := time.Duration(0); ; {
		c, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			if !tuned {
				setUserTimeout(c)
			}
			e.admit(c)
		case e.closing.Load():
			return ErrClosed
		case !passing(err):
			return errors.Wrap(err, "accept")
		default:
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			if n, tell := failures.count(); tell {
				e.logger().Warn("cannot accept, trying again", "error", err, "failed", n, "pause", pause)
			}
			if !e.sleep(pause) {
				return ErrClosed
			}
		}
	}
}

// seldom counts events of which the log tells once a second at most.
type seldom struct {
	told   time.Time
	untold int
}

// count counts one more. If it is to be told of, n is how many there were since
// the last time.
func (s *seldom) count() (n int, tell bool) {
	s.untold++
	if time.Since(s.told) < time.Second {
		return 0, false
	}
	n, s.untold, s.told = s.untold, 0, time.Now()
	return n, true
}

// passing reports whether an error of Accept may be gone the next time.
func passing(err error) bool {
	for _, e := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// sleep waits for d, or until the endpoint closes: then it returns false.
func (e *Endpoint) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-e.stop:
		return false
	}
}

// ServeConn serves one connection until it ends, and closes it. The handlers'
// contexts are derived from ctx; when ctx ends, the connection is cut. It may
// be called on an endpoint that listens as well.
func (e *Endpoint) ServeConn(ctx context.Context, c net.Conn) {
	e.init()
	lc := newLineConn(ctx, e, c)
	lc.done = make(chan struct{})
	if full, err := e.add(lc); err != nil {
		_ = c.Close()
		return
	} else if full {
		e.tellFull(lc)
	}
	stop := context.AfterFunc(ctx, lc.cut)
	defer stop()
	lc.start()
	<-lc.done
}

// admit serves a newcomer on a goroutine of its own, or turns it away.
func (e *Endpoint) admit(c net.Conn) {
	lc := newLineConn(context.Background(), e, c)
	full, err := e.add(lc)
	if err != nil {
		_ = c.Close()
		return
	}
	if full {
		e.tellFull(lc)
	}
	lc.start()
}

// maxTurnedAway bounds the newcomers over Limits.Connections that are told so
// at a time; more are closed without a word.
const maxTurnedAway = 64

// add takes c among the connections. full says that it is one too many and is
// to be told so; an error, that it is to be closed at once.
func (e *Endpoint) add(c *lineConn) (full bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing.Load() {
		return false, ErrClosed
	}
	if c.inProcess {
		e.inProcess++
	} else if limit := e.limits.Connections; limit > 0 && len(e.conns)-e.turnedAway-e.inProcess >= limit {
		e.tally.add("Connections")
		if e.turnedAway >= maxTurnedAway {
			e.refused.untold++
			return false, errors.New("too many connections")
		}
		e.turnedAway++
		c.turnedAway = true
	}
	if e.conns == nil {
		e.conns = make(map[*lineConn]struct{})
	}
	e.conns[c] = struct{}{}
	e.workers.Hold()
	return c.turnedAway, nil
}

// tellFull logs that a newcomer is turned away, once a second at most.
func (e *Endpoint) tellFull(c *lineConn) {
	e.mu.Lock()
	n, tell := e.refused.count()
	e.mu.Unlock()
	if tell {
		e.logger().Warn("connection refused: too many", "limit", "Connections",
			"value", e.limits.Connections, "peer", &c.peer, "refused", n)
	}
}

// remove forgets c, whose goroutine is about to end.
func (e *Endpoint) remove(c *lineConn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.turnedAway {
		e.turnedAway--
	}
	if c.inProcess {
		e.inProcess--
	}
	delete(e.conns, c)
	e.workers.Release()
	e.checkEnded()
}

func (e *Endpoint) addListener(l *net.Listener) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing.Load() {
		return false
	}
	e.listeners = append(e.listeners, l)
	e.accepting++
	e.workers.Hold()
	return true
}

func (e *Endpoint) removeListener(l *net.Listener) {
	_ = (*l).Close()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.listeners = slices.DeleteFunc(e.listeners, func(other *net.Listener) bool { return other == l })
	e.accepting--
	e.workers.Release()
	e.checkEnded()
}

// checkEnded tells those who wait that nothing is left. It is called with mu
// held, after every change that could be the last.
func (e *Endpoint) checkEnded() {
	if e.closing.Load() && len(e.conns) == 0 && len(e.locals) == 0 && e.accepting == 0 && e.back.n.Load() == 0 {
		select {
		case <-e.ended:
		default:
			close(e.ended)
		}
	}
}

// Addr returns the address of the first listener that is being served, nil if
// there is none.
func (e *Endpoint) Addr() net.Addr {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if len(e.listeners) == 0 {
		return nil
	}
	return (*e.listeners[0]).Addr()
}
