package netaddr_test

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"gobnode/internal/netaddr"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSplit(t *testing.T) {
	for addr, want := range map[string][2]string{
		"":                    {"tcp", ":61000"},
		":":                   {"tcp", ":61000"},
		":0":                  {"tcp", ":0"},
		":7000":               {"tcp", ":7000"},
		"localhost":           {"tcp", "localhost:61000"},
		"localhost:":          {"tcp", "localhost:61000"},
		"localhost:7000":      {"tcp", "localhost:7000"},
		"localhost:http":      {"tcp", "localhost:http"},
		"example.org":         {"tcp", "example.org:61000"},
		"127.0.0.1":           {"tcp", "127.0.0.1:61000"},
		"127.0.0.1:7000":      {"tcp", "127.0.0.1:7000"},
		"::1":                 {"tcp", "[::1]:61000"},
		"[::1]":               {"tcp", "[::1]:61000"},
		"[::1]:":              {"tcp", "[::1]:61000"},
		"[::1]:7000":          {"tcp", "[::1]:7000"},
		"::":                  {"tcp", "[::]:61000"},
		"fe80::1%eth0":        {"tcp", "[fe80::1%eth0]:61000"},
		"[fe80::1%eth0]":      {"tcp", "[fe80::1%eth0]:61000"},
		"[fe80::1%eth0]:7000": {"tcp", "[fe80::1%eth0]:7000"},
		"2001:db8::1":         {"tcp", "[2001:db8::1]:61000"},
		"a:b:c":               {"tcp", "a:b:c"}, // package net says what is wrong with it
		"[::1":                {"tcp", "[::1"},
		"unix:/run/x":         {"unix", "/run/x"},
		"unix:x":              {"unix", "x"},
		"unix:@abstract":      {"unix", "@abstract"},
		"unix:a:b":            {"unix", "a:b"},
		"unix":                {"tcp", "unix:61000"},
	} {
		network, address := netaddr.Split(addr)
		assert.Equal(t, want, [2]string{network, address}, "%q", addr)
	}
}

func TestListen(t *testing.T) {
	l, err := netaddr.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	_, err = netaddr.Listen(t.Context(), l.Addr().String())
	assert.ErrorIs(t, err, syscall.EADDRINUSE)
	require.NoError(t, l.Close())
	_, err = netaddr.Listen(t.Context(), "unix:")
	assert.Error(t, err, "a socket without a name cannot be found again")
}

// leave leaves the file of a unix socket that nobody listens on.
func leave(t *testing.T, path string) {
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
}

func TestListenUnix(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := netaddr.Listen(t.Context(), "unix:"+path)
	require.NoError(t, err)
	_, err = netaddr.Listen(t.Context(), "unix:"+path)
	require.ErrorIs(t, err, syscall.EADDRINUSE, "it lives")
	c, err := net.Dial("unix", path)
	require.NoError(t, err, "and was not harmed by the look")
	require.NoError(t, c.Close())
	require.NoError(t, l.Close())

	leave(t, path)
	l, err = netaddr.Listen(t.Context(), "unix:"+path)
	require.NoError(t, err, "deserted")
	require.NoError(t, l.Close())
}

// TestListenLeavesFiles: only sockets are removed, not what else a mistyped path
// may name.
func TestListenLeavesFiles(t *testing.T) {
	dir := t.TempDir()
	file, folder, link, socket := filepath.Join(dir, "file"), filepath.Join(dir, "folder"), filepath.Join(dir, "link"), filepath.Join(dir, "socket")
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))
	require.NoError(t, os.Mkdir(folder, 0o700))
	leave(t, socket)
	require.NoError(t, os.Symlink(socket, link))
	for _, path := range []string{file, folder, link} {
		_, err := netaddr.Listen(t.Context(), "unix:"+path)
		require.ErrorIs(t, err, syscall.EADDRINUSE, path)
		_, err = os.Lstat(path)
		require.NoError(t, err)
	}
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "precious", string(data))
}

func TestListenUnixErrors(t *testing.T) {
	_, err := netaddr.Listen(t.Context(), "unix:/no/such/folder/s")
	assert.ErrorIs(t, err, syscall.ENOENT)
	_, err = netaddr.Listen(t.Context(), "unix:"+string(make([]byte, 200)))
	assert.Error(t, err)
}
