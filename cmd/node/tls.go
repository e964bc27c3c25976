package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
)

// serverTLS is the configuration that the flags ask for, nil for plain.
func (n *node) serverTLS() (*tls.Config, error) {
	if n.tlsCert == "" {
		return nil, nil
	}
	pair, err := n.keyPair()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	if n.tlsClientCA != "" {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.ClientCAs, err = n.pool("tls-client-ca", n.tlsClientCA)
	}
	return config, err
}

// clientTLS is the configuration that the flags ask for, nil for plain.
func (n *node) clientTLS() (*tls.Config, error) {
	if !n.tls {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if n.tlsCA != "" {
		pool, err := n.pool("tls-ca", n.tlsCA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if n.tlsCert != "" {
		pair, err := n.keyPair()
		if err != nil {
			return nil, err
		}
		// Not Certificates: a certificate that the peer's list of authorities does
		// not fit would then be left out in silence, and the peer would say that
		// there is none rather than what is wrong with it.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return config, nil
}

func (n *node) keyPair() (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(n.tlsCert, n.tlsKey)
	if err != nil {
		return pair, usage("%s %s with %s %s: %s", n.name("tls-cert"), n.tlsCert, n.name("tls-key"), n.tlsKey, err)
	}
	return pair, nil
}

func (n *node) pool(flag, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("%s: %s", n.name(flag), err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usage("%s %s: no certificate in PEM in it", n.name(flag), file)
	}
	return pool, nil
}
