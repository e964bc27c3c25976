package endpoint_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// callTLS makes configurations for both sides of TLS with host "localhost".
func callTLS(t *testing.T) (server, client *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	// Valid in a bubble's year 2000 as well.
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(100, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return server, &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

// TestConnTLS: the same over TLS: small and large values, failures, the peer's
// state for the handler.
func TestConnTLS(t *testing.T) {
	server, client := callTLS(t)
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.TLS = server
		fail.Handle(e, func(ctx context.Context, req text) (text, error) {
			state := endpoint.PeerFrom(ctx).TLS()
			if state == nil || state.Version != tls.VersionTLS13 {
				return text{}, endpoint.Errorf(endpoint.Unauthenticated, "no TLS")
			}
			return misbehave(ctx, req)
		})
	})
	c := openConn(t, n, &endpoint.Dialer{TLS: client})
	for _, s := range []string{"small", strings.Repeat("large ", 100_000), "small again"} {
		reply, err := fail.Call(t.Context(), c, text{s})
		require.NoError(t, err)
		assert.Equal(t, s, reply.S)
		_, err = fail.Call(t.Context(), c, text{"panic"})
		assertFailed(t, err, endpoint.Internal, endpoint.OutcomeFailed, "incident")
	}
	_, err := fail.Call(t.Context(), c, text{"goexit"})
	assertFailed(t, err, endpoint.Internal, endpoint.OutcomeFailed, "incident")
	_, err = fail.Call(t.Context(), c, text{"x"})
	assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeUnknown, "") // the connection ended behind the answer
	assertReleased(t, n)
}

// TestConnTLSDeadlines: a context ends a call that waits for its reply, or for
// room to write, at that moment; what was under way is unknown.
func TestConnTLSDeadlines(t *testing.T) {
	server, client := callTLS(t)
	synctest.Test(t, func(t *testing.T) {
		for _, request := range []string{"small", strings.Repeat("large", 1<<20)} {
			near, far := memnet.Pipe()
			tc := tls.Server(far, server)
			done := make(chan error)
			go func() { done <- tc.Handshake() }()
			d := endpoint.Dialer{TLS: client, Limits: endpoint.Limits{Message: 16 << 20}, NetDial: func(context.Context, string, string) (net.Conn, error) { return near, nil }}
			c, err := d.Open(t.Context(), "localhost")
			require.NoError(t, err)
			require.NoError(t, <-done)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			begin := time.Now()
			_, err = fail.Call(ctx, c, text{request})
			assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeUnknown, "deadline exceeded")
			assert.Equal(t, 3*time.Second, time.Since(begin))
			assertDead(t, c)
			_ = c.Close()
			_ = far.Close()
		}
	})
}
