// Command node is an endpoint to run, to join and to talk to.
//
//	node                                  serve
//	node -connect HOST                    join a running node
//	node -connect HOST COMMAND [TEXT...]  send one command
//	node -connect HOST -i                 a prompt
//	node -connect HOST,HOST -watch        print the states of nodes
//
// node -help tells the rest.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
