package handlers_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"
	"gobnode/types"

	"github.com/stretchr/testify/require"
)

// seeds returns the seed that GOBNODE_SEED names, or n by chance.
func seeds(t *testing.T, n int) (list []uint64) {
	if s := os.Getenv("GOBNODE_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		return []uint64{seed}
	}
	for range n {
		list = append(list, rand.Uint64())
	}
	return list
}

// A visit is one membership of the random room.
type visit struct {
	*guest
	line    int // the connection it is on, -1 for in process
	silent  bool
	sent    []string
	orderly bool // it left by CloseSend
	came    int  // how many of its name had come before
}

// A randomRoom is a room in which anything happens, and a keeper who hears all.
type randomRoom struct {
	*hall
	t       *testing.T
	r       *rand.Rand
	keeper  *guest
	lines   []*endpoint.Client
	conns   []*memnet.Conn
	visits  []*visit
	present []*visit
	gone    map[string]time.Time // when the latest visit of a name ended
	came    map[string]int
	said    int
	busy    bool // much is said, and few go: some are let go
}

// TestChatRandom has members come, talk, listen at all speeds and go in all ways,
// and compares what each of them has heard with what the keeper has.
func TestChatRandom(t *testing.T) {
	for _, seed := range seeds(t, 3) {
		t.Run(fmt.Sprintf("GOBNODE_SEED=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &randomRoom{
					hall: newHall(t), t: t, r: rand.New(rand.NewPCG(seed, 0)),
					gone: make(map[string]time.Time), came: make(map[string]int),
				}
				m.busy = m.r.IntN(3) == 0
				c, _ := m.dial(t)
				m.keeper = join(t, t.Context(), c, "keeper")
				m.lines, m.conns = make([]*endpoint.Client, 3), make([]*memnet.Conn, 3)
				for i := range m.lines {
					m.lines[i], m.conns[i] = m.dial(t)
				}
				steps := 400
				if m.busy {
					steps = 150
				}
				for range steps {
					m.step()
				}
				for len(m.present) > 0 {
					m.leave(m.present[0], 0)
				}
				m.check()
			})
		})
	}
}

func (m *randomRoom) step() {
	switch n := m.r.IntN(100); {
	case m.busy && len(m.present) > 3 && n < 90:
		m.say(m.present[m.r.IntN(len(m.present))])
	case n < 20 || len(m.present) == 0:
		m.join()
	case n < 80:
		m.say(m.present[m.r.IntN(len(m.present))])
	case n < 92:
		m.leave(m.present[m.r.IntN(len(m.present))], m.r.IntN(3))
	case n < 93:
		m.cut(m.r.IntN(len(m.lines)))
	default:
		time.Sleep(time.Duration(m.r.IntN(300)) * time.Millisecond)
	}
}

func (m *randomRoom) join() {
	name, line := string(rune('a'+m.r.IntN(12))), m.r.IntN(len(m.lines)+1)-1
	to := endpoint.Caller(m.Endpoint)
	if line >= 0 {
		to = m.lines[line]
	}
	g := open(m.t, m.t.Context(), to, name)
	ev, err := g.Recv()
	if endpoint.CodeOf(err) == endpoint.AlreadyExists {
		taken := slices.ContainsFunc(m.present, func(v *visit) bool { return v.name == name })
		require.True(m.t, taken || time.Since(m.gone[name]) < 10*time.Second, "%s is taken by nobody", name)
		return
	}
	require.NoError(m.t, err)
	g.note(&ev)
	v := &visit{guest: g, line: line, came: m.came[name], silent: m.r.IntN(4) == 0}
	m.came[name]++
	m.visits, m.present = append(m.visits, v), append(m.present, v)
	if !v.silent {
		go v.listenSlowly(time.Duration(m.r.IntN(3)*m.r.IntN(100)) * time.Millisecond)
	}
}

// listenSlowly is listen with a pause behind each event. It ends with the stream.
func (v *visit) listenSlowly(pause time.Duration) {
	defer close(v.over)
	for {
		ev, err := v.Recv()
		if err != nil {
			v.err = err
			return
		}
		v.note(&ev)
		time.Sleep(pause)
	}
}

// say says something that nobody has said before, once or many times over. A
// member may have been let go without noticing.
func (m *randomRoom) say(v *visit) {
	n := 1
	if m.r.IntN(20) == 0 || m.busy && m.r.IntN(8) == 0 {
		n = m.r.IntN(300)
	}
	for range n {
		m.said++
		text := fmt.Sprint(m.said, " ", strings.Repeat("x", m.r.IntN(1000)))
		if v.Send(types.ChatLine{Text: strings.TrimSpace(text)}) != nil {
			return
		}
		v.sent = append(v.sent, strings.TrimSpace(text))
	}
}

// leave has v leave in order, at once, or at once after a moment.
func (m *randomRoom) leave(v *visit, way int) {
	switch way {
	case 0:
		v.orderly = v.CloseSend() == nil
	case 2:
		time.Sleep(time.Second)
		fallthrough
	default:
		_ = v.Close()
	}
	m.left(v)
}

func (m *randomRoom) left(v *visit) {
	if v.silent {
		go v.listenSlowly(0)
	}
	<-v.over
	if v.orderly && v.err != io.EOF { //nolint:errorlint // Recv returns it as it is
		v.orderly = false
		code := endpoint.CodeOf(v.err)
		require.True(m.t, code == endpoint.ResourceExhausted || code == endpoint.Canceled, "%v", v.err) // too slow, or for a farewell
	}
	m.gone[v.name] = time.Now()
	m.present = slices.DeleteFunc(m.present, func(p *visit) bool { return p == v })
}

// cut ends a connection and makes another.
func (m *randomRoom) cut(line int) {
	if m.r.IntN(2) == 0 {
		m.conns[line].Reset()
	}
	_ = m.lines[line].Close()
	for _, v := range slices.Clone(m.present) {
		if v.line == line {
			m.left(v)
		}
	}
	m.lines[line], m.conns[line] = m.dial(m.t)
}

// check compares. The keeper never speaks, so it has heard everything.
func (m *randomRoom) check() {
	all := m.keeper.heard()
	require.Equal(m.t, "here", all[0])
	slow := 0
	for _, v := range m.visits {
		began := nth(all, "came "+v.name, v.came)
		require.GreaterOrEqual(m.t, began, 0, "%s did not come", v.name)
		end := began + slices.Index(all[began:], "left "+v.name)
		require.Greater(m.t, end, began, "%s did not leave", v.name)
		stay := all[began+1 : end]

		require.Equal(m.t, "here "+strings.Join(presentAt(all[:began]), ","), v.events[0])
		var others, own []string
		for _, event := range stay {
			if text, mine := strings.CutPrefix(event, "said "+v.name+" "); mine {
				own = append(own, text)
			} else {
				others = append(others, event)
			}
		}
		heard := v.events[1:]
		require.LessOrEqual(m.t, len(heard), len(others))
		require.True(m.t, slices.Equal(others[:len(heard)], heard), "%s heard %q of %q", v.name, heard, others)
		if v.orderly {
			require.Equal(m.t, len(v.sent), len(own), "%s was not heard to the end", v.name)
		}
		require.LessOrEqual(m.t, len(own), len(v.sent))
		require.True(m.t, slices.Equal(v.sent[:len(own)], own), "%s sent %q, and %q was heard", v.name, v.sent, own)
		if endpoint.CodeOf(v.err) == endpoint.ResourceExhausted {
			slow++
		}
	}
	require.Equal(m.t, []string{"keeper"}, presentAt(all))
	m.t.Logf("%d visits, %d of them too slow, %d events", len(m.visits), slow, len(all))
}

// nth returns where event comes after it has come n times.
func nth(all []string, event string, n int) int {
	for i, e := range all {
		if e == event {
			if n == 0 {
				return i
			}
			n--
		}
	}
	return -1
}

// presentAt returns who is in the room after events.
func presentAt(events []string) []string {
	in := []string{"keeper"}
	for _, event := range events {
		if name, ok := strings.CutPrefix(event, "came "); ok {
			in = append(in, name)
		} else if name, ok := strings.CutPrefix(event, "left "); ok {
			in = slices.DeleteFunc(in, func(n string) bool { return n == name })
		}
	}
	slices.Sort(in)
	return in
}
