package main_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	node "gobnode/cmd/node"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHelp(t *testing.T) {
	for _, flag := range []string{"-help", "-h", "--help"} {
		r := run(t, nil, flag)
		require.Zero(t, r.code)
		require.Empty(t, r.stderr)
		for _, name := range node.FlagNames() {
			assert.Regexp(t, `(?m)^  -`+name+`( [A-Z]+)? +`+node.EnvName(name)+`$`, r.stdout)
		}
		for _, code := range []string{"0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "64\\+N"} {
			assert.Regexp(t, `(?m)^  `+code+` +\S`, r.stdout)
		}
		assert.Regexp(t, `65 canceled +66 unknown +67 invalid_argument`, r.stdout)
		assert.Contains(t, r.stdout, "80 unauthenticated")
		assert.Contains(t, r.stdout, "(default :61000)")
		assert.Contains(t, r.stdout, "(default 30s)")
		assert.NotRegexp(t, `(?m)[ \t]$`, r.stdout)
	}
}

// TestHelpExamples runs the command line of every example as far as its flags:
// none may be refused for its usage.
func TestHelpExamples(t *testing.T) {
	_, examples, ok := strings.Cut(run(t, nil, "-help").stdout, "Examples:\n")
	require.True(t, ok)
	seen := 0
	for _, m := range regexp.MustCompile(`(?m)(?:^  |\| )node(.*?)(?:   .*)?$`).FindAllStringSubmatch(examples, -1) {
		seen++
		args := append(strings.Fields(m[1]), "-bad-flag-at-the-end")
		if i := strings.Index(m[1], "-connect"); i >= 0 && len(args) > 3 {
			args = append([]string{"-bad-flag-at-the-end"}, args...) // behind COMMAND it would be TEXT
		}
		r := run(t, nil, args...)
		assert.Equal(t, 2, r.code, m[0])
		assert.Contains(t, r.stderr, "-bad-flag-at-the-end")
	}
	assert.GreaterOrEqual(t, seen, 8)
}

func TestVersion(t *testing.T) {
	r := run(t, nil, "-version")
	require.Equal(t, result{stdout: r.stdout}, r)
	require.Regexp(t, `^node \S+( [0-9a-f]{40}( modified)?)? `+regexp.QuoteMeta(runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH)+"\n$", r.stdout)
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	pki := newPKI(t)
	for _, c := range []struct {
		args string // split at spaces; _ is an empty one
		env  string // NAME=value, split at spaces
		want string
	}{
		{args: "-nonsense", want: "-nonsense"},
		{args: "-timeout fast", want: "-timeout"},
		{env: "NODE_TIMEOUT=fast", want: "NODE_TIMEOUT"},
		{env: "NODE_V=maybe", want: "NODE_V"},
		{env: "NODE_I=maybe", want: "NODE_I"},
		{env: "NODE_Q=maybe", want: "NODE_Q"},
		{env: "NODE_TLS=maybe", want: "NODE_TLS"},
		{args: "-i", env: "NODE_VERSION=22.1.0", want: "-i needs -connect"}, // what the images of Node.js set is nothing to us
		{args: "-connect localhost -timeout -1s", want: "-timeout -1s is negative"},
		{args: "-connect localhost", env: "NODE_TIMEOUT=-1s", want: "NODE_TIMEOUT -1s is negative"},
		{args: "-v -q", want: "-v and -q exclude"},
		{env: "NODE_V=1 NODE_Q=1", want: "NODE_V and NODE_Q exclude"},
		{args: "-listen :0 -connect localhost", want: "-listen and -connect exclude"},
		{env: "NODE_LISTEN=:0 NODE_CONNECT=localhost", want: "NODE_LISTEN and NODE_CONNECT exclude"},
		{args: "PING", want: "node -connect HOST PING"},
		{args: "-i", want: "-i needs -connect"},
		{args: "-timeout 1s", want: "-timeout needs -connect"},
		{args: "-tls", want: "-tls needs -connect"},
		{args: "-tls-ca x", want: "-tls-ca needs -connect"},
		{env: "NODE_TLS=1", want: "NODE_TLS: serving TLS needs"},
		{args: "-tls-client-ca x", want: "-tls-client-ca: serving TLS needs"},
		{env: "NODE_TLS_CLIENT_CA=x", want: "NODE_TLS_CLIENT_CA: serving TLS needs"},
		{args: "-tls-cert x", want: "go together"},
		{args: "-tls-key x", want: "go together"},
		{args: "-connect localhost -tls-client-ca x", want: "-tls-client-ca is for serving"},
		{args: "-connect localhost -tls-ca x", want: "-tls-ca needs -tls"},
		{args: "-connect localhost", env: "NODE_TLS_CA=x", want: "NODE_TLS_CA needs -tls"},
		{args: "-connect localhost -tls-cert x -tls-key y", want: "-tls-cert needs -tls"},
		{args: "-watch", want: "-watch needs -connect"},
		{args: "-connect localhost -watch PING", want: "-watch sends no command: leave out -watch or \"PING\""},
		{args: "-connect localhost -watch -i", want: "-i and -watch exclude each other"},
		{args: "-connect localhost", env: "NODE_I=1 NODE_WATCH=1", want: "NODE_I and NODE_WATCH exclude each other"},
		{args: "-connect localhost -watch PING", env: "NODE_I=1", want: "-watch sends no command"},
		{args: "-connect localhost,,other PING", want: "-connect \"localhost,,other\": an address is missing beside a comma"},
		{args: "-connect localhost, PING", want: "an address is missing beside a comma"},
		{args: "-connect localhost,other:x PING", want: "-connect \"other:x\": a port is a number"},
		{env: "NODE_CONNECT=localhost,a:b:c,x:y", want: "NODE_CONNECT \"a:b:c\": want host:port or unix:path"},
		{args: "-connect localhost,unix: PING", want: "-connect \"unix:\": the path is missing"},
		{args: "-connect localhost -i PING", want: "-i takes its commands from standard input"},
		{args: "-chat ann", want: "-chat needs -connect"},
		{args: "-connect localhost -chat _", want: "-chat needs a name"},
		{args: "-connect localhost -chat ann -i", want: "-chat and -i exclude each other"},
		{args: "-connect localhost -i", env: "NODE_CHAT=ann", want: "NODE_CHAT and -i exclude each other"},
		{args: "-connect localhost -chat ann -watch", want: "-chat and -watch exclude each other"},
		{args: "-connect localhost -chat ann PING", want: "-chat sends no command"},
		{args: "-connect localhost PING", env: "NODE_CHAT=ann", want: "NODE_CHAT sends no command"},
		{args: "-listen 127.0.0.1:x", want: "a port is a number"},
		{args: "-listen 127.0.0.1:70000", want: "a port is a number"},
		{args: "-listen a:b:c", want: "want host:port"},
		{args: "-listen unix:", want: "the path is missing"},
		{args: "-connect unix: PING", want: "the path is missing"},
		{args: "-connect localhost:http PING", want: "a port is a number"},
		{env: "NODE_CONNECT=a:b:c", want: "NODE_CONNECT"},
		{args: "-connect localhost _", want: "empty command name"},
		{args: "-connect localhost caf\u00e9", want: "printable ASCII"},
		{args: "-connect localhost PI\nNG", want: "printable ASCII"},
		{args: "-connect localhost PING\r", want: "printable ASCII"},
		{args: "-connect localhost " + strings.Repeat("N", 65), want: "longer than 64"},
		{args: "-connect localhost STRING a\nb", want: "line's end"},
		{args: "-connect localhost STRING a b\rc", want: "line's end"},
		{args: "-connect localhost STRING _", want: "empty or begins with a space"},
		{args: "-connect localhost STRING _ x", want: "empty or begins with a space"},
		{args: "-listen 127.0.0.1:0 -tls-cert /nonexistent -tls-key /nonexistent", want: "-tls-cert /nonexistent"},
		{args: "-listen 127.0.0.1:0", env: "NODE_TLS_CERT=/nonexistent NODE_TLS_KEY=/nonexistent", want: "NODE_TLS_CERT /nonexistent"},
		{args: "-listen 127.0.0.1:0 -tls-cert " + empty + " -tls-key " + empty, want: empty},
		{args: "-listen 127.0.0.1:0 -tls-client-ca /nonexistent " + pki.server, want: "-tls-client-ca: open /nonexistent"},
		{args: "-listen 127.0.0.1:0 -tls-client-ca " + empty + " " + pki.server, want: "no certificate in PEM"},
		{args: "-connect localhost -tls -tls-ca /nonexistent PING", want: "-tls-ca: open /nonexistent"},
		{args: "-connect localhost -tls -tls-ca " + empty + " PING", want: "no certificate in PEM"},
		{args: "-connect localhost -tls -tls-cert /nonexistent -tls-key /nonexistent PING", want: "-tls-cert /nonexistent"},
	} {
		t.Run(strings.TrimSpace(c.env+" "+c.args), func(t *testing.T) {
			for v := range strings.FieldsSeq(c.env) {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
			var args []string
			if c.args != "" {
				args = strings.Split(c.args, " ")
			}
			for i := range args {
				if args[i] == "_" {
					args[i] = ""
				}
			}
			r := run(t, nil, args...)
			assert.Equal(t, 2, r.code)
			assert.Empty(t, r.stdout)
			assert.Contains(t, r.stderr, c.want)
			assert.Regexp(t, `\Anode: [^\n]+; node -help tells more\n\z`, r.stderr)
		})
	}
}

// twins has, for every flag, what to do to see that its twin works as it does.
// set gives the flag its value: on the command line or in the environment.
var twins = map[string]func(t *testing.T, set func(value string) []string){
	"listen": func(t *testing.T, set func(string) []string) {
		path := filepath.Join(t.TempDir(), "s")
		addr, _ := serve(t, append([]string{}, set("unix:"+path)...)...)
		require.Equal(t, path, addr)
	},
	"connect": func(t *testing.T, set func(string) []string) {
		addr, _ := serve(t)
		require.Equal(t, "PONG\n", run(t, nil, append(set(addr), "PING")...).stdout)
	},
	"i": func(t *testing.T, set func(string) []string) {
		addr, _ := serve(t)
		r := run(t, strings.NewReader("PING\nPING\n"), append([]string{"-connect", addr}, set("true")...)...)
		require.Equal(t, "PONG\nPONG\n", r.stdout)
	},
	"watch": func(t *testing.T, set func(string) []string) {
		addr, _ := serve(t)
		ctx, cancel := context.WithCancel(t.Context())
		var stdout transcript
		code := make(chan int)
		go func() {
			code <- node.Run(ctx, append([]string{"-connect", addr}, set("true")...), nil, &stdout, io.Discard)
		}()
		stdout.await(t, " ready, rtt ")
		cancel()
		require.Zero(t, <-code)
	},
	"chat": func(t *testing.T, set func(string) []string) {
		addr, _ := serve(t)
		r := run(t, strings.NewReader("hello\n"), append([]string{"-connect", addr}, set("ann")...)...)
		require.Equal(t, "* nobody else is here\n", r.stdout)
		require.Contains(t, r.stderr, "name=ann")
	},
	"timeout": func(t *testing.T, set func(string) []string) {
		addr := fake(t, nil)
		r := run(t, nil, append(append([]string{"-connect", addr}, set("50ms")...), "PING")...)
		require.Equal(t, 4, r.code)
		require.Contains(t, r.stderr, "50ms")
	},
	"v": func(t *testing.T, set func(string) []string) {
		addr, _ := serve(t)
		require.NotContains(t, run(t, nil, "-connect", addr, "PING").stderr, "DEBUG")
		r := run(t, nil, append(append([]string{"-connect", addr}, set("true")...), "PING")...)
		require.Contains(t, r.stderr, "level=DEBUG msg=connected")
	},
	"q": func(t *testing.T, set func(string) []string) {
		addr, _ := serve(t)
		require.Contains(t, run(t, nil, "-connect", addr).stderr, "level=INFO")
		r := run(t, nil, append([]string{"-connect", addr}, set("true")...)...)
		require.Equal(t, result{stdout: "Thank you.\n"}, r)
	},
	"version": func(t *testing.T, set func(string) []string) {
		require.Regexp(t, `^node \S+`, run(t, nil, set("true")...).stdout)
	},
	"tls": func(t *testing.T, set func(string) []string) {
		pki := newPKI(t)
		addr, _ := serve(t, strings.Fields(pki.server)...)
		r := run(t, nil, append(append([]string{"-connect", addr, "-tls-ca", pki.ca}, set("true")...), "PING")...)
		require.Equal(t, result{stdout: "PONG\n"}, r)
	},
	"tls-ca": func(t *testing.T, set func(string) []string) {
		pki := newPKI(t)
		addr, _ := serve(t, strings.Fields(pki.server)...)
		r := run(t, nil, append(append([]string{"-connect", addr, "-tls"}, set(pki.ca)...), "PING")...)
		require.Equal(t, result{stdout: "PONG\n"}, r)
	},
	"tls-cert": func(t *testing.T, set func(string) []string) {
		pki := newPKI(t)
		addr, _ := serve(t, append(set(pki.serverCert), "-tls-key", pki.serverKey)...)
		r := run(t, nil, "-connect", addr, "-tls", "-tls-ca", pki.ca, "-tls-cert", pki.clientCert, "-tls-key", pki.clientKey, "PING")
		require.Equal(t, result{stdout: "PONG\n"}, r)
	},
	"tls-key": func(t *testing.T, set func(string) []string) {
		pki := newPKI(t)
		addr, _ := serve(t, append(set(pki.serverKey), "-tls-cert", pki.serverCert)...)
		r := run(t, nil, "-connect", addr, "-tls", "-tls-ca", pki.ca, "-tls-cert", pki.clientCert, "-tls-key", pki.clientKey, "PING")
		require.Equal(t, result{stdout: "PONG\n"}, r)
	},
	"tls-client-ca": func(t *testing.T, set func(string) []string) {
		pki := newPKI(t)
		addr, _ := serve(t, append(set(pki.ca), strings.Fields(pki.server)...)...)
		require.Equal(t, 3, run(t, nil, "-connect", addr, "-tls", "-tls-ca", pki.ca, "PING").code)
	},
}

func TestFlagsAndTwins(t *testing.T) {
	for _, name := range node.FlagNames() {
		see, ok := twins[name]
		if !assert.True(t, ok, "no test for -%s", name) {
			continue
		}
		t.Run(name+"/flag", func(t *testing.T) {
			see(t, func(value string) []string { return []string{"-" + name + "=" + value} })
		})
		t.Run(name+"/variable", func(t *testing.T) {
			see(t, func(value string) []string {
				t.Setenv(node.EnvName(name), value)
				return nil
			})
		})
	}
}

func TestFlagsWin(t *testing.T) {
	addr, _ := serve(t)
	t.Setenv("NODE_CONNECT", "127.0.0.1:1")
	t.Setenv("NODE_TIMEOUT", "1ms")
	t.Setenv("NODE_Q", "true")
	t.Setenv("NODE_I", "") // an empty variable is none
	r := run(t, nil, "-connect", addr, "-timeout", "1m", "-v", "PING")
	assert.Zero(t, r.code, r.stderr)
	assert.Equal(t, "PONG\n", r.stdout)
	assert.Contains(t, r.stderr, "DEBUG")
	t.Setenv("NODE_V", "nonsense") // not even looked at
	assert.Zero(t, run(t, nil, "-connect", addr, "-timeout", "1m", "-v=false", "PING").code)
	t.Setenv("NODE_V", "")
	// One form of the program on the command line, the other in the environment.
	other, _ := serve(t, "-listen", "127.0.0.1:0", "-q=false")
	assert.NotEmpty(t, other)
	t.Setenv("NODE_LISTEN", "127.0.0.1:0")
	assert.Zero(t, run(t, nil, "-connect", addr, "-timeout", "1m", "PING").code)
}

// TestForeignVariables has the flags of one form in the environment of the
// other, as programs that share an environment have.
func TestForeignVariables(t *testing.T) {
	t.Setenv("NODE_TIMEOUT", "1s")
	t.Setenv("NODE_I", "true")
	t.Setenv("NODE_CHAT", "ann")
	addr, _ := serve(t)
	t.Setenv("NODE_I", "")
	t.Setenv("NODE_CHAT", "")
	t.Setenv("NODE_TLS_CLIENT_CA", "/nonexistent")
	require.Equal(t, "PONG\n", run(t, nil, "-connect", addr, "PING").stdout)
}

func TestSilentPeerIsGivenTime(t *testing.T) {
	addr := fake(t, func(c *net.TCPConn, r *bufio.Reader) {
		_, _ = io.Copy(io.Discard, r)
		_, _ = io.WriteString(c, "PONG\n")
	})
	require.Equal(t, result{stdout: "PONG\n"}, run(t, nil, "-connect", addr, "-timeout", "0", "PING"))
}
