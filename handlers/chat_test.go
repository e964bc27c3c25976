package handlers_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/internal/memnet"
	"gobnode/types"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A hall is an endpoint in memory with a room in it.
type hall struct {
	*endpoint.Endpoint
	room *handlers.Chat
	mem  *memnet.Listener
}

// newHall serves until the test ends.
func newHall(t *testing.T) *hall {
	h := &hall{Endpoint: &endpoint.Endpoint{Logger: slog.New(slog.DiscardHandler)}, mem: memnet.Listen()}
	h.room = handlers.Register(h.Endpoint)
	served := make(chan error, 1)
	go func() { served <- h.Serve(h.mem) }()
	t.Cleanup(func() {
		assert.NoError(t, h.Close())
		assert.ErrorIs(t, <-served, endpoint.ErrClosed)
	})
	return h
}

// dial opens a session; conn is what it is on.
func (h *hall) dial(t *testing.T) (c *endpoint.Client, conn *memnet.Conn) {
	t.Helper()
	d := &endpoint.Dialer{Logger: slog.New(slog.DiscardHandler), NetDial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		made, err := h.mem.Dial(ctx)
		if err == nil {
			conn = made.(*memnet.Conn)
		}
		return made, err
	}}
	c, err := d.Dial(t.Context(), "mem")
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c, conn
}

// A guest is a member as its caller sees it.
type guest struct {
	*endpoint.Stream[types.ChatEvent, types.ChatLine]
	name string

	mu     sync.Mutex
	events []string // as text
	err    error    // of Recv, at last
	over   chan struct{}
}

// open joins and takes nothing of what happens.
func open(t *testing.T, ctx context.Context, to endpoint.Caller, name string) *guest { //nolint:revive // t goes first
	t.Helper()
	s, err := types.Chat.Open(endpoint.WithHeader(ctx, types.ChatName, name), to)
	require.NoError(t, err)
	return &guest{Stream: s, name: name, over: make(chan struct{})}
}

// join joins and listens. It returns when the guest is in the room.
func join(t *testing.T, ctx context.Context, to endpoint.Caller, name string) *guest { //nolint:revive // t goes first
	t.Helper()
	g := open(t, ctx, to, name)
	g.hear(t)
	go g.listen()
	return g
}

// hear takes one event.
func (g *guest) hear(t *testing.T) string {
	t.Helper()
	ev, err := g.Recv()
	require.NoError(t, err)
	return g.note(&ev)
}

func (g *guest) note(ev *types.ChatEvent) string {
	text := strings.TrimSpace(fmt.Sprintf("%s %s%s %s", ev.Kind, ev.Name, strings.Join(ev.Names, ","), ev.Text))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = append(g.events, text)
	return text
}

// listen ends with the stream.
func (g *guest) listen() {
	defer close(g.over)
	for {
		ev, err := g.Recv()
		if err != nil {
			g.mu.Lock()
			g.err = err
			g.mu.Unlock()
			return
		}
		g.note(&ev)
	}
}

func (g *guest) say(t *testing.T, text string) {
	t.Helper()
	require.NoError(t, g.Send(types.ChatLine{Text: text}))
}

// heard returns what the guest has heard once nothing happens any more, and
// forgets it.
func (g *guest) heard() []string {
	time.Sleep(handlers.MaxMembers * handlers.ChatPace) // of the bubble: nobody waits longer for a turn
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() { g.events = nil }()
	return g.events
}

// ended waits for the end of the stream and returns how it was.
func (g *guest) ended() error {
	<-g.over
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

func assertCode(t *testing.T, err error, code endpoint.Code, text string) {
	t.Helper()
	assert.ErrorIs(t, err, code)
	assert.Equal(t, endpoint.OutcomeFailed, endpoint.OutcomeOf(err))
	assert.ErrorContains(t, err, text)
}

// TestChat: everybody hears everybody, who comes and who goes, on one session,
// on several, and in process.
func TestChat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t)
		one, _ := h.dial(t)
		other, _ := h.dial(t)
		ann := join(t, t.Context(), one, "ann")
		bob := join(t, t.Context(), one, "bob")
		assert.Equal(t, []string{"here ann"}, bob.heard())
		eve := join(t, t.Context(), other, "eve")
		zoe := join(t, t.Context(), h.Endpoint, "Zoé")
		assert.Equal(t, []string{"here ann,bob"}, eve.heard()[:1])
		assert.Equal(t, []string{"here ann,bob,eve"}, zoe.heard())
		assert.Equal(t, []string{"here", "came bob", "came eve", "came Zoé"}, ann.heard())
		assert.Equal(t, []string{"came eve", "came Zoé"}, bob.heard())

		for i, g := range []*guest{ann, bob, eve, zoe} {
			g.say(t, fmt.Sprint("one ", i))
			g.say(t, fmt.Sprint("two ", i))
			time.Sleep(time.Second)
		}
		lines := []string{
			"said ann one 0", "said ann two 0", "said bob one 1", "said bob two 1",
			"said eve one 2", "said eve two 2", "said Zoé one 3", "said Zoé two 3",
		}
		for i, g := range []*guest{ann, bob, eve, zoe} {
			var others []string
			others = append(append(others, lines[:2*i]...), lines[2*i+2:]...)
			assert.Equal(t, others, g.heard(), g.name)
		}
		require.NoError(t, bob.CloseSend())
		assert.Equal(t, io.EOF, bob.ended())
		assert.Equal(t, []string{"left bob"}, ann.heard())
		assert.Empty(t, bob.heard(), "who leaves is not told")
		_ = zoe.Close()
		assert.Equal(t, []string{"left Zoé"}, ann.heard())
	})
}

// TestChatLeave: the others are told whatever way a member goes, and its name is
// free again.
func TestChatLeave(t *testing.T) {
	ways := map[string]struct {
		leave func(g *guest, cancel context.CancelFunc, c *endpoint.Client, conn *memnet.Conn)
		code  endpoint.Code // of what the member sees
		said  bool          // what was sent before is said
	}{
		"CloseSend":    {func(g *guest, _ context.CancelFunc, _ *endpoint.Client, _ *memnet.Conn) { _ = g.CloseSend() }, endpoint.OK, true},
		"Close":        {func(g *guest, _ context.CancelFunc, _ *endpoint.Client, _ *memnet.Conn) { _ = g.Close() }, endpoint.Canceled, false},
		"cancel":       {func(_ *guest, cancel context.CancelFunc, _ *endpoint.Client, _ *memnet.Conn) { cancel() }, endpoint.Canceled, false},
		"deadline":     {func(*guest, context.CancelFunc, *endpoint.Client, *memnet.Conn) { time.Sleep(time.Hour) }, endpoint.DeadlineExceeded, true},
		"Client.Close": {func(_ *guest, _ context.CancelFunc, c *endpoint.Client, _ *memnet.Conn) { _ = c.Close() }, endpoint.Unavailable, false},
		"reset":        {func(_ *guest, _ context.CancelFunc, _ *endpoint.Client, conn *memnet.Conn) { conn.Reset() }, endpoint.Unavailable, false},
		"long line": {func(g *guest, _ context.CancelFunc, _ *endpoint.Client, _ *memnet.Conn) {
			_ = g.Send(types.ChatLine{Text: strings.Repeat("x", types.MaxChatText+1)})
		}, endpoint.InvalidArgument, true},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHall(t)
				stays := join(t, t.Context(), h.Endpoint, "stays")
				for range 3 {
					c, conn := h.dial(t)
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
					g := join(t, ctx, c, "goes")
					g.say(t, "bye")
					way.leave(g, cancel, c, conn)
					assert.Equal(t, way.code, endpoint.CodeOf(ignoreEOF(g.ended())), "%v", g.err)
					heard := stays.heard()
					if way.said {
						assert.Contains(t, heard, "said goes bye")
					}
					assert.Equal(t, "left goes", heard[len(heard)-1])
					cancel()
				}
			})
		})
	}
}

func ignoreEOF(err error) error {
	if err == io.EOF { //nolint:errorlint // Recv returns it as it is
		return nil
	}
	return err
}

func TestChatNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t)
		c, _ := h.dial(t)
		refused := func(ctx context.Context, code endpoint.Code, text string) {
			t.Helper()
			s, err := types.Chat.Open(ctx, c)
			require.NoError(t, err)
			_, err = s.Recv()
			assertCode(t, err, code, text)
		}
		witness := join(t, t.Context(), h.Endpoint, "witness")
		refused(t.Context(), endpoint.InvalidArgument, `in the header "name"`)
		for _, bad := range []string{
			"", " ", "a b", "a:", "a\u00a0b", "a\nb", "a\x1b[2J", "a\x00", "\u202eann", "a\u200bb", "\xff", "a\u009b", "\t",
			strings.Repeat("a", 33), strings.Repeat("é", 33),
		} {
			refused(endpoint.WithHeader(t.Context(), types.ChatName, bad), endpoint.InvalidArgument, "printable")
		}
		for _, good := range []string{"a", "Ann", "*", "世界", strings.Repeat("é", 32), "o'hara"} {
			g := join(t, t.Context(), c, good)
			for _, same := range []string{good, strings.ToUpper(good), strings.ToLower(good)} {
				refused(endpoint.WithHeader(t.Context(), types.ChatName, same), endpoint.AlreadyExists, "the name "+good+" is taken")
			}
			require.NoError(t, g.CloseSend())
			require.Equal(t, io.EOF, g.ended())
			time.Sleep(time.Second)
			again := join(t, t.Context(), c, strings.ToUpper(good))
			require.NoError(t, again.Close())
			time.Sleep(time.Second)
		}
		for _, event := range witness.heard() {
			assert.Regexp(t, "^(here|came|left) ?[^ ]*$", event, "nothing is heard of the refused")
		}
	})
}

// TestChatText: a line is one line of what can be seen, whatever was sent.
func TestChatText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t)
		c, _ := h.dial(t)
		ann, bob := join(t, t.Context(), c, "ann"), join(t, t.Context(), c, "bob")
		bob.heard()
		for in, want := range map[string]string{
			"hello": "hello",
			"héllo 世界 \U0001f468\u200d\U0001f469": "héllo 世界 \U0001f468\u200d\U0001f469",
			"a\tb":                                 "a b",
			"a\nbob: b\r\nc\u2028d\u2029e\u0085f":  "a bob: b  c d e f",
			"\x1b[31mred\x1b]0;title\a":            "\uFFFD[31mred\uFFFD]0;title\uFFFD",
			"\u009b2J\x9b\xff\x00\x7f\b":           strings.Replace("\uFFFD2J\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD", " ", "", 1),
			"\u202egnp.exe\u2066\ufeff":            "\uFFFDgnp.exe\uFFFD\uFFFD",
			strings.Repeat("x", types.MaxChatText): strings.Repeat("x", types.MaxChatText),
		} {
			ann.say(t, in)
			assert.Equal(t, []string{"said ann " + want}, bob.heard())
		}
		for _, blank := range []string{"", " ", "\n", "\t \u2003\r"} {
			ann.say(t, blank)
		}
		assert.Empty(t, bob.heard())
		ann.say(t, strings.Repeat("\xff", types.MaxChatText+1))
		assertCode(t, ann.ended(), endpoint.InvalidArgument, "a line of 1025 bytes, more than 1024")
	})
}

// TestChatSlow: a member that takes nothing is let go, and told why, while the
// others hear every line at the room's pace. What it makes the room hold is
// bounded.
func TestChatSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t)
		c, _ := h.dial(t)
		other, _ := h.dial(t)
		ann, bob := join(t, t.Context(), c, "ann"), join(t, t.Context(), c, "bob")
		slow := open(t, t.Context(), other, "slow")
		bob.heard()
		const lines = 2000
		begin := time.Now()
		text := strings.Repeat("x", types.MaxChatText-10)
		for i := range lines {
			ann.say(t, fmt.Sprintf("%s %d", text, i))
		}
		require.NoError(t, ann.CloseSend())
		assert.Equal(t, io.EOF, ann.ended())
		assert.InDelta(t, lines*handlers.ChatPace, time.Since(begin), float64(handlers.ChatBurst*handlers.ChatPace), "it holds up nobody")
		n := 0
		var left []string
		for _, event := range bob.heard() {
			if event == fmt.Sprintf("said ann %s %d", text, n) {
				n++
			} else {
				left = append(left, event)
			}
		}
		assert.Equal(t, lines, n)
		assert.Equal(t, []string{"left slow", "left ann"}, left)

		go slow.listen()
		assertCode(t, slow.ended(), endpoint.ResourceExhausted, "you are too far behind: no more than 1024 events are kept for you, and 5s when you leave")
		slow = join(t, t.Context(), other, "slow")
		assert.Equal(t, []string{"here bob"}, slow.heard(), "it may come back")
	})
}

// TestChatFarewell: who leaves and takes nothing is gone for the others at once,
// and for the room after a while.
func TestChatFarewell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t)
		c, _ := h.dial(t)
		ann := join(t, t.Context(), c, "ann")
		slow := open(t, t.Context(), h.Endpoint, "slow")
		ann.heard()
		for range 600 { // more than the window of a stream
			ann.say(t, strings.Repeat("x", types.MaxChatText))
		}
		ann.heard()
		require.NoError(t, slow.CloseSend())
		time.Sleep(handlers.ChatPace)
		synctest.Wait()
		assert.True(t, has(ann, "left slow"))
		stopped := make(chan error, 1)
		begin := time.Now()
		require.NoError(t, ann.CloseSend())
		require.Equal(t, io.EOF, ann.ended())
		go func() { stopped <- h.Shutdown(context.Background()) }()
		require.NoError(t, <-stopped)
		assert.InDelta(t, handlers.FarewellTime, time.Since(begin), float64(time.Second))
		go slow.listen()
		assertCode(t, slow.ended(), endpoint.ResourceExhausted, "too far behind")
	})
}

// TestChatSlowHolds: a room of members that take nothing holds the same few
// lines for all of them.
func TestChatSlowHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t)
		const members = 50
		ann, _ := h.dial(t)
		speaker := join(t, t.Context(), ann, "ann")
		c, _ := h.dial(t)
		for i := range members {
			open(t, t.Context(), c, fmt.Sprint("slow", i))
		}
		speaker.heard()
		before := heap()
		text := strings.Repeat("x", types.MaxChatText)
		for range handlers.MaxUnheard { // which is not enough for anyone to be let go
			speaker.say(t, text)
		}
		for _, event := range speaker.heard() {
			require.NotContains(t, event, "left")
		}
		// Beside the lines that the room holds, the callers' ends of the streams
		// hold their windows of 256 KiB, and the budget of their bytes is not the room's.
		used := int64(heap()-before) - members*(256<<10)
		assert.Less(t, used, int64(members*(128<<10)), "each would hold 700 KiB of its own")
	})
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestChatPace: who floods waits, others get their turn, and nobody who listens
// is let go, however many flood.
func TestChatPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t)
		const floods, lines = 20, 60
		c, _ := h.dial(t)
		ann := join(t, t.Context(), c, "ann")
		bob := join(t, t.Context(), c, "bob")
		var wg sync.WaitGroup
		c, _ = h.dial(t)
		for i := range floods {
			g := join(t, t.Context(), c, fmt.Sprint("flood", i))
			wg.Go(func() {
				for n := range lines {
					if g.Send(types.ChatLine{Text: strconv.Itoa(n)}) != nil {
						return
					}
				}
			})
		}
		time.Sleep(time.Second)
		begin := time.Now()
		ann.say(t, "may I?")
		for !has(bob, "said ann may I?") {
			time.Sleep(time.Millisecond)
		}
		assert.LessOrEqual(t, time.Since(begin), (floods+2)*handlers.ChatPace, "a turn for each")
		wg.Wait()
		time.Sleep(floods * lines * handlers.ChatPace)
		heard, next := 0, make(map[string]int)
		for _, event := range ann.heard() {
			var name string
			var n int
			if _, err := fmt.Sscanf(event, "said %s %d", &name, &n); err == nil {
				require.Equal(t, next[name], n, name)
				next[name]++
				heard++
			}
		}
		assert.Equal(t, floods*lines, heard)
	})
}

func has(g *guest, event string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Contains(g.events, event)
}

// TestChatFull fills the room. A member counts from when its name is taken on,
// ahead of its turn to come in.
func TestChatFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t)
		extra, _ := h.dial(t)
		var clients []*endpoint.Client
		for i := range handlers.MaxMembers {
			if i%250 == 0 {
				c, _ := h.dial(t)
				clients = append(clients, c)
			}
			open(t, t.Context(), clients[i/250], fmt.Sprint("guest", i))
		}
		synctest.Wait()
		s, err := types.Chat.Open(endpoint.WithHeader(t.Context(), types.ChatName, "more"), extra)
		require.NoError(t, err)
		_, err = s.Recv()
		assertCode(t, err, endpoint.ResourceExhausted, "the room is full: 1000 are in it")
		for _, c := range clients {
			require.NoError(t, c.Close())
		}
		time.Sleep(3 * handlers.MaxMembers * handlers.ChatPace)
		assert.Equal(t, []string{"here"}, join(t, t.Context(), extra, "more").heard())
	})
}

// TestChatClose: the members of a room that closes get what was said before and
// are told; one that does not take it holds up a shutdown for as long as it is
// allowed to.
func TestChatClose(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHall(t)
			c, _ := h.dial(t)
			ann, bob := join(t, t.Context(), c, "ann"), join(t, t.Context(), h.Endpoint, "bob")
			other, _ := h.dial(t)
			slow := open(t, t.Context(), other, "slow")
			bob.heard()
			lines := 100
			if stuck {
				lines = 1000
			}
			text := strings.Repeat("x", 1000)
			for range lines {
				ann.say(t, text)
			}
			if stuck {
				time.Sleep(5 * time.Second)
			} else {
				go slow.listen()
				time.Sleep(time.Second)
			}
			begin := time.Now()
			h.room.Close()
			h.room.Close()
			s, err := types.Chat.Open(endpoint.WithHeader(t.Context(), types.ChatName, "late"), c)
			require.NoError(t, err)
			_, err = s.Recv()
			assertCode(t, err, endpoint.Unavailable, "the room has closed")
			require.NoError(t, h.Shutdown(t.Context()))
			if took := time.Since(begin); stuck {
				assert.Equal(t, handlers.FarewellTime, took)
				go slow.listen()
			} else {
				assert.Less(t, took, 2*time.Second) // a session drains for one
			}
			for _, g := range []*guest{ann, bob, slow} {
				assertCode(t, g.ended(), endpoint.Unavailable, "the room has closed")
			}
			assert.Len(t, bob.heard(), lines)
			if !stuck {
				assert.Len(t, slow.heard(), lines+1)
			}
		})
	}
}

// TestChatCloseWhileComing: who waits for a turn to come in finds the room
// closed, and its name is not kept.
func TestChatCloseWhileComing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t)
		c, _ := h.dial(t)
		ann := join(t, t.Context(), c, "ann")
		for range 2 * handlers.ChatBurst {
			ann.say(t, "x")
		}
		synctest.Wait() // the burst is used up
		late := open(t, t.Context(), c, "late")
		synctest.Wait()
		h.room.Close()
		go late.listen()
		assertCode(t, late.ended(), endpoint.Unavailable, "the room has closed")
		assert.Empty(t, late.events)
		assertCode(t, ann.ended(), endpoint.Unavailable, "the room has closed")
	})
}
