package main

import (
	"context"
	"errors"
	"io"
	"time"

	"gobnode/endpoint"
	"gobnode/types"
)

// joinText is the data of the STRING that join sends.
const joinText = "Additional data."

// verdictTime is how long a peer that takes no more is listened to for a reason.
const verdictTime = time.Second

// join exchanges a STRING and a GOB with the peer, on one connection:
//
//	> STRING
//	> Additional data.
//	< Thank you.
//	> GOB
//	> (a gob of types.Sample)
func (n *node) join(ctx context.Context) error {
	ctx, cancel := n.within(ctx)
	defer cancel()
	l, err := n.connect(ctx, ctx)
	if err != nil {
		return err
	}
	defer l.close()
	out := n.out()
	if err := n.joinString(ctx, l, out); err != nil {
		return err
	}
	return n.joinGob(ctx, l, out)
}

func (n *node) joinString(ctx context.Context, l *link, out io.Writer) error {
	if err := l.Command(types.StringCommand); err != nil {
		return err
	}
	if _, err := l.WriteString(joinText + "\n"); err != nil {
		return n.verdict(ctx, l, types.StringCommand, err)
	}
	if err := l.Flush(); err != nil {
		return n.verdict(ctx, l, types.StringCommand, err)
	}
	n.log.Info("sent STRING; the reply follows", "text", joinText, "peer", l.addr)
	for {
		p, told, err := l.replies.next()
		switch {
		case told != nil:
			return n.answered(types.StringCommand, told)
		case err != nil:
			return lost(ctx, l.addr, types.StringCommand, err)
		}
		if _, err := out.Write(p); err != nil {
			return cannotPrint(err)
		}
		if !l.replies.midLine {
			return nil
		}
	}
}

// joinGob sends the sample and waits for the peer to hang up in turn: a peer
// that does not like the GOB says so, and one that does says nothing.
func (n *node) joinGob(ctx context.Context, l *link, out *output) error {
	sample := types.Sample()
	if err := l.Command(types.GobCommand); err != nil {
		return err
	}
	if err := endpoint.WriteGob(l, &sample); err != nil {
		return n.verdict(ctx, l, types.GobCommand, err)
	}
	if err := l.CloseWrite(); err != nil {
		return n.verdict(ctx, l, types.GobCommand, err)
	}
	if err := n.copyReplies(ctx, l, types.GobCommand, out); err != nil && !errors.Is(err, errNoReply) {
		return err
	}
	n.log.Info("sent GOB; it has no reply", "n", sample.N, "s", sample.S, "m", sample.M, "p", sample.P, "c", *sample.C, "peer", l.addr)
	return nil
}

// verdict is the failure behind err, of reading from or writing to l. The reason
// may still be on its way: an ERR line, or an alert of TLS.
func (n *node) verdict(ctx context.Context, l *link, doing string, err error) error {
	_ = l.SetDeadline(time.Now().Add(verdictTime))
	for {
		_, told, readErr := l.replies.next()
		switch {
		case told != nil:
			return n.answered(doing, told)
		case readErr == nil:
			continue
		case !errors.Is(readErr, io.EOF) && endpoint.CodeOf(readErr) != endpoint.DeadlineExceeded:
			err = readErr
		}
		return lost(ctx, l.addr, doing, err)
	}
}
