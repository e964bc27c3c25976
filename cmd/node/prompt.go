package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"time"

	"gobnode/endpoint"
	"gobnode/types"
)

const (
	// helpTime bounds the asking for the names that Tab completes: the prompt
	// is worth more than they are.
	helpTime = 3 * time.Second

	// helpBytes bounds what the answer may take, in bytes.
	helpBytes = 64 << 10

	// leaveTime is how long somebody who leaves a terminal waits for replies.
	leaveTime = 2 * time.Second
)

// A prompt sends lines as they are read and prints replies to them as they come. At
// a terminal it outlives its connections, see reconnect.
type prompt struct {
	n        *node
	c        *console
	lines    chan string // closed at the input's end
	inputErr error       // why lines was closed, nil for its end
	failures int         // to connect, in a row; a connection that was of no use counts as one
}

// prompt runs a prompt until its user leaves it.
func (n *node) prompt(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // and so tells readLines
	l, err := n.open(ctx)
	if err != nil {
		return err
	}
	var names []string
	if n.atTerminal() {
		names = n.askNames(ctx)
	}
	c, err := n.openConsole(l.addr, names)
	if err != nil {
		l.close()
		return err
	}
	defer c.restore()
	n.log = slog.New(slog.NewTextHandler(c.say, &slog.HandlerOptions{Level: n.level()}))
	p := &prompt{n: n, c: c, lines: make(chan string)}
	go p.readLines(ctx)
	t := newConversation(l)
	for {
		again, err := p.talk(ctx, t)
		l.close()
		if !again {
			return err
		}
		if t, err = p.reconnect(ctx, t); t == nil {
			return err
		}
		l = t.l
	}
}

// open makes a connection for as long as ctx lasts.
func (n *node) open(ctx context.Context) (*link, error) {
	making, cancel := n.within(ctx)
	defer cancel()
	return n.connect(ctx, making)
}

// askNames asks for the names of the peer's commands, on a connection of its
// own. A peer that does not tell is no error: Tab then does nothing.
func (n *node) askNames(ctx context.Context) (names []string) {
	ctx, cancel := context.WithTimeout(ctx, helpTime)
	defer cancel()
	l, err := n.connect(ctx, ctx)
	if err != nil {
		return nil
	}
	defer l.close()
	if l.Command(types.HelpCommand) != nil || l.CloseWrite() != nil {
		return nil
	}
	if p, err := l.Peek(len(errPrefix)); err != nil || string(p) == string(errPrefix) {
		n.log.Debug("the peer does not tell its commands: Tab completes nothing")
		return nil
	}
	for s := bufio.NewScanner(io.LimitReader(l, helpBytes)); s.Scan(); {
		if name, _, _ := strings.Cut(s.Text(), " "); checkName(name) == nil {
			names = append(names, name)
		}
	}
	return names
}

// readLines reads the input. It ends when that does, when the user leaves, or
// with the first line behind the end of ctx.
func (p *prompt) readLines(ctx context.Context) {
	defer close(p.lines)
	for {
		line, err := p.c.readLine()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				p.inputErr = err
			}
			return
		}
		if word := strings.TrimSpace(line); word == "exit" || word == "quit" {
			return
		}
		select {
		case p.lines <- line:
		case <-ctx.Done():
			return
		}
	}
}

// A conversation is what was said on one connection.
type conversation struct {
	l     *link
	since time.Time
	last  string // line that was sent; blank ones do not count
	over  hangup
}

func newConversation(l *link) *conversation { return &conversation{l: l, since: time.Now()} }

// send sends a line. A failure is told by the end of the connection.
func (t *conversation) send(line string) (ok bool) {
	if strings.TrimSpace(line) != "" {
		t.last = line
	}
	if _, err := t.l.WriteString(line + "\n"); err != nil {
		return false
	}
	return t.l.Flush() == nil
}

// A hangup is how the peer's side of a connection ended.
type hangup struct {
	told     *endpoint.Error // the ERR line that was the last line, if it was one
	err      error           // of reading
	printErr error           // of printing
	heard    bool            // anything was read
}

// show prints what comes on l. It ends with l, and says how.
func (p *prompt) show(l *link, end chan<- hangup) {
	var h hangup
	for {
		text, told, err := l.replies.next()
		if err != nil {
			h.err = err
			break
		}
		h.told, h.heard = told, true
		if _, h.printErr = p.c.out.Write(text); h.printErr != nil {
			break
		}
	}
	end <- h
}

// talk sends lines until the user leaves or the connection ends. again says that
// it ended in a way after which another one is worth having.
func (p *prompt) talk(ctx context.Context, t *conversation) (again bool, err error) {
	end := make(chan hangup, 1)
	go p.show(t.l, end)
	for lines := p.lines; ; {
		select {
		case line, ok := <-lines:
			if !ok {
				return false, p.leave(ctx, t.l, end)
			}
			if !t.send(line) {
				lines = nil // what is wrong with the connection, show will learn
			}
		case t.over = <-end:
			// A script cannot see what became of its last line, and the lines behind it
			// may be that one's data: it ends here.
			if !p.c.terminal || ctx.Err() != nil || t.over.printErr != nil {
				return false, p.failure(ctx, t.l, t.over)
			}
			if t.last == "" && t.over.told != nil && p.failures == 0 {
				return false, p.failure(ctx, t.l, t.over) // refused, before anything was typed
			}
			return true, nil
		}
	}
}

// leave hangs up and lets the last replies come.
func (p *prompt) leave(ctx context.Context, l *link, end <-chan hangup) error {
	if p.inputErr != nil {
		return p.badInput()
	}
	if err := l.CloseWrite(); err != nil {
		// So that show ends, but not before it has read why: a peer that hung up may have said so.
		_ = l.SetDeadline(time.Now().Add(leaveTime))
	}
	ctx, cancel := p.n.within(ctx)
	defer cancel()
	var enough <-chan time.Time
	if p.c.terminal {
		enough = time.After(leaveTime)
	}
	select {
	case h := <-end:
		if p.c.terminal || h.told == nil && h.printErr == nil && errors.Is(h.err, io.EOF) {
			return nil
		}
		return p.failure(ctx, l, h)
	case <-enough:
		return nil
	case <-ctx.Done():
		return ended(ctx, "waiting for the last replies")
	}
}

// badInput is the failure behind the input's end, nil if it is just that.
func (p *prompt) badInput() error {
	switch {
	case p.inputErr == nil:
		return nil
	case errors.Is(p.inputErr, errCtrlC):
		return &failure{code: exitInterrupted, text: errCtrlC.Error()}
	}
	return cannotRead(p.inputErr)
}

// failure is the failure behind a hangup that was not asked for, or that has an
// error for its last word.
func (p *prompt) failure(ctx context.Context, l *link, h hangup) error {
	switch f := ended(ctx, "the prompt"); {
	case f != nil:
		return f
	case h.printErr != nil:
		return cannotPrint(h.printErr)
	case h.told != nil:
		return p.n.answered("the last reply", h.told)
	}
	return lost(ctx, l.addr, "the prompt", h.err)
}
