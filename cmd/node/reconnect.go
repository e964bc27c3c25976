package main

import (
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"gobnode/endpoint"
)

const (
	// usefulTime is after which time a connection was of use even if nothing was
	// said on it: a peer that hangs up on whoever comes is not pressed.
	usefulTime = 10 * time.Second

	// statusTime is how often the prompt tells how long there is to wait.
	statusTime = 250 * time.Millisecond

	// maxQuoted is how much of a line is repeated to its user, in bytes.
	maxQuoted = 60
)

// A reconnecting is the time without a connection at a terminal. Attempts are
// made at once, then after endpoint's Backoff, and when a line is typed. That
// line, and those behind it, go out if the attempt succeeds; otherwise their user
// is told that they do not, as by redis-cli: a command that runs by itself when its user has turned to
// something else is worse than one to type again.
type reconnecting struct {
	p      *prompt
	before *conversation
	timer  *time.Timer // for the next attempt
	until  time.Time   // when that is
	made   chan made   // the result of the attempt under way; nil without one
	held   []string    // the lines that wait for it
	status string      // that is shown
	why    string      // the last failure that was told
}

// made is what became of an attempt to connect.
type made struct {
	l   *link
	err error
}

// reconnect returns a new connection, on which the lines that waited for it have
// been sent. Without one the user has left, or err ends the prompt.
func (p *prompt) reconnect(ctx context.Context, before *conversation) (_ *conversation, err error) {
	r := &reconnecting{p: p, before: before, timer: time.NewTimer(0)}
	defer r.timer.Stop()
	r.begin()
	tick := time.NewTicker(statusTime)
	defer tick.Stop()
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				return nil, p.badInput()
			}
			r.held = append(r.held, line)
			r.attempt(ctx)
		case <-r.timer.C:
			r.attempt(ctx)
		case got := <-r.made:
			r.made = nil
			if got.err == nil {
				return r.connected(got.l), nil
			}
			r.failed(got.err)
		case <-tick.C:
			r.show()
		case <-ctx.Done():
			return nil, ended(ctx, "the prompt")
		}
	}
}

// begin tells what became of the last connection. That nobody has used it is no
// news: a node closes a connection after some minutes of silence.
func (r *reconnecting) begin() {
	t, useful := r.before, time.Since(r.before.since) >= usefulTime
	if useful = useful || t.last != "" && t.over.heard; useful {
		r.p.failures = 0
	} else {
		r.p.failures++
		r.wait()
	}
	if t.last != "" && t.over.told == nil {
		r.say(whyLost(t.l.addr, t.over.err) + "; the last line sent was " + quote(t.last) +
			": if its answer is not above, it may have run or not")
	}
	r.show()
}

// attempt begins to connect, unless that is under way.
func (r *reconnecting) attempt(ctx context.Context) {
	if r.made != nil {
		return
	}
	r.made = make(chan made, 1)
	go r.p.connectAgain(ctx, r.made)
}

// connectAgain makes one attempt. It ends with it, at the latest soon after ctx,
// which closes the connection too.
func (p *prompt) connectAgain(ctx context.Context, to chan<- made) {
	l, err := p.n.open(ctx)
	to <- made{l, err}
}

// wait sets the time of the next attempt.
func (r *reconnecting) wait() {
	d := endpoint.Backoff{}.Delay(r.p.failures)
	r.until = time.Now().Add(d)
	r.timer.Reset(d)
}

// connected goes over to a new connection.
func (r *reconnecting) connected(l *link) *conversation {
	r.p.c.status(l.addr)
	switch before := r.before; {
	case before.over.told != nil && before.last != "" && r.why == "":
		// Most mistyped commands end the connection.
		r.news("the peer has hung up after the error; connected again to " + l.addr)
	case before.last != "" || r.why != "":
		r.news("connected again to " + l.addr)
	}
	t := newConversation(l)
	for _, line := range r.held {
		t.send(line)
	}
	return t
}

// failed tells why an attempt failed, once for each reason, and what becomes of
// the lines that waited for it.
func (r *reconnecting) failed(err error) {
	r.p.failures++
	r.wait()
	why := brief(err)
	asked := len(r.held) > 0
	r.held = slices.DeleteFunc(r.held, func(line string) bool { return strings.TrimSpace(line) == "" })
	switch more := len(r.held) - 1; {
	case more > 0:
		r.say("not sent: " + quote(r.held[0]) + " and " + strconv.Itoa(more) + " more: " + why)
	case more == 0:
		r.say("not sent: " + quote(r.held[0]) + ": " + why)
	case asked || why != r.why: // an empty line asks for no more than an attempt
		r.news(why + "; trying again")
	}
	r.held, r.why = nil, why
	r.show()
}

// show has the prompt tell how long there is to wait.
func (r *reconnecting) show() {
	status := r.before.l.addr + " (reconnecting)"
	if left := time.Until(r.until); r.made == nil && left > 0 {
		status = r.before.l.addr + " (reconnecting " + strconv.Itoa(int((left+time.Second-1)/time.Second)) + "s)"
	}
	if status != r.status {
		r.status = status
		r.p.c.status(status)
	}
}

// news tells the user something that -q leaves out.
func (r *reconnecting) news(text string) {
	if !r.p.n.quiet {
		r.say(text)
	}
}

// say tells the user something, -q or not.
func (r *reconnecting) say(text string) {
	_, _ = io.WriteString(r.p.c.say, "node: "+harmless(text)+"\n")
}

// quote is the beginning of a line.
func quote(line string) string {
	if len(line) > maxQuoted {
		line = line[:maxQuoted] + "..."
	}
	return strconv.Quote(line)
}
