package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A pki is two authorities and what the first one signed, as files.
type pki struct {
	ca, otherCA               string
	serverCert, serverKey     string
	clientCert, clientKey     string
	strangerCert, strangerKey string // signed by otherCA
	server                    string // the flags of a server
}

// newPKI makes keys of P-256 that are good for an hour.
func newPKI(t *testing.T) *pki {
	t.Helper()
	dir := t.TempDir()
	p := &pki{}
	var ca, otherCA authority
	p.ca, ca = newAuthority(t, dir, "ca")
	p.otherCA, otherCA = newAuthority(t, dir, "other-ca")
	p.serverCert, p.serverKey = ca.sign(t, dir, "server")
	p.clientCert, p.clientKey = ca.sign(t, dir, "client")
	p.strangerCert, p.strangerKey = otherCA.sign(t, dir, "stranger")
	p.server = "-tls-cert " + p.serverCert + " -tls-key " + p.serverKey
	return p
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir, name string) (file string, a authority) {
	t.Helper()
	a.cert = template(name)
	a.cert.IsCA, a.cert.BasicConstraintsValid, a.cert.KeyUsage = true, true, x509.KeyUsageCertSign
	file, _, a.key = a.issue(t, dir, name, a.cert)
	return file, a
}

func (a authority) sign(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	tmpl := template(name)
	tmpl.DNSNames, tmpl.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	cert, key, _ = a.issue(t, dir, name, tmpl)
	return cert, key
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
}

// issue makes a key and its certificate, signed by a or, where a has no key
// yet, by itself.
func (a authority) issue(t *testing.T, dir, name string, tmpl *x509.Certificate) (certFile, keyFile string, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, signer)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return certFile, keyFile, key
}

// TestTLSMatrix has every kind of server talked to by every kind of client, in
// each of the forms of talking.
func TestTLSMatrix(t *testing.T) {
	t.Parallel()
	pki := newPKI(t)
	plain, _ := serve(t)
	tls, _ := serve(t, strings.Fields(pki.server)...)
	mutual, _ := serve(t, strings.Fields(pki.server+" -tls-client-ca "+pki.ca)...)

	clients := map[string]string{
		"plain":     "",
		"tls":       "-tls -tls-ca " + pki.ca,
		"wrong CA":  "-tls -tls-ca " + pki.otherCA,
		"system CA": "-tls",
		"own cert":  "-tls -tls-ca " + pki.ca + " -tls-cert " + pki.clientCert + " -tls-key " + pki.clientKey,
		"stranger":  "-tls -tls-ca " + pki.ca + " -tls-cert " + pki.strangerCert + " -tls-key " + pki.strangerKey,
	}
	const (
		notTLS    = "the peer does not speak TLS: connect without it; try without -tls"
		speaksTLS = "this port speaks TLS, and this does not look like it: connect with TLS (failed_precondition, not_run); try -tls"
		untrusted = "the peer's certificate is not to be trusted: certificate signed by unknown authority; -tls-ca names"
		noCert    = "refused this side's certificate: tls: certificate required; try -tls-cert and -tls-key"
		badCert   = "refused this side's certificate: tls: unknown certificate authority; try -tls-cert and -tls-key"
	)
	type cell struct {
		code int
		says string
	}
	for _, server := range []struct {
		name, addr string
		cells      map[string]cell
	}{
		{"plain", plain, map[string]cell{
			"plain": {}, "tls": {3, notTLS}, "wrong CA": {3, notTLS}, "system CA": {3, notTLS}, "own cert": {3, notTLS}, "stranger": {3, notTLS},
		}},
		{"tls", tls, map[string]cell{
			"plain": {64 + 9, speaksTLS}, "tls": {}, "wrong CA": {3, untrusted}, "system CA": {3, untrusted}, "own cert": {}, "stranger": {},
		}},
		{"mutual", mutual, map[string]cell{
			"plain": {64 + 9, speaksTLS}, "tls": {3, noCert}, "wrong CA": {3, untrusted}, "system CA": {3, untrusted}, "own cert": {}, "stranger": {3, badCert},
		}},
	} {
		for client, flags := range clients {
			want := server.cells[client]
			for form, args := range map[string][]string{"join": nil, "command": {"STRING", "x"}, "prompt": {"-i"}, "chat": {"-chat", "ann"}} {
				t.Run(server.name+"/"+client+"/"+form, func(t *testing.T) {
					r := run(t, strings.NewReader("STRING x\n"), append(append([]string{"-connect", server.addr}, strings.Fields(flags)...), args...)...)
					assert.Equal(t, want.code, r.code, r.stderr)
					if want.code == 0 {
						assert.Equal(t, map[bool]string{false: "Thank you.\n", true: "* nobody else is here\n"}[form == "chat"], r.stdout)
						return
					}
					assert.NotRegexp(t, "Thank you|nobody", r.stdout)
					assert.Contains(t, r.stderr, want.says)
				})
			}
		}
	}
}

// TestWarning checks who is warned: those whose commands travel in the clear
// where others can see them.
func TestWarning(t *testing.T) {
	t.Parallel()
	pki := newPKI(t)
	const warning = "level=WARN.*nothing is encrypted.*-listen localhost:[1-9].*-tls-cert.*addr="
	for _, c := range []struct {
		args string
		want bool
	}{
		{"-listen :0", true},
		{"-listen 0.0.0.0:0", true},
		{"-listen 127.0.0.1:0", false},
		{"-listen localhost:0", false},
		{"-listen unix:" + filepath.Join(t.TempDir(), "s"), false},
		{"-listen :0 " + pki.server, false},
	} {
		_, stderr := serve(t, strings.Fields(c.args)...)
		if c.want {
			stderr.await(t, warning)
			assert.Equal(t, 1, strings.Count(stderr.String(), "WARN"))
		} else {
			assert.NotContains(t, stderr.String(), "WARN", c.args)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	pki := newPKI(t)
	path := filepath.Join(t.TempDir(), "sock")
	addr, _ := serve(t, "-listen", "unix:"+path)
	require.Equal(t, path, addr)
	require.Equal(t, "PONG\n", run(t, nil, "-connect", "unix:"+path, "PING").stdout)
	require.Equal(t, "Thank you.\n", run(t, nil, "-connect", "unix:"+path).stdout)

	path += "-tls"
	serve(t, append(strings.Fields(pki.server), "-listen", "unix:"+path)...)
	require.Equal(t, "PONG\n", run(t, nil, "-connect", "unix:"+path, "-tls", "-tls-ca", pki.ca, "PING").stdout)
}
