package endpoint_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// certs are an authority's certificate, one for localhost and one for a client,
// valid from long before the year 2000, in which bubbles begin.
var certs = sync.OnceValue(func() (c struct {
	pool           *x509.CertPool
	server, client tls.Certificate
},
) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	template := func(n int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			DNSNames:    []string{name},
		}
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	authority := template(1, "authority")
	authority.IsCA, authority.BasicConstraintsValid = true, true
	authority.KeyUsage |= x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	must(err)
	authority, err = x509.ParseCertificate(der)
	must(err)
	sign := func(n int64, name string) tls.Certificate {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		der, err := x509.CreateCertificate(rand.Reader, template(n, name), authority, &key.PublicKey, authorityKey)
		must(err)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	c.server, c.client = sign(2, "localhost"), sign(3, "a-client")
	c.pool = x509.NewCertPool()
	c.pool.AddCert(authority)
	return c
})

func serverTLS() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{certs().server}} }
func clientTLS() *tls.Config { return &tls.Config{RootCAs: certs().pool, ServerName: "localhost"} }

// withTLS gives the endpoint a TLS configuration.
func withTLS(e *endpoint.Endpoint) { e.TLS = serverTLS() }

// handshake makes a TLS client of c.
func (c *client) handshake(config *tls.Config) (*client, error) {
	tc := tls.Client(c.Conn, config)
	if err := tc.Handshake(); err != nil {
		return nil, err
	}
	return &client{Conn: tc, t: c.t, r: bufio.NewReader(tc)}, nil
}

// dialTLS connects to n with TLS.
func (n *node) dialTLS(t *testing.T) *client {
	t.Helper()
	c, err := n.dial(t).handshake(clientTLS())
	require.NoError(t, err)
	return c
}

// dialer returns a Dialer that connects to n by whatever address.
func (n *node) dialer(config *tls.Config) *endpoint.Dialer {
	return &endpoint.Dialer{TLS: config, NetDial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		if n.mem != nil {
			return n.mem.Dial(ctx)
		}
		return new(net.Dialer).DialContext(ctx, n.net.Addr().Network(), n.net.Addr().String())
	}}
}

func TestTLS(t *testing.T) {
	bubble(t, "commands, limits, Shutdown", func(t *testing.T) {
		n := memNode(t, withTLS)
		c := n.dialTLS(t)
		for range 20 {
			c.ping()
			time.Sleep(300 * ms)
		}
		c.send("LINE " + strings.Repeat("x", 8000) + "\nPING\n")
		c.expect("line " + strings.Repeat("x", 8000) + "\nPONG\n")
		big := strings.Repeat("y", 1<<20)
		go func() { _, _ = io.WriteString(c.Conn, "LINE\n"+big+"\n") }()
		c.expect("line " + big + "\n")
		half := n.dialTLS(t)
		half.send("PI")
		half.endsAfter(10 * time.Second)
		n.only(t, "limit=Progress", half.local())
		require.NoError(t, n.Shutdown(t.Context()))
		assert.Empty(t, c.end())
	})
	bubble(t, "idle", func(t *testing.T) {
		n := memNode(t, withTLS)
		c := n.dialTLS(t)
		c.endsAfter(5 * time.Minute)
		n.only(t, "limit=Idle", c.local())
	})
	bubble(t, "a peer that takes nothing", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			withTLS(e)
			e.AddHandleFunc("FLOOD", flood(1<<20, 1<<20))
		})
		c := n.dialTLS(t)
		c.send("FLOOD\n")
		time.Sleep(10*time.Second - 1)
		synctest.Wait()
		assert.Empty(t, n.all())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		n.only(t, "limit=Progress", c.local())
	})
	bubble(t, "too many connections", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			withTLS(e)
			e.Limits.Connections = 1
		})
		n.dialTLS(t).ping()
		assert.Contains(t, n.dialTLS(t).end(), "ERR resource_exhausted not_run ")
	})
	bubble(t, "what ConnContext and handlers see", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			withTLS(e)
			e.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
				return context.WithValue(ctx, ctxKey{}, c.(*tls.Conn).ConnectionState().Version)
			}
			e.Handle("STATE", endpoint.ServeFunc(func(ctx context.Context, rw *bufio.ReadWriter) error {
				_, err := fmt.Fprintln(rw, ctx.Value(ctxKey{}), endpoint.PeerFrom(ctx).TLS().ServerName)
				return err
			}))
		})
		c := n.dialTLS(t)
		c.send("STATE\n")
		c.expect(fmt.Sprintln(tls.VersionTLS13, "localhost"))
	})
}

func TestTLSVersions(t *testing.T) {
	old, oldest := clientTLS(), clientTLS()
	old.MaxVersion = tls.VersionTLS12
	oldest.MinVersion, oldest.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for _, tt := range []struct {
		name   string
		min    uint16
		client *tls.Config
		ok     bool
	}{
		{"1.3 by default", 0, clientTLS(), true},
		{"1.2 is refused by default", 0, old, false},
		{"1.2 by configuration", tls.VersionTLS12, old, true},
		{"1.1 is refused then", tls.VersionTLS12, oldest, false},
	} {
		bubble(t, tt.name, func(t *testing.T) {
			config := serverTLS()
			config.MinVersion = tt.min
			n := memNode(t, func(e *endpoint.Endpoint) { e.TLS = config })
			c, err := n.dial(t).handshake(tt.client)
			if tt.ok {
				require.NoError(t, err)
				c.ping()
			} else {
				require.ErrorContains(t, err, "protocol version not supported")
				synctest.Wait()
				n.only(t, "TLS handshake failed", "peer=")
			}
			assert.Equal(t, tt.min, config.MinVersion, "the user's configuration is not changed")
		})
	}
	bubble(t, "a Dialer has the same floor", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			withTLS(e)
			e.TLS.MinVersion, e.TLS.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		})
		_, err := n.dialer(clientTLS()).Open(t.Context(), "localhost")
		require.ErrorContains(t, err, "protocol version")
		assert.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
		config := clientTLS()
		config.MinVersion = tls.VersionTLS12
		c, err := n.dialer(config).Open(t.Context(), "localhost")
		require.NoError(t, err)
		require.NoError(t, c.Command("PING"))
		reply, err := c.Reply()
		require.NoError(t, err)
		assert.Equal(t, "PONG", reply)
		require.NoError(t, c.Close())
	})
}

func TestTLSClientCertificates(t *testing.T) {
	start := func(t *testing.T) *node {
		return memNode(t, func(e *endpoint.Endpoint) {
			withTLS(e)
			e.TLS.ClientAuth, e.TLS.ClientCAs = tls.RequireAndVerifyClientCert, certs().pool
			e.Handle("WHO", endpoint.ServeFunc(func(ctx context.Context, rw *bufio.ReadWriter) error {
				_, err := fmt.Fprintln(rw, endpoint.PeerFrom(ctx).TLS().VerifiedChains[0][0].Subject.CommonName)
				return err
			}))
		})
	}
	bubble(t, "known", func(t *testing.T) {
		n := start(t)
		config := clientTLS()
		config.Certificates = []tls.Certificate{certs().client}
		c, err := n.dialer(config).Open(t.Context(), "localhost")
		require.NoError(t, err)
		require.NoError(t, c.Command("WHO"))
		reply, err := c.Reply()
		require.NoError(t, err)
		assert.Equal(t, "a-client", reply)
		require.NoError(t, c.Close())
	})
	bubble(t, "none", func(t *testing.T) {
		n := start(t)
		c, err := n.dialer(clientTLS()).Open(t.Context(), "localhost")
		if err == nil { // TLS 1.3 tells it with the first read
			require.NoError(t, c.Command("WHO"))
			_, err = c.Reply()
			_ = c.Close() // the other side may have gone
		}
		require.ErrorContains(t, err, "certificate required")
		synctest.Wait()
		n.only(t, "TLS handshake failed", "client didn't provide a certificate")
	})
	// On a real socket the alert must not be overtaken by the reset that unread
	// bytes of the client cause.
	t.Run("none, on a socket, with data behind the handshake", func(t *testing.T) {
		n := tcpNode(t, func(e *endpoint.Endpoint) {
			withTLS(e)
			e.TLS.ClientAuth = tls.RequireAnyClientCert
		})
		for range 20 {
			c := n.dialTLS(t)
			_, _ = io.WriteString(c.Conn, strings.Repeat("PING\n", 1000))
			_, err := io.ReadAll(c.Conn)
			require.ErrorContains(t, err, "certificate required")
			_ = c.Close()
		}
	})
}

func TestTLSHandshakeLimit(t *testing.T) {
	bubble(t, "silence", func(t *testing.T) {
		n := memNode(t, withTLS)
		c := n.dial(t)
		c.endsAfter(10 * time.Second)
		n.only(t, "limit=Handshake", "value=10s", c.local())
	})
	bubble(t, "a hello drop by drop", func(t *testing.T) {
		n := memNode(t, withTLS)
		c := n.dial(t)
		c.send("\x16\x03\x01\x02\x00")
		go func() {
			for range 30 {
				_, _ = c.Write([]byte{1})
				time.Sleep(time.Second)
			}
		}()
		synctest.Wait()
		c.endsAfter(10 * time.Second)
		n.only(t, "limit=Handshake", c.local())
		time.Sleep(time.Minute)
	})
	bubble(t, "configured", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { withTLS(e); e.Limits.Handshake = 3 * time.Second })
		c := n.dial(t)
		c.send("\x16")
		c.endsAfter(3 * time.Second)
		n.only(t, "limit=Handshake", "value=3s", c.local())
	})
	bubble(t, "none", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { withTLS(e); e.Limits.Handshake = -1 })
		c := n.dial(t)
		c.endsAfter(5 * time.Minute)
		n.only(t, "limit=Idle", c.local())
	})
	bubble(t, "not after the handshake", func(t *testing.T) {
		n := memNode(t, withTLS)
		c := n.dialTLS(t)
		time.Sleep(time.Minute)
		c.ping()
	})
	bubble(t, "gone in the middle", func(t *testing.T) {
		n := memNode(t, withTLS)
		for _, said := range []string{"", "\x16", "\x16\x03\x01\x02\x00abc"} {
			c := n.dial(t)
			c.send(said)
			synctest.Wait()
			require.NoError(t, c.Close())
		}
		synctest.Wait()
		assert.Empty(t, n.all())
	})
	bubble(t, "the Dialer's", func(t *testing.T) {
		l := memnet.Listen() // accepts nobody
		d := &endpoint.Dialer{TLS: clientTLS(), NetDial: func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Dial(ctx) }}
		start := time.Now()
		_, err := d.Open(t.Context(), "localhost")
		assert.Equal(t, 10*time.Second, time.Since(start))
		assert.ErrorIs(t, err, endpoint.DeadlineExceeded)
		assert.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
		assert.ErrorContains(t, err, "TLS with localhost:61000")
		d.Limits.Handshake = time.Second
		start = time.Now()
		_, err = d.Open(t.Context(), "localhost")
		assert.Equal(t, time.Second, time.Since(start))
		assert.ErrorIs(t, err, endpoint.DeadlineExceeded)
		d.Limits.Handshake = -1
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start = time.Now()
		_, err = d.Open(ctx, "localhost")
		assert.Equal(t, time.Hour, time.Since(start))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// TestSilentHandshakes: clients that connect and say nothing delay nobody.
func TestSilentHandshakes(t *testing.T) {
	n := tcpNode(t, withTLS)
	for range 200 {
		n.dial(t)
	}
	for range 10 {
		n.dialTLS(t).ping()
	}
}

const speaksTLS = "ERR failed_precondition not_run this port speaks TLS, and this does not look like it: connect with TLS\n"

func TestPlainOnTLS(t *testing.T) {
	for _, said := range []string{"PING\n", "STRING hello\n", "X\n", "\n", "P", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x00", strings.Repeat("PING\n", 100_000)} {
		bubble(t, fmt.Sprintf("%.10q", said), func(t *testing.T) {
			n := memNode(t, withTLS)
			c := n.dial(t)
			start := time.Now()
			go func() { _, _ = io.WriteString(c.Conn, said) }()
			assert.Equal(t, speaksTLS, c.end())
			assert.Zero(t, time.Since(start), "at its first byte")
			_ = c.Close()
			synctest.Wait()
			n.only(t, "refused", "code=failed_precondition", c.local())
		})
	}
	bubble(t, "seen by a Conn", func(t *testing.T) {
		n := memNode(t, withTLS)
		c, err := n.dialer(nil).Open(t.Context(), "localhost")
		require.NoError(t, err)
		require.NoError(t, c.Command("PING"))
		_, err = c.Reply()
		assert.ErrorIs(t, err, endpoint.FailedPrecondition)
		assert.ErrorContains(t, err, "connect with TLS")
		assert.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
		require.NoError(t, c.Close())
	})
	bubble(t, "the first byte of TLS and then none", func(t *testing.T) {
		n := memNode(t, withTLS)
		c := n.dial(t)
		c.send("\x16PING\n")
		assert.NotContains(t, c.end(), "PONG")
		_ = c.Close()
		synctest.Wait()
		assert.Len(t, n.all(), 1)
	})
}

func TestTLSOnPlain(t *testing.T) {
	n := tcpNode(t, nil)
	for range 20 {
		_, err := n.dialer(clientTLS()).Open(t.Context(), "localhost")
		require.ErrorIs(t, err, endpoint.FailedPrecondition)
		assert.ErrorContains(t, err, "the peer does not speak TLS: connect without it")
		assert.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
	}
	require.Eventually(t, func() bool { return len(n.all()) == 20 }, patience, ms)
	assert.Len(t, n.with("refused", "looks like TLS"), 20)
}

func TestDialerTLSErrors(t *testing.T) {
	n := tcpNode(t, withTLS)
	open := func(config *tls.Config, addr string) error {
		c, err := n.dialer(config).Open(t.Context(), addr)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	noName := clientTLS()
	noName.ServerName = ""
	assert.NoError(t, open(noName, "localhost"), "the name is that of the address")
	assert.NoError(t, open(noName, ":7000"), "no host is this one")
	assert.NoError(t, open(noName, "unix:/run/node.sock"), "nor does a socket have one")
	assert.Empty(t, noName.ServerName)

	err := open(noName, "elsewhere:61000")
	assert.ErrorIs(t, err, endpoint.Unauthenticated)
	assert.ErrorContains(t, err, "elsewhere")
	assert.ErrorContains(t, err, "certificate is not to be trusted: certificate is valid for localhost, not elsewhere")

	err = open(&tls.Config{ServerName: "localhost"}, "localhost")
	assert.ErrorIs(t, err, endpoint.Unauthenticated)
	assert.ErrorContains(t, err, "unknown authority")
	var unknown x509.UnknownAuthorityError
	assert.ErrorAs(t, err, &unknown)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = n.dialer(clientTLS()).Open(ctx, "localhost")
	assert.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
}

// A recordConn remembers the type of the last TLS record that was read. It sees
// records whole only of TLS 1.2.
type recordConn struct {
	net.Conn
	mu  sync.Mutex
	raw []byte
}

func (c *recordConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	c.raw = append(c.raw, p[:n]...)
	c.mu.Unlock()
	return n, err
}

// lastRecord returns the type of the last record.
func (c *recordConn) lastRecord() byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	kind := byte(0)
	for raw := c.raw; len(raw) >= 5; {
		kind = raw[0]
		raw = raw[min(len(raw), 5+int(raw[3])<<8+int(raw[4])):]
	}
	return kind
}

// TestCloseNotify: whenever the endpoint ends a TLS connection in order, it says
// so, or the peer could not tell the end from an attack.
func TestCloseNotify(t *testing.T) {
	const alert = 21
	for name, end := range map[string]func(t *testing.T, n *node, c *client){
		"the peer closed its half": func(t *testing.T, _ *node, c *client) { require.NoError(t, c.Conn.(*tls.Conn).CloseWrite()) },
		"unknown command":          func(_ *testing.T, _ *node, c *client) { c.send("NONESUCH\n") },
		"handler's error":          func(_ *testing.T, _ *node, c *client) { c.send("FAIL\n") },
		"panic":                    func(_ *testing.T, _ *node, c *client) { c.send("PANIC\n") },
		"Shutdown, idle":           func(t *testing.T, n *node, _ *client) { require.NoError(t, n.Shutdown(t.Context())) },
		"Shutdown, settled": func(t *testing.T, n *node, _ *client) {
			time.Sleep(2 * endpoint.SettleTime)
			require.NoError(t, n.Shutdown(t.Context()))
		},
		"Shutdown, half a line": func(t *testing.T, n *node, c *client) {
			c.send("PIN")
			synctest.Wait()
			require.NoError(t, n.Shutdown(t.Context()))
		},
		"Shutdown, busy": func(t *testing.T, n *node, c *client) {
			c.send("WORK\n")
			synctest.Wait()
			require.NoError(t, n.Shutdown(t.Context()))
		},
	} {
		bubble(t, name, func(t *testing.T) {
			n := memNode(t, func(e *endpoint.Endpoint) {
				withTLS(e)
				e.TLS.MinVersion = tls.VersionTLS12
				e.Handle("FAIL", serveFailing(func() error { return errors.New("failed") }))
				e.AddHandleFunc("PANIC", func(*bufio.ReadWriter) { panic("failed") })
				e.AddHandleFunc("WORK", func(*bufio.ReadWriter) { time.Sleep(time.Minute) })
			})
			raw := n.dial(t)
			record := &recordConn{Conn: raw.Conn}
			config := clientTLS()
			config.MaxVersion = tls.VersionTLS12
			tc := tls.Client(record, config)
			require.NoError(t, tc.Handshake())
			c := &client{Conn: tc, t: t, r: bufio.NewReader(tc)}
			c.ping()
			end(t, n, c)
			c.end()
			assert.Equal(t, byte(alert), record.lastRecord())
		})
	}
}

// TestCloseNotifyToDeafPeer: a peer whose buffers are full cannot take the
// alert. crypto/tls sets deadlines of its own then; the wait is short, and costs
// no time of the processor: a bubble in which a goroutine spins never ends.
func TestCloseNotifyToDeafPeer(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		n := newNode(func(e *endpoint.Endpoint) {
			withTLS(e)
			e.AddHandleFunc("FILL", flood(20_000, 20_000))
		})
		a, b := memnet.Pipe()
		go n.ServeConn(context.Background(), b)
		c, err := newClient(t, a).handshake(clientTLS())
		require.NoError(t, err)
		c.ping()
		c.send("FILL\n")
		synctest.Wait()
		b.SetBuffer(1) // it is full
		time.Sleep(3 * time.Second)
		start := time.Now()
		require.NoError(t, n.Shutdown(t.Context()))
		assert.LessOrEqual(t, time.Since(start), 10*time.Second+10*ms)
	})
}

// TestSettled: bytes that arrive at the moment at which the waiting goroutine
// hands over are neither lost nor doubled, whole or in the middle of a record.
func TestSettled(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, offset := range []time.Duration{-1, 0, 1} {
			for _, cut := range []int{0, 1, 4, 5, 6, 20} {
				bubble(t, fmt.Sprintf("tls=%t,offset=%d,cut=%d", secure, offset, cut), func(t *testing.T) {
					n := memNode(t, func(e *endpoint.Endpoint) {
						if secure {
							withTLS(e)
						}
					})
					c := n.dial(t)
					held := &holdConn{Conn: c.Conn}
					c.Conn = held
					if secure {
						var err error
						c, err = c.handshake(clientTLS())
						require.NoError(t, err)
					}
					for range 5 {
						c.ping()
						held.hold(cut)
						c.send("PING\n") // of which cut bytes go out
						time.Sleep(endpoint.SettleTime + offset)
						held.release(t)
						c.expect("PONG\n")
						c.send("LINE a\nPING\n")
						c.expect("line a\nPONG\n")
						time.Sleep(3 * endpoint.SettleTime)
					}
					assert.Empty(t, n.all())
				})
			}
		}
	}
}

// A holdConn holds back what is written to it, but for the first bytes.
type holdConn struct {
	net.Conn
	pass    int
	holding bool
	held    []byte
}

func (c *holdConn) hold(pass int) { c.pass, c.holding = pass, true }

func (c *holdConn) release(t *testing.T) {
	c.holding = false
	_, err := c.Conn.Write(c.held)
	require.NoError(t, err)
	c.held = nil
}

func (c *holdConn) Write(p []byte) (int, error) {
	if !c.holding {
		return c.Conn.Write(p)
	}
	n := min(c.pass, len(p))
	c.pass -= n
	c.held = append(c.held, p[n:]...)
	if n > 0 {
		if _, err := c.Conn.Write(p[:n]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// TestTLSCallbacks: a panic in a callback of the TLS configuration ends its
// connection, and nothing else.
func TestTLSCallbacks(t *testing.T) {
	type hook = func(config *tls.Config, fail func())
	for name, set := range map[string]hook{
		"GetCertificate": func(config *tls.Config, fail func()) {
			config.Certificates = nil
			config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				fail()
				pair := certs().server
				return &pair, nil
			}
		},
		"GetConfigForClient": func(config *tls.Config, fail func()) {
			config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { fail(); return nil, nil }
		},
		"VerifyConnection": func(config *tls.Config, fail func()) {
			config.VerifyConnection = func(tls.ConnectionState) error { fail(); return nil }
		},
	} {
		for how, fail := range map[string]func(){"panic": func() { panic("in a callback") }, "runtime.Goexit": runtime.Goexit, "runtime.Error": func() { _ = []int{}[len(name)] }} {
			bubble(t, name+","+how, func(t *testing.T) {
				n := memNode(t, func(e *endpoint.Endpoint) {
					e.TLS = serverTLS()
					first := true
					set(e.TLS, func() {
						if first {
							first = false
							fail()
						}
					})
				})
				bad, err := n.dial(t).handshake(clientTLS())
				if err == nil { // TLS 1.3: the client is done before the server
					assert.Empty(t, bad.end())
				}
				n.dialTLS(t).ping()
				n.only(t, "level=ERROR", "callback of TLS", "stack=", "TestTLSCallbacks")
			})
		}
	}
}

func TestTLSWithoutCertificate(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { e.TLS = new(tls.Config) })
		_, err := n.dial(t).handshake(clientTLS())
		assert.Error(t, err)
		synctest.Wait()
		n.only(t, "TLS handshake failed", "no certificates configured")
	})
}
