package gobcodec

import (
	"container/list"
	"sync"
)

// The table of plans is one for the process and bounded in plans and in bytes, least recently used out: peers that send ever
// new definitions cost the time to compile them (3 to 10 µs for ordinary ones) but no memory.
const (
	tablePlans = 1024
	tableBytes = 16 << 20
	// A plan of a program's peers is kept at hand beside the table if it is no larger than this; a type has one such plan at most.
	recentBytes = 32 << 10
)

type tableKey struct {
	pr          *program
	id          int64
	definitions string
}

type table struct {
	mu    sync.Mutex
	plans map[tableKey]*list.Element // of *tableEntry
	order list.List                  // most recently used first
	bytes int
}

type tableEntry struct {
	key  tableKey
	plan *plan
}

var plans = table{plans: make(map[tableKey]*list.Element)}

// get does not allocate: the compiler sees that the string is only looked up.
func (t *table) get(pr *program, id int64, definitions []byte) *plan {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.plans[tableKey{pr, id, string(definitions)}]
	if e == nil {
		return nil
	}
	t.order.MoveToFront(e)
	return e.Value.(*tableEntry).plan
}

func (t *table) put(pr *program, p *plan) {
	if p.cost > tableBytes {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	key := tableKey{pr, p.id, p.definitions}
	if t.plans[key] != nil { // another goroutine compiled the same
		return
	}
	t.plans[key] = t.order.PushFront(&tableEntry{key, p})
	t.bytes += p.cost
	for t.bytes > tableBytes || len(t.plans) > tablePlans {
		last := t.order.Remove(t.order.Back()).(*tableEntry)
		delete(t.plans, last.key)
		t.bytes -= last.plan.cost
	}
}

// plan returns the plan for the gob in b and the position of the value's body.
func (pr *program) plan(b []byte) (*plan, int, error) {
	// Nearly all peers of a type send the same definitions: a comparison instead of finding their end and hashing them.
	if p := pr.recent.Load(); p != nil && len(b) > len(p.definitions) && string(b[:len(p.definitions)]) == p.definitions {
		if h, reason := parseHeader(b, len(p.definitions)); reason == "" && h.id == p.id && h.end == len(b) {
			return p, h.body, nil
		}
	}
	end, value, err := split(b)
	if err != nil {
		return nil, 0, err
	}
	p := plans.get(pr, value.id, b[:end])
	if p == nil {
		if p, err = pr.compile(string(b[:end]), value.id); err != nil {
			return nil, 0, err
		}
		plans.put(pr, p)
	}
	if p.cost <= recentBytes {
		pr.recent.Store(p)
	}
	return p, value.body, nil
}
