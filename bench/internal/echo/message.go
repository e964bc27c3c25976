// Package echo is what every peer of the benchmark does: it returns a message, or takes many in and tells how many there were.
package echo

import (
	"bytes"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// name has the 24 bytes of a request's name; tags are its three short strings.
const name = "inventory.reserve-stock."

var tags = []string{"alpha", "beta", "gamma"}

// A Message is the request and the reply of each call, and what a stream carries.
type Message struct {
	ID   uint64
	Name string
	Body []byte
	Tags []string
}

// New returns a message with a body of so many bytes.
func New(body int) *Message {
	m := &Message{Name: name, Body: make([]byte, body), Tags: slices.Clone(tags)}
	for i := range m.Body {
		m.Body[i] = byte(i * 7)
	}
	return m
}

// Check says what is wrong with a reply to m, every byte of it compared.
func (m *Message) Check(id uint64, name string, body []byte, tags []string) error {
	switch {
	case id != m.ID:
		return fmt.Errorf("a reply has the ID %d, want %d", id, m.ID)
	case name != m.Name:
		return fmt.Errorf("a reply has the name %q, want %q", name, m.Name)
	case !bytes.Equal(body, m.Body):
		return fmt.Errorf("a reply has another body of %d bytes than the %d sent", len(body), len(m.Body))
	case !slices.Equal(tags, m.Tags):
		return fmt.Errorf("a reply has the tags %q, want %q", tags, m.Tags)
	}
	return nil
}

// A Handler is what a server does beside echoing.
type Handler struct {
	every, calls atomic.Int64
	pause        atomic.Int64
}

// Sleep makes one call in every sleep for d; 0 is none, as in the zero Handler.
func (h *Handler) Sleep(every int, d time.Duration) {
	h.pause.Store(int64(d))
	h.every.Store(int64(every))
}

// Pause is called once in every call. It costs a load where no call sleeps.
func (h *Handler) Pause() {
	if every := h.every.Load(); every > 0 && h.calls.Add(1)%every == 0 {
		time.Sleep(time.Duration(h.pause.Load()))
	}
}

// A Total is a stream's last word: what its receiver got.
type Total struct {
	Messages uint64
	Bytes    uint64 // of their bodies
}

// Take counts the next message of a stream. IDs count from 0. Of the body its length and three bytes are compared: all of it would cost a
// quarter of what a plain TCP stream costs.
func (t *Total) Take(id uint64, body []byte) error {
	if id != t.Messages {
		return fmt.Errorf("message %d of a stream has the ID %d", t.Messages, id)
	}
	for _, i := range []int{8, len(body) / 2, len(body) - 1} {
		if i < 0 || i >= len(body) || body[i] != byte(i*7) {
			return fmt.Errorf("message %d of a stream has another body of %d bytes than was sent", id, len(body))
		}
	}
	t.Messages++
	t.Bytes += uint64(len(body))
	return nil
}
