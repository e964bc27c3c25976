package main_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A network is three namespaces: a client's and a server's, and a switch between
// them. What the server's port of the switch does not pass on is lost without a
// word to anybody.
type network struct {
	t                      *testing.T
	client, server, bridge string
}

const serverAddr = "10.99.0.2:61000"

var networks atomic.Int64

// newNetwork makes a network, or skips the test where none can be made.
func newNetwork(t *testing.T) *network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces can be made by root only")
	}
	name := fmt.Sprintf("nodetest-%d-%d-", os.Getpid(), networks.Add(1))
	n := &network{t: t, client: name + "c", server: name + "s", bridge: name + "b"}
	t.Cleanup(func() {
		for _, ns := range []string{n.client, n.server, n.bridge} {
			_ = exec.Command("ip", "netns", "del", ns).Run()
		}
	})
	for _, args := range [][]string{
		{"netns", "add", n.client},
		{"netns", "add", n.bridge},
		{"-n", n.bridge, "link", "add", "br0", "type", "bridge"},
		{"-n", n.bridge, "link", "set", "br0", "up"},
		{"-n", n.client, "link", "add", "eth0", "type", "veth", "peer", "name", "client", "netns", n.bridge},
		{"-n", n.bridge, "link", "set", "client", "master", "br0", "up"},
		{"-n", n.client, "addr", "add", "10.99.0.1/24", "dev", "eth0"},
		{"-n", n.client, "link", "set", "eth0", "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Skipf("no network namespaces here: ip %v: %v: %s", args, err, out)
		}
	}
	n.boot()
	n.plug(true)
	return n
}

func (n *network) ip(args ...string) {
	n.t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	require.NoError(n.t, err, "ip %v: %s", args, out)
}

// boot makes the server's namespace, which is not plugged in.
func (n *network) boot() {
	n.t.Helper()
	n.ip("netns", "add", n.server)
	n.ip("-n", n.server, "link", "add", "eth0", "address", "02:00:00:00:00:02", "type", "veth", "peer", "name", "server", "netns", n.bridge)
	n.ip("-n", n.bridge, "link", "set", "server", "up")
	n.ip("-n", n.server, "addr", "add", "10.99.0.2/24", "dev", "eth0")
	n.ip("-n", n.server, "link", "set", "eth0", "up")
}

// crash takes the server's namespace away, with its connections, as the loss of
// power does: no FIN and no RST is sent. Its processes must have ended.
func (n *network) crash() {
	n.t.Helper()
	n.ip("-n", n.bridge, "link", "del", "server")
	n.ip("netns", "del", n.server)
}

// plug connects the server with the switch, or not any more.
func (n *network) plug(in bool) {
	n.t.Helper()
	if in {
		n.ip("-n", n.bridge, "link", "set", "server", "master", "br0")
	} else {
		n.ip("-n", n.bridge, "link", "set", "server", "nomaster")
	}
}

// through is what runs a process on the server.
func (n *network) through() []string { return []string{"ip", "netns", "exec", n.server} }

// dial connects from the client: a socket belongs to the namespace of the thread
// that makes it.
func (n *network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer func() { _ = home.Close() }()
	away, err := os.Open("/run/netns/" + n.client)
	if err != nil {
		return nil, err
	}
	defer func() { _ = away.Close() }()
	if err := unix.Setns(int(away.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread() // otherwise the thread ends with the goroutine
	}
	return c, err
}
