package session

import (
	"fmt"
	"sync/atomic"
	"time"
)

// A Limit is something that a peer was kept from doing. Each one that fires is counted in Stats, and logged with its name,
// at most once a second for each session.
type Limit uint8

// The limits. What follows is in the remark.
const (
	LimitProtocol    Limit = iota // a frame that is not allowed: the session ends
	LimitCalls                    // more calls than were offered: the call is refused
	LimitInFlight                 // bytes held for calls: the call is refused, or its stream ended
	LimitHeader                   // a call's header over 8 KiB: the call is refused
	LimitMessage                  // a message over the limit: its stream ends
	LimitProgress                 // a message that stands still: its stream ends
	LimitControl                  // 1,024 answers owed that the peer does not read: the session ends
	LimitPings                    // more than a PING a second: the session ends
	LimitNeverOpened              // a frame for a stream that was never opened: the session ends
	LimitCredit                   // data without credit, or more credit than there can be: the session ends
	LimitFrame                    // a frame that does not become whole: the session ends
	LimitWrite                    // a peer that takes no bytes: the session ends
	LimitHeartbeat                // no answer to a PING: the session ends
	LimitHello                    // no HELLO in time: the session ends
	numLimits
)

var limitNames = [numLimits]string{
	"protocol", "calls", "in_flight", "header", "message", "progress", "control", "pings", "never_opened", "credit",
	"frame", "write", "heartbeat", "hello",
}

// String returns the name a log line has for l.
func (l Limit) String() string { return limitNames[l] }

const (
	defaultMessage   = 4 << 20
	defaultCalls     = 250
	defaultCredit    = 256 << 10
	defaultHeartbeat = 15 * time.Second
	defaultHandshake = 10 * time.Second
	defaultProgress  = 10 * time.Second
	defaultInFlight  = 64 << 20

	// What a side assumes of its peer until the HELLO is there, and what a HELLO cannot lower.
	assumedCalls   = 100
	assumedCredit  = 64 << 10
	assumedMessage = 1 << 20

	maxHeader    = 8 << 10 // bytes of a call's pairs, and of an error's
	maxName      = 64      // bytes of a command's name
	maxErrorText = 4 << 10 // bytes of the message of an ERROR that this side sends
	maxReason    = 256     // bytes of a GOAWAY's message that are kept
	maxCredit    = 1<<31 - 1
	maxOwed      = 1024      // PONGs and refusals queued for the writer
	maxStaged    = 64 << 10  // bytes staged before a writer has to wait; a frame may go over it
	wideStaged   = 192 << 10 // the same while the connection takes all of it at once
	pingBurst    = 16        // PINGs forgiven beyond one a second: a stalled network delivers several at once
	callCharge   = 8 << 10   // the least a call is charged for
	renewal      = 64 << 10  // bytes of a message that renew its 10 s

	wideCharge = 2 * (wideStaged + 64<<10) // what is staged then, and what is being written

	minHeartbeat  = time.Second
	maxHeartbeat  = 2 * time.Minute
	answerTime    = 10 * time.Second        // for any byte after a PING
	drainTime     = time.Second             // between the two GOAWAYs, at most
	lastWordsTime = time.Second             // for the GOAWAY of a session that ends
	coolTime      = 1500 * time.Millisecond // without a call, after which a session gives back what it keeps for the next
	longCoolTime  = 4 * coolTime            // the same after many calls, counted from when it is seen that there was none
)

// A Budget bounds the bytes that calls hold. Budgets nest: what is taken from one is taken from its parent too. Safe for
// use by many goroutines.
type Budget struct {
	limit  int64
	parent *Budget
	used   atomic.Int64
}

// NewBudget returns a budget of limit bytes inside parent, which may be nil.
func NewBudget(limit int64, parent *Budget) *Budget { return &Budget{limit: limit, parent: parent} }

// Take reserves n bytes and reports whether they were there; otherwise nothing is reserved.
func (b *Budget) Take(n int64) bool {
	if b == nil {
		return true
	}
	if used := b.used.Add(n); used > b.limit || used < 0 || !b.parent.Take(n) {
		b.used.Add(-n)
		return false
	}
	return true
}

// Give returns what Take reserved.
func (b *Budget) Give(n int64) {
	if n == 0 {
		return // and spare those who count the line that they would wait for
	}
	for ; b != nil; b = b.parent {
		b.used.Add(-n)
	}
}

// spare is Take of what is spent on speed alone: only if no more than half is taken with it, so that no call is refused for it.
func (b *Budget) spare(n int64) bool {
	for x := b; x != nil; x = x.parent {
		if x.used.Load()+n > x.limit/2 {
			return false
		}
	}
	if !b.Take(n) {
		return false
	}
	if !b.ample() { // others have taken some meanwhile
		b.Give(n)
		return false
	}
	return true
}

// ample reports whether so little is taken that some may be spent on speed alone: half at most.
func (b *Budget) ample() bool {
	for ; b != nil; b = b.parent {
		if b.used.Load() > b.limit/2 {
			return false
		}
	}
	return true
}

// Full says, after Take has failed, which budget has no room for n bytes: b, or the one around it.
func (b *Budget) Full(n int64) string {
	who := "the calls under way"
	switch {
	case b.parent == nil:
	case b.used.Load()+n > b.limit:
		who = "the calls of this session"
	default:
		b = b.parent
	}
	return fmt.Sprintf("%s hold all of the %d bytes that they may: try again later", who, b.limit)
}

// Used returns the bytes reserved now.
func (b *Budget) Used() int64 { return b.used.Load() }
