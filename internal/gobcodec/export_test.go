package gobcodec

import (
	"reflect"
)

// An Untyped is a codec for a type made at run time, which no type parameter can name.
type Untyped struct{ program }

func ForType(rt reflect.Type) (*Untyped, error) {
	u := new(Untyped)
	if err := u.init(rt); err != nil {
		return nil, err
	}
	return u, nil
}

func (u *Untyped) Append(dst []byte, v reflect.Value) ([]byte, error) {
	return u.append(dst, v.UnsafePointer())
}

func (u *Untyped) Decode(src []byte, v reflect.Value, lim Limits) (int, error) {
	return u.decode(src, v.UnsafePointer(), lim)
}

// Bounds and sizes that tests reach.
const (
	MaxDepth           = maxDepth
	MaxDefinitions     = maxDefinitions
	MaxDefinitionBytes = maxDefinitionBytes
	MaxPlan            = maxPlan
	TablePlans         = tablePlans
	TableBytes         = tableBytes
	FirstRead          = firstRead
)

// Table returns how many plans the table holds and their cost, and checks the sum.
func Table() (n, bytes int, consistent bool) {
	plans.mu.Lock()
	defer plans.mu.Unlock()
	sum := 0
	for e := plans.order.Front(); e != nil; e = e.Next() {
		sum += e.Value.(*tableEntry).plan.cost
	}
	return len(plans.plans), plans.bytes, sum == plans.bytes && plans.order.Len() == len(plans.plans)
}

// Split exposes where the definitions of a gob end.
func Split(b []byte) (definitions, value []byte, err error) {
	end, _, err := split(b)
	return b[:end], b[end:], err
}

// Definitions are the definitions of T and its id in them.
func (c *Codec[T]) Definitions() (string, int64) { return c.definitions, c.id }
