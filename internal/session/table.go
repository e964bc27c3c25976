package session

import "iter"

// A table finds streams by their numbers. The numbers of one side rise by two and few streams live long, so almost each finds the
// slot free that the low bits of its number name. Those that do not, because a long one is in the way or because a peer chose its
// numbers so, are in a map. A map for all of them took 4 % of a small call's CPU time on either side.
type table struct {
	sides [2]side // by the last bit of the number, which tells who opened the stream
	rest  map[uint64]*Stream
}

// A side is the streams that one side opened.
type side struct {
	slots []*Stream // a power of two of them; at most half are used
	len   int       // those in rest included
}

func (s *side) slot(id uint64) **Stream { return &s.slots[id>>1&uint64(len(s.slots)-1)] }

const firstSlots = 16

// get returns the stream of that number, nil if there is none.
func (t *table) get(id uint64) *Stream {
	side := &t.sides[id&1]
	if len(side.slots) == 0 {
		return nil
	}
	if st := *side.slot(id); st != nil && st.id == id {
		return st
	}
	return t.rest[id]
}

// put enters a stream whose number is in no table yet.
func (t *table) put(st *Stream) {
	side := &t.sides[st.id&1]
	if 2*side.len >= len(side.slots) {
		old := side.slots
		side.slots = make([]*Stream, max(firstSlots, 2*len(old)))
		for _, st := range old { // each finds its slot free: two that differ in the low bits differ in one more
			if st != nil {
				*side.slot(st.id) = st
			}
		}
	}
	side.len++
	if slot := side.slot(st.id); *slot == nil {
		*slot = st
		return
	}
	if t.rest == nil {
		t.rest = make(map[uint64]*Stream)
	}
	t.rest[st.id] = st
}

// remove takes a stream out, if it is in.
func (t *table) remove(st *Stream) {
	if t.get(st.id) != st {
		return
	}
	side := &t.sides[st.id&1]
	side.len--
	if slot := side.slot(st.id); *slot == st {
		*slot = nil
	} else {
		delete(t.rest, st.id)
	}
}

// all ranges over the streams in no order. They may be removed meanwhile.
func (t *table) all() iter.Seq[*Stream] {
	return func(yield func(*Stream) bool) {
		for i := range t.sides {
			for _, st := range t.sides[i].slots {
				if st != nil && !yield(st) {
					return
				}
			}
		}
		for _, st := range t.rest {
			if !yield(st) {
				return
			}
		}
	}
}
