package handlers

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"gobnode/endpoint"
	"gobnode/types"
)

// The bounds of a Chat.
const (
	maxMembers  = 1000 // in the room at once
	maxChatName = 32   // characters of a name

	// maxUnheard is how many events may wait for a member. One that is that far
	// behind is let go: it must neither hold up the others nor fill the memory.
	maxUnheard = 1024

	// The room has an event every chatPace, after chatBurst at once. Without that
	// whoever talks faster than another can listen, over a slower network say,
	// would have the other let go. Each member has one event at a time in the line
	// of those that wait for their turn, so they share the pace evenly, and nobody
	// waits longer than maxMembers times chatPace.
	chatPace  = 4 * time.Millisecond
	chatBurst = 128

	// farewellTime is how long a member who leaves, or has to, may take over what
	// it has not heard yet.
	farewellTime = 5 * time.Second
)

var (
	errSlow     = endpoint.Errorf(endpoint.ResourceExhausted, "you are too far behind: no more than %d events are kept for you, and %v when you leave", maxUnheard, farewellTime)
	errFull     = endpoint.Errorf(endpoint.ResourceExhausted, "the room is full: %d are in it", maxMembers)
	errRoomOver = endpoint.Errorf(endpoint.Unavailable, "the room has closed")
)

// A Chat is a room: its Serve serves types.Chat. The zero value is ready. All
// methods may be called from any goroutine.
type Chat struct {
	mu      sync.Mutex
	members map[string]*member // by name in lower case; guarded by mu, and so is the rest
	turn    time.Time          // of the latest event that waits or has been
	closed  bool
}

type chatStream = endpoint.Stream[types.ChatLine, types.ChatEvent]

// A member is one caller who has a name in the room.
type member struct {
	name   string
	stream *chatStream
	queue  chan *types.ChatEvent // to be told; closed by dismiss

	came  bool        // the others know that it is here; guarded by Chat.mu
	hears bool        // and it hears of them, until dismiss; guarded by Chat.mu
	why   error       // why the room has dismissed it, nil if it left; set before queue is closed
	cut   *time.Timer // ends the stream if it takes too long over the rest; set before queue is closed

	told    chan struct{} // closed when nothing more is sent to it
	sendErr error         // why not all was; valid when told is closed
}

// Serve serves one member, until it leaves or is gone, of which the others are
// told. Its error is
//   - invalid_argument for a name that is not 1 to 32 printable characters
//     without spaces and colons, and for a line over types.MaxChatText;
//   - already_exists for the name of somebody who is there, whatever the case;
//   - resource_exhausted if 1,000 are in the room; for a member that is 1,024
//     events behind; for one that has left and does not take the rest in 5 s;
//   - unavailable after Close.
//
// Blanks in a line become spaces, and what no terminal should get to see, such
// as control characters, U+FFFD. Lines of blanks are not passed on. All hear
// events in the same order, without their own lines. Beyond 128 at once the
// room has 250 events a second: who talks faster waits, and each gets a turn.
func (c *Chat) Serve(ctx context.Context, s *chatStream) error {
	name := strings.Clone(endpoint.InfoFrom(ctx).Header(types.ChatName)) // not the whole header
	m := &member{name: name, stream: s, queue: make(chan *types.ChatEvent, maxUnheard), told: make(chan struct{})}
	if err := c.enter(m); err != nil {
		return err
	}
	go m.tell()
	err := c.listen(m)
	c.leave(m)
	<-m.told
	if late := !m.cut.Stop(); late && m.why == nil {
		return errSlow
	}
	return cmp.Or(m.why, m.sendErr, err)
}

// Close ends the room: who is in it gets what was said before, if it takes that
// within 5 s, and then unavailable; nobody else gets in. It does not wait. Call it
// before Endpoint.Shutdown, which waits for the members to leave.
func (c *Chat) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, m := range c.members {
		m.dismiss(errRoomOver, farewellTime)
	}
}

// enter makes m a member and tells the others.
func (c *Chat) enter(m *member) error {
	if err := checkChatName(m.name); err != nil {
		return err
	}
	if err := c.reserve(m); err != nil {
		return err
	}
	c.pace()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		delete(c.members, m.key())
		return errRoomOver
	}
	here := &types.ChatEvent{Kind: types.ChatHere}
	for _, other := range c.members {
		if other.came {
			here.Names = append(here.Names, other.name)
		}
	}
	slices.Sort(here.Names)
	m.queue <- here // the first, so there is room
	c.say(m, &types.ChatEvent{Kind: types.ChatCame, Name: m.name})
	m.came, m.hears = true, true
	return nil
}

// reserve takes m's name. The refused cost the room no turn.
func (c *Chat) reserve(m *member) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return errRoomOver
	case c.members[m.key()] != nil:
		return endpoint.Errorf(endpoint.AlreadyExists, "the name %s is taken: try another", c.members[m.key()].name)
	case len(c.members) >= maxMembers:
		return errFull
	case c.members == nil:
		c.members = make(map[string]*member)
	}
	c.members[m.key()] = m
	return nil
}

// listen passes on what m says. It returns nil when m leaves.
func (c *Chat) listen(m *member) error {
	for line, err := range m.stream.All() {
		if err != nil {
			return err
		}
		if n := len(line.Text); n > types.MaxChatText {
			return endpoint.Errorf(endpoint.InvalidArgument, "a line of %d bytes, more than %d", n, types.MaxChatText)
		}
		text := plain(line.Text)
		if strings.TrimSpace(text) == "" {
			continue
		}
		c.pace()
		c.mu.Lock()
		c.say(m, &types.ChatEvent{Kind: types.ChatSaid, Name: m.name, Text: text})
		c.mu.Unlock()
	}
	return nil
}

// leave takes m out of the room and tells the others.
func (c *Chat) leave(m *member) {
	c.mu.Lock()
	m.dismiss(nil, farewellTime)
	c.mu.Unlock()
	c.pace()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.members, m.key())
	c.say(m, &types.ChatEvent{Kind: types.ChatLeft, Name: m.name})
}

// say tells everybody but from of ev. Those who cannot take it are dismissed, and
// leave in their turn: if one who is let go made the next overflow, and so on,
// here, one event could empty the room. c.mu is held.
func (c *Chat) say(from *member, ev *types.ChatEvent) {
	for _, m := range c.members {
		if m == from || !m.hears {
			continue
		}
		select {
		case m.queue <- ev:
		default:
			m.dismiss(errSlow, 0)
		}
	}
}

// pace waits for the next turn. It does not look at contexts: what was sent
// before its sender went is said, and who goes is told of.
func (c *Chat) pace() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	now := time.Now()
	if earliest := now.Add(-chatBurst * chatPace); c.turn.Before(earliest) {
		c.turn = earliest
	}
	c.turn = c.turn.Add(chatPace)
	wait := c.turn.Sub(now)
	c.mu.Unlock()
	time.Sleep(wait)
}

func (m *member) key() string { return strings.ToLower(m.name) }

// dismiss has m hear nothing new, once. It has so long to take the rest. Chat.mu
// is held.
func (m *member) dismiss(why error, within time.Duration) {
	if !m.hears {
		return
	}
	m.hears, m.why = false, why
	m.cut = time.AfterFunc(within, func() { _ = m.stream.Close() })
	close(m.queue)
}

// tell sends m what happens. It ends when m has been dismissed and has taken the
// rest, or with the stream; then it ends the stream, and so listen.
func (m *member) tell() {
	for ev := range m.queue {
		if m.sendErr = m.stream.Send(*ev); m.sendErr != nil {
			break
		}
	}
	_ = m.stream.Close()
	close(m.told)
}

// checkChatName refuses names that could pass for something else: in front of a
// line stands the name and a colon.
func checkChatName(name string) error {
	n := utf8.RuneCountInString(name)
	bad := func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' || r == ':' }
	if n < 1 || n > maxChatName || !utf8.ValidString(name) || strings.ContainsFunc(name, bad) {
		return endpoint.Errorf(endpoint.InvalidArgument,
			"a name, in the header %q, has 1 to %d printable characters without spaces and colons", types.ChatName, maxChatName)
	}
	return nil
}

// plain returns text as one line of nothing but what is to be seen. Of the runes
// without a glyph the joiners stay: writing needs them. Each byte that is no
// UTF-8 becomes three.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsGraphic(r), r == '\u200c', r == '\u200d':
			return r
		}
		return utf8.RuneError
	}, text)
}
