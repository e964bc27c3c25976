package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"

	"gobnode/types"
)

const (
	// listTime bounds the asking for a command's kind.
	listTime = 3 * time.Second

	// maxIndent is how long a reply may be, in bytes, to be held for indenting.
	maxIndent = 1 << 20
)

// isTyped asks the peer, on a connection of its own, whether a command of its
// is a typed one. To a peer that does not tell all are raw: the command itself
// will say what is wrong.
func (n *node) isTyped(ctx context.Context, name string) (bool, error) {
	l, err := n.connect(ctx, ctx)
	if err != nil {
		return false, err
	}
	defer l.close()
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	list, err := types.List.Call(ctx, l.Conn, types.ListRequest{})
	if err != nil {
		n.log.Debug("the peer does not tell its commands: this one is taken for a raw one", "command", name, "error", err)
		return false, nil
	}
	return slices.ContainsFunc(list.Commands, func(c types.CommandSummary) bool {
		return c.Name == name && c.Kind != "raw"
	}), nil
}

// typedLine is the command line of a typed command: the request is JSON, by
// default that of an empty struct.
func (n *node) typedLine(s *sending) ([]byte, error) {
	line := []byte(n.args[0] + " ")
	switch {
	case s.data != nil:
		text, err := io.ReadAll(s.data)
		if err != nil {
			return nil, cannotRead(err)
		}
		var one bytes.Buffer // line of it, which is what the peer takes
		if err := json.Compact(&one, text); err != nil {
			return nil, &failure{code: exitUsage, text: "standard input, the request of " + n.args[0] + ", is no JSON: " + err.Error()}
		}
		line = append(line, one.Bytes()...)
	case len(n.args) > 1:
		line = append(line, n.text()...)
	default:
		line = append(line, "{}"...)
	}
	return append(line, '\n'), nil
}

// copyTyped is copyReplies for a typed command: the reply is one line of JSON
// behind an OK, which is left out. Anything less is no reply.
func (n *node) copyTyped(ctx context.Context, l *link, out *output) error {
	if p, _ := l.Peek(len("OK ")); string(p) == "OK " {
		_, _ = l.Discard(len(p)) // it is in the buffer
	}
	to := &output{w: out}
	pretty := &indenting{w: out}
	if _, ok := isTerminal(n.stdout); ok {
		to.w = pretty
	}
	err := n.copyReplies(ctx, l, n.args[0], to)
	pretty.flush()
	switch {
	case out.err != nil:
		return cannotPrint(out.err)
	case errors.Is(err, errNoReply), err == nil && to.last != '\n':
		return lost(ctx, l.addr, n.args[0], io.EOF)
	}
	return err
}

// An indenting holds JSON until its end to indent it for people to read. What
// is longer than maxIndent, or no JSON, it passes on as it is.
type indenting struct {
	w    io.Writer
	held []byte
	long bool
}

func (i *indenting) Write(p []byte) (int, error) {
	if i.long {
		return i.w.Write(p)
	}
	i.held = append(i.held, p...)
	if i.long = len(i.held) > maxIndent; i.long {
		if _, err := i.w.Write(i.held); err != nil {
			return 0, err
		}
		i.held = nil
	}
	return len(p), nil
}

// flush writes what is held. The writer keeps its error.
func (i *indenting) flush() {
	if len(i.held) == 0 {
		return
	}
	var pretty bytes.Buffer
	if json.Indent(&pretty, i.held, "", "  ") == nil {
		i.held = pretty.Bytes()
	}
	_, _ = i.w.Write(i.held)
	i.held = nil
}
