package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"gobnode/endpoint"
	"gobnode/types"
)

// A stay is one time in the room of a peer.
type stay struct {
	n      *node
	addr   string // of the peer
	stream *endpoint.Stream[types.ChatEvent, types.ChatLine]
	cancel context.CancelCauseFunc

	left     atomic.Bool // the input has ended; set before the peer learns of it
	inputErr error       // why, nil for its end; valid when left is set
}

// chat joins the room of the peer: it says the lines of standard input and prints
// what happens there. The input's end leaves, when all of it has been said.
func (n *node) chat(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c, addr, err := n.session(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	t := &stay{n: n, addr: addr, cancel: cancel}
	t.stream, err = types.Chat.Open(endpoint.WithHeader(ctx, types.ChatName, n.chatName), c)
	if err != nil {
		return t.failure(ctx, err)
	}
	go t.say()
	return t.hear(ctx)
}

// session opens a session with the first of the addresses that answers: each node
// has a room of its own, and a Client of all of them would choose any. ctx bounds
// the connecting alone.
func (n *node) session(ctx context.Context) (c *endpoint.Client, addr string, err error) {
	config, err := n.clientTLS()
	if err != nil {
		return nil, "", err
	}
	making, cancel := n.within(ctx)
	defer cancel()
	c, addr, failed := first(making, n.addrs, func(ctx context.Context, addr string) (*endpoint.Client, error) {
		return (&endpoint.Dialer{TLS: config, Logger: n.log}).Dial(ctx, addr)
	})
	switch len(failed) {
	case 0:
		return c, addr, nil
	case 1:
		return nil, "", n.noSession(making, failed[0])
	}
	return nil, "", n.cannotConnect(making, failed)
}

// noSession is the failure of an address with which there is no session.
func (n *node) noSession(making context.Context, why unanswered) error {
	// Who answers the command SESSION with an ERR line was connected to.
	if e, ok := asError(why.err); ok && making.Err() == nil {
		switch {
		case e.Code == endpoint.Unimplemented, e.Code == endpoint.ResourceExhausted,
			e.Code == endpoint.FailedPrecondition && !n.tls:
			return n.answered(string(types.Chat), e)
		}
	}
	if _, ok := errors.AsType[*net.OpError](why.err); ok && strings.Contains(why.err.Error(), "remote error") {
		return lost(making, why.addr, string(types.Chat), why.err) // with TLS 1.3 a client learns late that its certificate was refused
	}
	return n.cannotConnect(making, []unanswered{why})
}

// say sends the lines of the input. It ends when that or the stream does. The
// goroutine may outlast the program's run: see run.
func (t *stay) say() {
	lines := bufio.NewScanner(t.n.stdin)
	lines.Split(chatLines)
	for lines.Scan() {
		if t.stream.Send(types.ChatLine{Text: lines.Text()}) != nil {
			return // hear learns why
		}
	}
	t.inputErr = lines.Err()
	t.left.Store(true)
	if limit := t.n.timeout; limit > 0 {
		time.AfterFunc(limit, func() { t.cancel(&timeoutError{limit}) })
	}
	_ = t.stream.CloseSend()
}

// chatLines is a bufio.SplitFunc. What is longer than one may be said as several,
// cut between characters.
func chatLines(data []byte, atEOF bool) (advance int, line []byte, err error) {
	end := bytes.IndexByte(data, '\n')
	switch {
	case 0 <= end && end <= types.MaxChatText:
		return end + 1, bytes.TrimSuffix(data[:end], []byte("\r")), nil
	case len(data) > types.MaxChatText:
		cut := types.MaxChatText
		for least := cut - utf8.UTFMax; cut > least && !utf8.RuneStart(data[cut]); {
			cut--
		}
		return cut, data[:cut], nil
	case atEOF && len(data) > 0:
		return len(data), data, nil
	}
	return 0, nil, nil
}

// hear prints what happens until the stay has ended.
func (t *stay) hear(ctx context.Context) error {
	out := t.n.out()
	for {
		ev, err := t.stream.Recv()
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && t.left.Load():
			if t.inputErr != nil {
				return cannotRead(t.inputErr)
			}
			return nil
		default:
			return t.failure(ctx, err)
		}
		if ev.Kind == types.ChatHere {
			t.n.log.Info("joined: what you type is said at the line's end, Ctrl-D leaves", "name", t.n.chatName, "peer", t.addr)
		}
		if _, err := io.WriteString(out, chatText(&ev)); err != nil {
			return cannotPrint(err)
		}
	}
}

// chatText is a line for what happened, nothing for a kind that is not known. A
// peer that sends a line's end inside of a name or a text gets no second line.
func chatText(ev *types.ChatEvent) string {
	var text string
	switch {
	case ev.Kind == types.ChatSaid:
		text = ev.Name + ": " + ev.Text
	case ev.Kind == types.ChatCame:
		text = "* " + ev.Name + " came"
	case ev.Kind == types.ChatLeft:
		text = "* " + ev.Name + " left"
	case ev.Kind == types.ChatHere && len(ev.Names) == 0:
		text = "* nobody else is here"
	case ev.Kind == types.ChatHere:
		text = "* here: " + strings.Join(ev.Names, ", ")
	default:
		return ""
	}
	return strings.NewReplacer("\n", " ", "\r", " ").Replace(text) + "\n"
}

// failure is the failure behind err of the stream.
func (t *stay) failure(ctx context.Context, err error) error {
	doing := string(types.Chat)
	if f := ended(ctx, doing); f != nil {
		return f
	}
	if e, ok := asError(err); ok && e.Outcome != endpoint.OutcomeUnknown {
		told := *e
		told.Command = "" // doing says it
		return t.n.answered(doing, &told)
	}
	return lost(ctx, t.addr, doing, err)
}
