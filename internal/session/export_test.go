package session

import (
	"bytes"
	"net"
	"unsafe"
)

// What the tests need of the inside.

type (
	Table = table
	Pace  = pace
)

// Waiting returns how many workers wait for something to do, and how many sessions have no timer of their own yet.
func (p *Workers) Waiting() (workers, young int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle), len(p.young)
}

// CoolTime is after which time without a call a session gives back what it keeps.
const CoolTime = coolTime

// Warm reports whether a session keeps what it may give back.
func (s *Session) Warm() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.warm
}

// Size is what a Session takes, in bytes.
const Size = unsafe.Sizeof(Session{})

// NewNumbered returns a stream of that number and of no session.
func NewNumbered(id uint64) *Stream { return &Stream{id: id} }

// Number returns the number of st.
func (st *Stream) Number() uint64 { return st.id }

func (t *table) Get(id uint64) *Stream { return t.get(id) }
func (t *table) Put(st *Stream)        { t.put(st) }
func (t *table) Remove(st *Stream)     { t.remove(st) }

// All returns the streams by their numbers.
func (t *table) All() map[uint64]*Stream {
	all := make(map[uint64]*Stream)
	for st := range t.all() {
		if all[st.id] != nil {
			return nil // twice
		}
		all[st.id] = st
	}
	return all
}

// RemoveAll removes the streams that f names while it ranges over them.
func (t *table) RemoveAll(f func(id uint64) bool) {
	for st := range t.all() {
		if f(st.id) {
			t.remove(st)
		}
	}
}

// After has p see a read that brought n frames, and returns how many reads it lets pass now without yielding.
func (p *pace) After(n int) int {
	p.frames = n
	p.yield()
	return p.pass
}

// Widened is the window, of credit bytes, of a stream that was alone while so much was taken of it.
func Widened(credit, taken int64) int64 {
	return (&inbox{window: credit, taken: taken}).widened(0, false)
}

// Landing reports whether a frame is on its way to its place. It is asked by tests that know that nothing more will come of it.
func (s *Session) Landing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reader.landing.chunk != nil
}

// ReadPanics has a reader panic with the lock, and returns what becomes of it.
func (s *Session) ReadPanics() (p any) {
	defer func() {
		if p = recover(); p != nil {
			s.mu.Unlock()
			putBuffer(s.reader.buf)
		}
	}()
	s.enter()
	s.conn = panicking{s.conn, s}
	s.readLoop(true)
	return nil
}

type panicking struct {
	net.Conn
	s *Session
}

func (p panicking) Read([]byte) (int, error) {
	p.s.mu.Lock()
	panic("in the reader")
}

// TakeBuffers takes buffers of n bytes from the pool and writes to them. The function that it returns gives them back, and reports whether they
// are as they were.
func TakeBuffers(n, count int) func() bool {
	taken := make([]*buffer, count)
	for i := range taken {
		taken[i] = getBuffer(n)
		taken[i].b = taken[i].b[:cap(taken[i].b)]
		copy(taken[i].b, bytes.Repeat([]byte{0xa5}, len(taken[i].b)))
	}
	return func() bool {
		same := true
		for _, b := range taken {
			same = same && bytes.Count(b.b, []byte{0xa5}) == len(b.b)
			putBuffer(b)
		}
		return same
	}
}
