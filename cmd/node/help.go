package main

import (
	"cmp"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

const usageText = `node serves named commands, or talks to a node that does.

Usage:
  node [flags]                                   serve
  node -connect HOST[:PORT] [flags]              join a node: exchange a STRING and a GOB with it
  node -connect HOST[:PORT] [flags] COMMAND [TEXT...]
                                                 send one command and print the reply
  node -connect HOST[:PORT] -i [flags]           a prompt
  node -connect HOST[:PORT] -chat NAME [flags]   talk to who else does so there
  node -connect HOST[:PORT] -watch [flags]       print a node's states and round-trip times

HOST[:PORT] may be several, with commas between: -watch takes all, the others the first
that answers; one that is silent for 300 ms has the next tried beside it.

Flags come before COMMAND. TEXT is sent on the command's line; a TEXT of - sends
standard input, on the lines behind the name. At the prompt, every line is sent as
it is; exit, quit or Ctrl-D leave it. On a terminal it has history and completes the
names of commands with Tab, and it stays when its connection is lost: it connects again by
itself, and at once when a line is typed. That line is sent if this succeeds; if not, it
says so and forgets the line. What it had sent before may have run or not, and it is not
sent again. Any other input ends with its connection, exit code 3. In a chat, lines are said
to everybody in the room, and Ctrl-D leaves it. Results go to standard output, all else to
standard error.

SIGINT or SIGTERM make a serving node take no more, let running commands finish for
up to 25 s, and end; a second one ends it at once.

Flags, and their twins in the environment (flags win; an empty variable is none):
`

const exitText = `
Exit codes:
  0     done; serving: ended in order; -watch: interrupted
  1     cannot serve, read or write; serving: commands were cut off at the end
  2     wrong usage
  3     cannot connect, or the connection was lost
  4     -timeout passed
  5     interrupted; serving: by a second signal
  64+N  the peer answered with an error; N is its code:
`

const examplesText = `
Examples:
  node                                           serve on every address, port 61000
  node -listen localhost:0                       on this machine only, on a free port
  node -listen unix:/run/node.sock
  node -connect localhost                        join it
  node -connect localhost STRING Hello there
  printf 'one\ntwo\n' | node -connect localhost ECHO -
  node -connect localhost -i
  node -connect one.example.com,two.example.com:61001 -watch
  node -connect localhost -chat ann
  nc localhost 61000                             the same by hand
  node -tls-cert node.pem -tls-key node-key.pem -tls-client-ca ca.pem
  node -connect example.com -tls -tls-ca ca.pem -tls-cert me.pem -tls-key me-key.pem PING
`

// helpText is what -help prints. Flags and codes are listed from what the
// program uses, so that they cannot be missing here.
func helpText() string {
	var b strings.Builder
	b.WriteString(usageText)
	new(config).flags().VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		fmt.Fprintf(&b, "  %-24s %s\n        %s", strings.TrimSpace("-"+f.Name+" "+value), envName(f.Name), text)
		if f.DefValue != "" && f.DefValue != "false" {
			fmt.Fprintf(&b, " (default %s)", f.DefValue)
		}
		b.WriteByte('\n')
	})
	b.WriteString(exitText)
	for row := range slices.Chunk(allCodes(), 4) {
		var cells []string
		for _, c := range row {
			cells = append(cells, fmt.Sprintf("%2d %-19s", exitAnswered+int(c), c))
		}
		b.WriteString("        " + strings.TrimRight(strings.Join(cells, " "), " ") + "\n")
	}
	b.WriteString(examplesText)
	return b.String()
}

// versionText is what -version prints: what the go command recorded in the
// binary.
func versionText() string {
	version, revision, modified := "", "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = " " + s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = " modified"
			}
		}
	}
	return fmt.Sprintf("node %s%s%s %s %s/%s\n", cmp.Or(version, "(devel)"), revision, modified,
		runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
