package main

import (
	"errors"
	"flag"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/netaddr"
)

// config is what the flags and the environment say.
type config struct {
	listen      string
	connect     string
	addrs       []string // of -connect
	prompting   bool
	watching    bool
	chatName    string
	timeout     time.Duration
	verbose     bool
	quiet       bool
	version     bool
	tls         bool
	tlsCA       string
	tlsCert     string
	tlsKey      string
	tlsClientCA string

	args       []string // behind the flags
	connecting bool     // a form with -connect
	from       map[string]source
}

// A source is where a flag's value comes from.
type source int

const (
	fromDefault source = iota
	fromEnvironment
	fromCommandLine
)

const defaultTimeout = 30 * time.Second

// flags returns the flags, which set c.
func (c *config) flags() *flag.FlagSet {
	fs := flag.NewFlagSet("node", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // run prints the error, helpText the help
	fs.Usage = func() {}
	fs.StringVar(&c.listen, "listen", endpoint.DefaultAddr, "serve at `ADDR`, host:port or unix:path; port 0 takes a free one")
	fs.StringVar(&c.connect, "connect", "", "talk to the node at `ADDR`, host[:port] or unix:path, instead of serving. Of several, with commas between, it is the first that answers; -watch takes all")
	fs.BoolVar(&c.prompting, "i", false, "with -connect: a prompt; each line is sent as it is")
	fs.BoolVar(&c.watching, "watch", false, "with -connect: print the state of each node, whenever it changes, and its round-trip time, until interrupted. With -v also every attempt to connect")
	fs.StringVar(&c.chatName, "chat", "", "with -connect: join the room of the peer as `NAME`; each line is said to everybody there")
	fs.DurationVar(&c.timeout, "timeout", defaultTimeout, "with -connect: give up after `TIME`, connecting included; 0: never. With -i, -chat or -watch it bounds connecting, and the wait for replies behind the input's end")
	fs.BoolVar(&c.verbose, "v", false, "log more: every command that is served, every connection that is made")
	fs.BoolVar(&c.quiet, "q", false, "log errors only")
	fs.BoolVar(&c.version, "version", false, "print the version")
	fs.BoolVar(&c.tls, "tls", false, "with -connect: speak TLS 1.3")
	fs.StringVar(&c.tlsCA, "tls-ca", "", "with -tls: trust the authorities in `FILE` (PEM), not those of the system")
	fs.StringVar(&c.tlsCert, "tls-cert", "", "serving: speak TLS 1.3 with the certificate in `FILE` (PEM). With -tls: show it to the peer")
	fs.StringVar(&c.tlsKey, "tls-key", "", "the private key of -tls-cert, in `FILE` (PEM)")
	fs.StringVar(&c.tlsClientCA, "tls-client-ca", "", "serving TLS: take only peers with a certificate of the authorities in `FILE` (PEM)")
	return fs
}

// envName is the name of a flag's twin in the environment.
func envName(flag string) string {
	return "NODE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// parse sets c from the command line and, where that says nothing, from the
// environment. An empty variable counts as none. The error is flag.ErrHelp or a
// failure of usage.
func (c *config) parse(args []string, lookup func(string) (string, bool)) error {
	fs := c.flags()
	c.from = make(map[string]source)
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return usage("%s", err)
	}
	c.args = fs.Args()
	fs.Visit(func(f *flag.Flag) { c.from[f.Name] = fromCommandLine })
	if c.version && c.from["version"] == fromCommandLine {
		return nil
	}
	var bad error
	fs.VisitAll(func(f *flag.Flag) {
		value, ok := lookup(envName(f.Name))
		if !ok || value == "" || c.from[f.Name] == fromCommandLine {
			return
		}
		if err := fs.Set(f.Name, value); err != nil && f.Name == "version" {
			return // the images of Node.js set NODE_VERSION to a number
		} else if err != nil && bad == nil {
			bad = usage("invalid value %q of the variable %s: %s", value, envName(f.Name), err)
		}
		c.from[f.Name] = fromEnvironment
	})
	if bad != nil {
		return bad
	}
	return c.check()
}

// name is how the user gave the value of a flag.
func (c *config) name(flag string) string {
	if c.from[flag] == fromEnvironment {
		return envName(flag)
	}
	return "-" + flag
}

// serverFlags and clientFlags are those of one form only. On the command line
// of the other they are refused; in the environment, which several programs may
// share, they are not looked at, but for those of TLS: what is thought to be
// encrypted must not be sent in the clear.
var (
	serverFlags = []string{"listen", "tls-client-ca"}
	clientFlags = []string{"i", "chat", "watch", "timeout", "tls", "tls-ca"}
)

// check settles the form and refuses what does not go together.
func (c *config) check() error {
	switch listen, connect := c.from["listen"], c.from["connect"]; {
	case listen == connect && listen != fromDefault:
		return usage("%s and %s exclude each other: a node serves or connects", c.name("listen"), c.name("connect"))
	default:
		c.connecting = connect > listen
	}
	switch verbose, quiet := c.from["v"], c.from["q"]; {
	case c.verbose && c.quiet && verbose == quiet:
		return usage("%s and %s exclude each other", c.name("v"), c.name("q"))
	case c.verbose && c.quiet: // the command line wins
		c.verbose, c.quiet = verbose > quiet, quiet > verbose
	}
	if (c.tlsCert == "") != (c.tlsKey == "") {
		return usage("-tls-cert and -tls-key (or %s and %s) go together", envName("tls-cert"), envName("tls-key"))
	}
	if c.connecting {
		return c.checkClient()
	}
	return c.checkServer()
}

func (c *config) checkServer() error {
	for _, name := range clientFlags {
		if c.from[name] == fromCommandLine {
			return usage("-%s needs -connect", name)
		}
	}
	if len(c.args) > 0 {
		return usage("unexpected argument %q: to send a command, say where: node -connect HOST %s", c.args[0], strings.Join(c.args, " "))
	}
	for _, name := range []string{"tls", "tls-client-ca"} {
		if c.tlsCert == "" && (name == "tls" && c.tls || name == "tls-client-ca" && c.tlsClientCA != "") {
			return usage("%s: serving TLS needs -tls-cert and -tls-key", c.name(name))
		}
	}
	return checkAddr(c.name("listen"), c.listen)
}

func (c *config) checkClient() error {
	for _, name := range serverFlags {
		if c.from[name] == fromCommandLine {
			return usage("-%s is for serving, without -connect", name)
		}
	}
	if c.timeout < 0 {
		return usage("%s %v is negative; 0 is for no limit", c.name("timeout"), c.timeout)
	}
	for _, name := range []string{"tls-ca", "tls-cert"} {
		if !c.tls && c.from[name] != fromDefault {
			return usage("%s needs -tls (or %s=true) with -connect", c.name(name), envName("tls"))
		}
	}
	switch prompting, watching := c.from["i"], c.from["watch"]; {
	case c.prompting && c.watching && prompting == watching:
		return usage("%s and %s exclude each other", c.name("i"), c.name("watch"))
	case c.prompting && c.watching: // the command line wins
		c.prompting, c.watching = prompting > watching, watching > prompting
	}
	if c.prompting && len(c.args) > 0 {
		return usage("-i takes its commands from standard input, not from the command line: leave out -i or %q", c.args[0])
	}
	if c.watching && len(c.args) > 0 {
		return usage("-watch sends no command: leave out -watch or %q", c.args[0])
	}
	if err := c.checkChat(); err != nil {
		return err
	}
	if err := c.checkCommand(); err != nil {
		return err
	}
	return c.checkAddrs()
}

// checkAddrs takes the list of -connect apart.
func (c *config) checkAddrs() error {
	name, list := c.name("connect"), strings.Split(c.connect, ",")
	for _, addr := range list {
		if addr = strings.TrimSpace(addr); addr == "" && len(list) > 1 {
			return usage("%s %q: an address is missing beside a comma", name, c.connect)
		}
		if err := checkAddr(name, addr); err != nil {
			return err
		}
		if !slices.Contains(c.addrs, addr) {
			c.addrs = append(c.addrs, addr)
		}
	}
	return nil
}

// checkChat refuses what does not go with talking. Which names are good is for
// the room to say.
func (c *config) checkChat() error {
	switch {
	case c.chatName == "" && c.from["chat"] != fromDefault:
		return usage("-chat needs a name")
	case c.chatName != "" && c.prompting:
		return usage("%s and %s exclude each other: both read standard input", c.name("chat"), c.name("i"))
	case c.chatName != "" && c.watching:
		return usage("%s and %s exclude each other", c.name("chat"), c.name("watch"))
	case c.chatName != "" && len(c.args) > 0:
		return usage("%s sends no command, it says the lines of standard input: leave out one of it and %q", c.name("chat"), c.args[0])
	}
	return nil
}

// checkAddr refuses addresses that cannot be one, before anything is done with
// them.
func checkAddr(name, addr string) error {
	network, address := netaddr.Split(addr)
	if network == "unix" {
		if address == "" {
			return usage("%s %q: the path is missing", name, addr)
		}
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return usage("%s %q: want host:port or unix:path", name, addr)
	}
	if number, err := strconv.Atoi(port); err == nil && number >= 0 && number <= 65535 {
		return nil
	}
	return usage("%s %q: a port is a number from 0 to 65535", name, addr)
}
