package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"

	"gobnode/endpoint"
)

// checkCommand refuses what cannot be sent as one command line.
func (c *config) checkCommand() error {
	if len(c.args) == 0 {
		return nil
	}
	if err := checkName(c.args[0]); err != nil {
		return usage("%s", err)
	}
	if len(c.args) == 1 {
		return nil
	}
	text := c.text()
	if strings.ContainsAny(text, "\r\n") {
		return usage("TEXT %q has a line's end in it: send it as standard input, with - for TEXT", text)
	}
	if text == "" || text[0] == ' ' {
		return usage("TEXT %q is empty or begins with a space, which would not arrive: send it as standard input, with - for TEXT", text)
	}
	return nil
}

// checkName returns why name cannot be a command's, by the rule of
// Conn.Command.
func checkName(name string) error {
	c := endpoint.Conn{ReadWriter: bufio.NewReadWriter(nil, bufio.NewWriter(io.Discard))}
	err := c.Command(name)
	if told, ok := asError(err); ok {
		return errors.New(told.Message)
	}
	return err
}

// text is the inline data of a command.
func (c *config) text() string { return strings.Join(c.args[1:], " ") }

// dataFromInput reports whether standard input is the command's data.
func (c *config) dataFromInput() bool { return len(c.args) == 2 && c.args[1] == "-" }

// command sends one command and prints the reply.
func (n *node) command(ctx context.Context) error {
	ctx, cancel := n.within(ctx)
	defer cancel()
	typed, err := n.isTyped(ctx, n.args[0])
	if err != nil {
		return err
	}
	l, err := n.connect(ctx, ctx)
	if err != nil {
		return err
	}
	defer l.close()
	s := &sending{n: n, l: l, typed: typed, done: make(chan struct{})}
	if n.dataFromInput() {
		s.data = n.stdin
	}
	go s.run()
	if typed {
		err = n.copyTyped(ctx, l, n.out())
	} else {
		err = n.copyReplies(ctx, l, n.args[0], n.out())
	}
	return s.verdict(ctx, err)
}

// A sending is a command on its way to the peer.
type sending struct {
	n     *node
	l     *link
	typed bool
	data  io.Reader // nil for none

	whole    atomic.Bool // set before the end is sent, so that the peer's end cannot overtake it
	done     chan struct{}
	inputErr error // a failure of data; valid when done is closed
	err      error // of the connection; valid when done is closed
}

// run sends the command and its data as they come, and hangs up. It ends when
// data does, or with the first write to a connection that is no more.
func (s *sending) run() {
	s.err = s.send()
	if s.err == nil && s.inputErr == nil {
		s.whole.Store(true)
		s.err = s.l.CloseWrite()
	}
	close(s.done)
	if s.inputErr != nil {
		_ = s.l.Close() // what has been sent is not the whole: there must be no reply to it
	}
}

// send sends all but the end. Its error is the connection's.
func (s *sending) send() error {
	var line []byte
	switch {
	case s.typed:
		if line, s.inputErr = s.n.typedLine(s); s.inputErr != nil {
			return nil
		}
	case s.data == nil && len(s.n.args) > 1:
		line = []byte(s.n.args[0] + " " + s.n.text() + "\n")
	default:
		line = []byte(s.n.args[0] + "\n")
	}
	to := &output{w: flushing{s.l}}
	if _, err := to.Write(line); err != nil || s.data == nil || s.typed {
		return err
	}
	if _, err := io.Copy(to, s.data); err != nil && to.err == nil {
		s.inputErr = cannotRead(err)
	}
	return to.err
}

// verdict is what command returns, given what copying the replies returned.
func (s *sending) verdict(ctx context.Context, err error) error {
	select {
	case <-s.done:
		if s.inputErr != nil {
			return s.inputErr // it ended the connection
		}
	default:
	}
	name := s.n.args[0]
	switch {
	case err != nil && !errors.Is(err, errNoReply):
		return err
	case !s.whole.Load():
		return lost(ctx, s.l.addr, name, io.EOF) // the peer hung up before it had all
	}
	<-s.done
	if s.err != nil {
		return lost(ctx, s.l.addr, name, s.err)
	}
	if err != nil {
		// Raw commands that fail say nothing either, and some never do.
		s.n.log.Warn("no reply: the command has none, or it has failed; the log of the peer tells", "command", name)
	}
	return nil
}

// flushing sends at once what is written to it.
type flushing struct{ l *link }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.l.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.l.Flush()
}

// errNoReply is what copyReplies returns when the peer hung up without a word.
var errNoReply = errors.New("no reply")

// copyReplies prints what the peer sends until its end. If it begins with an
// ERR line it is no reply: it goes to standard error and becomes a failure.
func (n *node) copyReplies(ctx context.Context, l *link, doing string, out *output) error {
	p, told, err := l.replies.next()
	if told != nil {
		_, _ = io.Copy(&display{w: n.stderr}, l.Reader) // more of it, if there is more
		return n.answered(doing, told)
	}
	if errors.Is(err, io.EOF) {
		return errNoReply
	}
	if err == nil {
		if _, err = out.Write(p); err == nil {
			_, err = io.Copy(out, l.Reader)
		}
	}
	switch {
	case out.err != nil:
		return cannotPrint(out.err)
	case err != nil:
		return lost(ctx, l.addr, doing, err)
	}
	return nil
}
