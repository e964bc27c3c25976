package endpoint

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"gobnode/internal/gobcodec"
)

const (
	// The budget of copies, in hundredths: 5 % of the calls, and a few at once.
	hedgeCost = 100
	hedgeEarn = 5
	hedgeMost = 10 * hedgeCost
)

// hedgeTokens is the budget of copies.
type hedgeTokens struct{ have atomic.Int64 }

func (t *hedgeTokens) earn() {
	if t.have.Load() < hedgeMost {
		t.have.Add(hedgeEarn)
	}
}

func (t *hedgeTokens) take() bool {
	if t.have.Add(-hedgeCost) >= 0 {
		return true
	}
	t.giveBack()
	return false
}

// giveBack takes back a take that was of no use.
func (t *hedgeTokens) giveBack() { t.have.Add(hedgeCost) }

// A message is a call whose request is encoded already and whose reply is left
// as it comes, so that two of them can be under way without a user's types being
// used by two goroutines.
type message struct{ request, reply []byte }

func (m *message) appendRequest(dst []byte) ([]byte, error) { return append(dst, m.request...), nil }
func (m *message) noReply() bool                            { return false }

func (m *message) decodeReply(src []byte, _ gobcodec.Limits) (int, error) {
	m.reply = append(m.reply[:0], src...)
	return 0, nil
}

// A hedge is one call that may get a copy on another node.
type hedge struct {
	c           *Client
	ctx         context.Context
	name        string
	first       *node
	cancelFirst context.CancelFunc
	call        message
	copied      message

	mu         sync.Mutex // guards following
	over       bool       // the first call has ended: no copy is made
	cancelCopy context.CancelFunc
	copyEnded  chan struct{} // nil without a copy
	copyError  *Error        // once copyEnded is closed
}

// hedged makes a call on r, and a copy of it elsewhere when it takes longer than
// most.
func (c *Client) hedged(ctx context.Context, r *route, name string, request []byte) ([]byte, *Error) {
	times := c.latencies.get(name)
	h := &hedge{c: c, ctx: ctx, name: name, first: r.n, call: message{request: request}, copied: message{request: request}}
	c.hedging.earn()
	var timer *time.Timer
	firstCtx := ctx
	if p95 := times.p95.Load(); p95 > 0 {
		firstCtx, h.cancelFirst = context.WithCancel(ctx)
		defer h.cancelFirst()
		timer = time.AfterFunc(time.Duration(p95), h.copy)
	}
	start := time.Now()
	refused := r.call(firstCtx, name, &h.call)
	times.add(time.Since(start)) // of one that lost to its copy: it would have taken longer
	if timer != nil {
		timer.Stop()
	}
	return h.result(refused)
}

// copy makes the copy, on the goroutine of a timer. It ends with the copy.
func (h *hedge) copy() {
	if !h.c.elsewhere([]*node{h.first}) {
		return
	}
	h.mu.Lock()
	if h.over || !h.c.hedging.take() {
		h.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	h.cancelCopy, h.copyEnded = cancel, make(chan struct{})
	h.mu.Unlock()
	defer close(h.copyEnded)
	r, _ := h.c.pickBut([]*node{h.first})
	if r.l == nil {
		h.c.hedging.giveBack()
		h.copyError = refusal(Unavailable, "no other node takes calls")
		return
	}
	h.c.hedges.Add(1)
	h.copyError = r.call(ctx, h.name, &h.copied)
	if h.copyError == nil || h.copyError.Outcome == OutcomeFailed {
		h.cancelFirst() // answered
	}
}

// result returns the reply of whichever call was answered first. refused is how
// the first one ended.
func (h *hedge) result(refused *Error) ([]byte, *Error) {
	h.mu.Lock()
	h.over = true
	cancel, ended := h.cancelCopy, h.copyEnded
	h.mu.Unlock()
	if ended == nil {
		return h.call.reply, refused
	}
	if refused == nil || refused.Outcome == OutcomeFailed {
		cancel()
		return h.call.reply, refused
	}
	<-ended // of its own, or with h.ctx
	switch second := h.copyError; {
	case second == nil:
		return h.copied.reply, nil
	case second.Outcome == OutcomeFailed:
		return nil, second
	case second.Outcome == OutcomeUnknown && refused.Outcome == OutcomeNotRun:
		refused.Outcome = OutcomeUnknown
	}
	return nil, refused
}
