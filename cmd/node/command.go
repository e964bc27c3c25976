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
	l, err := n.connect(ctx, ctx)
	if err != nil {
		return err
	}
	defer l.close()
	s := &sending{l: l, line: n.args[0] + "\n", done: make(chan struct{})}
	if n.dataFromInput() {
		s.data = n.stdin
	} else if len(n.args) > 1 {
		s.line = n.args[0] + " " + n.text() + "\n"
	}
	go s.run()
	err = n.copyReplies(ctx, l, n.args[0], n.out())
	// What is wrong with the input ends the connection, so it comes first.
	select {
	case <-s.done:
		if s.inputErr != nil {
			return &failure{code: exitInternal, text: "cannot read standard input: " + rootText(s.inputErr)}
		}
	default:
	}
	switch {
	case err != nil && !errors.Is(err, errNoReply):
		return err
	case !s.whole.Load():
		return n.lost(ctx, n.args[0], io.EOF) // it hung up first
	}
	<-s.done
	if s.err != nil {
		return n.lost(ctx, n.args[0], s.err)
	}
	if err != nil {
		n.log.Info("the peer hung up without a reply", "command", n.args[0])
	}
	return nil
}

// A sending is a command on its way to the peer.
type sending struct {
	l    *link
	line string
	data io.Reader // nil for none

	whole    atomic.Bool // set before the end is sent, so that the peer's end cannot overtake it
	done     chan struct{}
	inputErr error // of data; valid when done is closed
	err      error // of the connection; valid when done is closed
}

// run sends the command and its data as they come, and hangs up. It ends when
// data does, or with the first write to a connection that is no more.
func (s *sending) run() {
	defer close(s.done)
	if _, s.err = s.l.WriteString(s.line); s.err != nil {
		return
	}
	if s.data != nil {
		if s.err = s.l.Flush(); s.err != nil {
			return
		}
		to := &output{w: flushing{s.l}}
		if _, err := io.Copy(to, s.data); to.err != nil {
			s.err = to.err
			return
		} else if err != nil {
			s.inputErr = err
			_ = s.l.Close()
			return
		}
	}
	s.whole.Store(true)
	s.err = s.l.CloseWrite()
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
		return n.lost(ctx, doing, err)
	}
	return nil
}
