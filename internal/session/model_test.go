package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/internal/memnet"
	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// The limits of the model's session, low enough to be reached.
const (
	modelCredit  = 64 << 10
	modelMessage = 100_000
	modelCalls   = 4 // of the peer's
	peerCalls    = 3 // of the session's
	peerCredit   = 64 << 10
)

// A model is a peer that sends what a fuzzer says, legal or not, and knows what must follow.
type model struct {
	t     *testing.T
	in    []byte
	conn  *memnet.Conn
	s     *session.Session
	buf   []byte
	space []byte // to read into

	dialer  bool // the session under test dialled
	hello   bool // its HELLO was read
	broken  bool // the peer has done what must end the session
	gone    bool // the connection has ended
	theirs  map[uint64]*modelStream
	ours    map[uint64]*modelStream // the session's
	highest uint64                  // of theirs, the peer's
	nextOur uint64                  // the session's next number
	last    uint64                  // of the GOAWAY the peer has sent
	slept   time.Duration
	pings   int

	mu    sync.Mutex // guards following
	calls map[string]*modelCall
	wg    sync.WaitGroup
	ctx   context.Context
	names int
}

// A modelStream is what the peer knows of a stream.
type modelStream struct {
	name      string
	kind      uint8
	sent      int64 // bytes sent by the peer
	granted   int64 // bytes that it may send
	received  int64
	credit    int64 // bytes that the session may send
	peerEnd   bool
	ourEnd    bool // END or CANCEL came from the session
	canceled  bool // CANCEL did
	ended     bool // the last word was said
	whole     bool // the session's message was complete
	told      bool // the peer has answered it with ERROR
	cur       []byte
	replies   [][]byte
	lastWords int
}

// A modelCall is a unary call of the session's.
type modelCall struct {
	done  bool
	err   error
	reply []byte
}

func (m *model) byte() byte {
	if len(m.in) == 0 {
		return 0
	}
	b := m.in[0]
	m.in = m.in[1:]
	return b
}

// size is a length that a byte stands for: small ones, and those around the limits.
func (m *model) size() int {
	switch b := m.byte(); {
	case b < 128:
		return int(b % 16)
	case b < 192:
		return int(b) * 8
	case b < 224:
		return 30_000
	default:
		return 60_000 + int(b-224)*180 // up to 65,580: some are too long for a frame
	}
}

// pick chooses a stream number: of one of those that exist, or another.
func (m *model) pick() uint64 {
	b := m.byte()
	switch b >> 6 {
	case 0, 1:
		if m.highest > 0 {
			return m.highest - uint64(b&7)*2
		}
	case 2:
		return m.nextOur - 2 - uint64(b&3)*2
	}
	return uint64(b & 31)
}

// look returns what the model has of a number and whether the session must take it for one that was never opened.
func (m *model) look(id uint64) (st *modelStream, never bool) {
	if m.isOurs(id) {
		return m.ours[id], id >= m.nextOur
	}
	return m.theirs[id], id > m.highest
}

// isOurs reports whether id is one that the session opens.
func (m *model) isOurs(id uint64) bool { return id&1 == 1 == m.dialer }

func (m *model) write(b []byte) { _, _ = m.conn.Write(b) }

// FuzzSession drives a session with frames and calls and compares it with the model.
func FuzzSession(f *testing.F) {
	f.Add([]byte("\x00\x00\x05\x01\x02\x03"))
	f.Add([]byte("\x01\x14\x05\x14\x06\x15\x07\x16\x08\x02\x81\x03\x82"))
	f.Add(bytes.Repeat([]byte{0, 1, 3, 200, 20, 7, 2, 130, 5, 40, 22, 3}, 8))
	f.Add(bytes.Repeat([]byte{1, 0, 0x12, 240, 1, 0, 240, 1, 0, 200, 9, 0}, 6))
	// Found by TestSessionModel in its 4,359,810th run: a stream given up twice was canceled twice.
	f.Add([]byte("\xddF\x8b\x1a\x1b'\x95\xae\xd2/\a\x88Fq\xdfL\x88H藄$\xee\xa9y\x8d\xaf\xac\xc3\xdb\x16Ar\x7f5`\xc9\b \xfcr\x1bb[D\xa1\x15Yd\xe2\xean\xca\t\x9f\xebH\x93\xd3\xdb\xc9p\x027Y\xd3f\x11\x1b\x13\bW\xa4\xe1}\xfbk\xdb\t\xd3-\xd8w\xf3\xec\xf1V\x95S\xf5\xcf\xd5\x7f\xb4zNf\xfd\x02\xad4\xfa+_\x87\xcc\xce\xc97\xc8\xe7\xad"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 400 {
			return
		}
		synctest.Test(t, func(t *testing.T) { runModel(t, in) })
	})
}

// modelSpace holds what models read into: to make it each time would be most of the work.
var modelSpace = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// TestSessionModel drives sessions with random bytes: faster than the fuzzer, and blind.
func TestSessionModel(t *testing.T) {
	seed := seedOf(t)
	n := count(5_000_000, 3_000)
	r := randOf(seed)
	in := make([]byte, 200)
	for i := range n {
		for j := range in {
			in[j] = byte(r.Uint32())
		}
		m := in[:1+r.IntN(len(in))]
		synctest.Test(t, func(t *testing.T) { runModel(t, m) })
		if t.Failed() {
			t.Fatalf("run %d, input %q", i, m)
		}
	}
}

// runModel plays one input.
func runModel(t *testing.T, in []byte) {
	defer func() {
		if t.Failed() {
			t.Logf("input: %q", in)
		}
	}()
	space := modelSpace.Get().(*[]byte)
	defer modelSpace.Put(space)
	m := &model{
		t: t, in: in, space: *space, theirs: make(map[uint64]*modelStream), ours: make(map[uint64]*modelStream),
		last: math.MaxUint64, calls: make(map[string]*modelCall),
	}
	m.dialer = m.byte()&1 == 1
	m.nextOur = 2
	if m.dialer {
		m.nextOur = 1
	}
	var c *memnet.Conn
	m.conn, c = memnet.Pipe()
	m.conn.SetBuffer(1 << 20)
	c.SetBuffer(1 << 20)
	var cancel context.CancelFunc
	m.ctx, cancel = context.WithCancel(context.Background())
	budget := session.NewBudget(1<<20, nil)
	m.s = session.New(c, session.Config{
		Dialer: m.dialer, Accept: modelHandler, Credit: modelCredit, Message: modelMessage, Calls: modelCalls,
		Budget: budget, Heartbeat: 2 * time.Minute, Logger: slog.New(slog.DiscardHandler),
	})
	m.write(wire.AppendHello(nil, &wire.Hello{Message: modelMessage, Calls: peerCalls, Credit: peerCredit}))
	m.settle()
	for len(m.in) > 0 && !m.broken {
		m.step()
		m.settle()
	}
	if !m.broken {
		m.finish()
	}
	m.expect()
	cancel()
	m.conn.Close()
	m.s.Close()
	m.wg.Wait()
	m.checkCalls()
	if n := budget.Used(); n != 0 {
		t.Fatalf("%d bytes of the budget did not come back", n)
	}
}

// modelHandler serves by the first letter of the command's name.
func modelHandler(st *session.Stream) {
	switch st.Name()[0] {
	case 'W':
		<-st.Context().Done()
		st.Finish(nil)
	case 'F':
		st.Finish(&session.Error{Code: wire.Internal, Outcome: wire.OutcomeFailed, Message: "as asked"})
	case 'R':
	default:
		echo(st)
	}
}

// step does what the next bytes say.
func (m *model) step() {
	op := m.byte()
	switch op % 24 {
	case 0, 1, 2, 3:
		m.sendCall(m.byte())
	case 4, 5, 6, 7:
		m.sendData(m.pick(), m.byte())
	case 8:
		m.sendCancel(m.pick())
	case 9:
		m.sendCredit(m.pick())
	case 10:
		m.sendError(m.pick())
	case 11:
		m.sendOdd(m.byte())
	case 12:
		m.sendGoAway()
	case 13, 14, 15:
		m.reply(op)
	case 16, 17:
		m.localCall()
	case 18:
		m.localStream()
	case 19:
		if d := time.Duration(m.byte()) * time.Millisecond; m.slept+d < 8*time.Second {
			time.Sleep(d)
			m.slept += d
		}
	case 20:
		m.grantAll()
	default:
		m.answerAll()
	}
}

// sendCall opens a stream, with a number that is wrong now and then.
func (m *model) sendCall(how byte) {
	id := m.highest + 2
	if m.highest == 0 {
		id = 1
		if m.dialer {
			id = 2
		}
	}
	switch how >> 5 {
	case 0:
		id += 6
	case 1:
		if how&7 == 0 {
			id = uint64(m.byte())
		}
	}
	size := min(m.size(), 60_000)
	flags := wire.Flags(m.byte() & 3)
	kind := how & 3
	name := []string{"ECHO", "WAIT", "FAIL", "RETURN", "", "ECHO", "ECHO", "ECHO"}[how>>2&7]
	data := make([]byte, size)
	m.write(wire.AppendCall(nil, flags, &wire.Call{Stream: id, Kind: kind, Name: []byte(name), Data: data}))
	if id == 0 || m.isOurs(id) || id <= m.highest {
		m.broken = true
		return
	}
	m.highest = id
	st := &modelStream{name: name, kind: kind, sent: int64(size), granted: modelCredit, credit: peerCredit, peerEnd: flags&wire.FlagEnd != 0}
	m.theirs[id] = st
}

// sendData sends more of a stream of either side's.
func (m *model) sendData(id uint64, how byte) {
	size := m.size()
	flags := wire.Flags(how & 3)
	st, never := m.look(id)
	data := bytes.Repeat([]byte{how}, size)
	m.write(wire.AppendData(nil, flags, id, data))
	switch {
	case size > wire.MaxData, id == 0, size == 0 && flags == 0, never:
		m.broken = true
	case st == nil || st.ended:
	case st.peerEnd, st.sent+int64(size) > st.granted:
		m.broken = true
	default:
		m.sentData(id, st, data, flags)
	}
}

// sentData keeps the model of a stream that the peer has sent data on.
func (m *model) sentData(id uint64, st *modelStream, data []byte, flags wire.Flags) {
	st.sent += int64(len(data))
	st.peerEnd = flags&wire.FlagEnd != 0
	if !m.isOurs(id) {
		return
	}
	st.cur = append(st.cur, data...)
	if flags&wire.FlagEOM != 0 {
		st.replies = append(st.replies, st.cur)
		st.cur = nil
	}
	st.ended = st.peerEnd
}

func (m *model) sendCancel(id uint64) {
	m.write(wire.AppendCancel(nil, id))
	_, never := m.look(id)
	m.broken = id == 0 || m.isOurs(id) || never
}

func (m *model) sendCredit(id uint64) {
	n := []uint32{0, 1, 1000, 1 << 20, math.MaxInt32 - peerCredit, math.MaxInt32, math.MaxUint32}[m.byte()%7]
	st, never := m.look(id)
	m.write(wire.AppendCredit(nil, id, n))
	switch {
	case id == 0 || n == 0 || never:
		m.broken = true
	case st == nil || st.ended:
	case st.credit+int64(n)-st.received > math.MaxInt32:
		m.broken = true
	default:
		st.credit += int64(n)
	}
}

func (m *model) sendError(id uint64) {
	st, never := m.look(id)
	m.write(wire.AppendError(nil, &wire.Failure{Stream: id, Code: wire.Internal, Outcome: wire.Outcome(m.byte() % 3), Message: []byte("no")}))
	if m.broken = id == 0 || !m.isOurs(id) || never; !m.broken && st != nil {
		st.ended, st.told = true, true
	}
}

// sendOdd sends something that belongs to no stream.
func (m *model) sendOdd(how byte) {
	switch how % 8 {
	case 0:
		m.write(wire.AppendFrame(nil, wire.Kind(how|128), wire.Flags(how), make([]byte, how)))
	case 1:
		if m.pings < 10 {
			m.pings++
			m.write(wire.AppendPing(nil, wire.KindPing, uint64(how)))
		}
	case 2:
		m.write(wire.AppendPing(nil, wire.KindPong, uint64(how)))
		m.broken = true
	case 3:
		m.write(wire.AppendHello(nil, &wire.Hello{}))
		m.broken = true
	case 4:
		b := wire.AppendCancel(nil, uint64(how)|1)
		b[int(how)%len(b)] ^= how | 1
		m.write(append(b, make([]byte, wire.MaxFrame)...)) // a length that was changed is filled up
		m.broken = true
	case 5:
		m.write(wire.AppendFrame(nil, wire.Kind(how%118+10), 0, nil))
		m.broken = true
	}
}

// sendGoAway takes back streams of the session's.
func (m *model) sendGoAway() {
	last := uint64(m.byte())
	if last == 255 {
		last = math.MaxUint64
	}
	m.write(wire.AppendGoAway(nil, &wire.GoAway{Last: last}))
	if last > m.last {
		m.broken = true
		return
	}
	m.last = last
	for id, st := range m.ours {
		if id > last {
			st.ended, st.told = true, true
		}
	}
}

// reply answers the oldest call of the session's that has no answer.
func (m *model) reply(op byte) {
	var id uint64
	for n, st := range m.ours {
		if !st.ended && (id == 0 || n < id) {
			id = n
		}
	}
	if id == 0 {
		return
	}
	st := m.ours[id]
	data := []byte("re:" + st.name)
	if st.sent+int64(len(data)) > st.granted {
		return
	}
	flags := wire.FlagEOM
	if op == 13 {
		flags |= wire.FlagEnd
	}
	m.write(wire.AppendData(nil, flags, id, data))
	m.sentData(id, st, data, flags)
}

// answerAll ends every call of the session's, which frees its places.
func (m *model) answerAll() {
	for range 100 {
		before := len(m.ours)
		for id, st := range m.ours {
			if !st.ended {
				m.write(wire.AppendError(nil, &wire.Failure{Stream: id, Code: wire.Internal, Outcome: wire.OutcomeFailed}))
				st.ended, st.told = true, true
			}
		}
		m.settle()
		if len(m.ours) == before {
			return
		}
	}
}

// grantAll lets everything through that waits for credit.
func (m *model) grantAll() {
	for _, streams := range []map[uint64]*modelStream{m.ours, m.theirs} {
		for id, st := range streams {
			if !st.ended && st.credit-st.received < 1<<20 {
				m.write(wire.AppendCredit(nil, id, 1<<20))
				st.credit += 1 << 20
			}
		}
	}
}

// localCall makes a unary call of the session's.
func (m *model) localCall() {
	m.names++
	name := fmt.Sprintf("C%d", m.names)
	size := m.size()
	limit := time.Duration(m.byte()%4) * time.Second // 0: none
	c := new(modelCall)
	m.calls[name] = c
	m.wg.Go(func() {
		ctx, cancel := m.ctx, context.CancelFunc(func() {})
		if limit > 0 {
			ctx, cancel = context.WithTimeout(ctx, limit)
		}
		defer cancel()
		var reply []byte
		err := m.s.Call(ctx, &session.CallSpec{Name: name, NoWait: size%7 == 3},
			func(b []byte) ([]byte, error) { return append(b, make([]byte, size)...), nil },
			func(b []byte) error { reply = append([]byte{}, b...); return nil })
		m.mu.Lock()
		c.done, c.err, c.reply = true, err, reply
		m.mu.Unlock()
	})
}

// localStream opens a stream of the session's, sends on it and reads what comes.
func (m *model) localStream() {
	m.names++
	name, n, how := fmt.Sprintf("S%d", m.names), int(m.byte()%4), m.byte()
	sizes := []int{m.size(), m.size(), m.size(), m.size()}
	m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(m.ctx, time.Duration(how)*20*time.Millisecond)
		defer cancel()
		st, err := m.s.Open(ctx, &session.CallSpec{Name: name, Kind: []uint8{wire.CallRaw, wire.CallStream}[how&1]})
		if err != nil {
			return
		}
		for _, size := range sizes[:n] {
			if how&1 == 0 {
				_, _ = st.Write(ctx, make([]byte, size))
			} else {
				_ = st.Send(ctx, make([]byte, size))
			}
		}
		if how&2 != 0 {
			_ = st.CloseSend()
		}
		buf := make([]byte, 100)
		for how&4 != 0 && err == nil {
			if how&1 == 0 {
				_, err = st.Read(ctx, buf)
			} else {
				err = st.Receive(ctx, func([]byte) error { return nil })
			}
		}
		if errors.Is(err, io.EOF) {
			return
		}
		st.Cancel()
	})
}

// settle lets everything happen that follows, and reads and checks what the session has sent.
func (m *model) settle() {
	synctest.Wait()
	_ = m.conn.SetReadDeadline(time.Now().Add(time.Nanosecond))
	b := m.space
	for !m.gone {
		n, err := m.conn.Read(b)
		m.buf = append(m.buf, b[:n]...)
		if n == 0 {
			var timeout interface{ Timeout() bool }
			m.gone = !errors.As(err, &timeout) || !timeout.Timeout()
			break
		}
		for {
			f, n, err := wire.Parse(m.buf)
			if err != nil {
				m.t.Fatal("the session has sent: ", err)
			}
			if n == 0 {
				break
			}
			m.check(f)
			m.buf = m.buf[n:]
		}
		synctest.Wait()
	}
}

// check requires that a frame of the session's is one that it may send now.
func (m *model) check(f wire.Frame) {
	if !m.hello {
		if f.Kind != wire.KindHello {
			m.t.Fatal("first frame of kind ", f.Kind)
		}
		m.hello = true
		return
	}
	switch f.Kind {
	case wire.KindCall:
		m.checkCall(f)
	case wire.KindData:
		m.checkData(f)
	case wire.KindError:
		e, err := wire.ParseError(f.Payload)
		st := m.theirs[e.Stream]
		if err != nil || st == nil || st.ended {
			m.t.Fatalf("ERROR for stream %d: %v", e.Stream, err)
		}
		st.ended = true
		st.lastWords++
	case wire.KindCancel:
		id, err := wire.ParseCancel(f.Payload)
		st := m.ours[id]
		if err != nil || st == nil || st.canceled {
			m.t.Fatalf("CANCEL for stream %d: %v", id, err)
		}
		st.ourEnd, st.canceled = true, true
	case wire.KindCredit:
		m.checkCredit(f)
	case wire.KindPong:
		if m.pings--; m.pings < 0 {
			m.t.Fatal("PONG to no PING")
		}
	case wire.KindGoAway:
		if !m.broken {
			g, _ := wire.ParseGoAway(f.Payload)
			m.t.Fatalf("GOAWAY: %s", g.Message)
		}
	default:
		m.t.Fatal("a frame of kind ", f.Kind)
	}
}

func (m *model) checkCall(f wire.Frame) {
	c, err := wire.ParseCall(f.Payload)
	if err != nil || c.Stream != m.nextOur {
		m.t.Fatalf("CALL of stream %d, %d is next: %v", c.Stream, m.nextOur, err)
	}
	m.nextOur += 2
	open := 0
	for _, st := range m.ours {
		if !st.ended {
			open++
		}
	}
	if open >= peerCalls {
		m.t.Fatalf("%d calls at once", open+1)
	}
	st := &modelStream{name: string(c.Name), kind: c.Kind, granted: modelCredit, credit: peerCredit}
	m.ours[c.Stream] = st
	if c.Stream > m.last {
		st.ended, st.told = true, true
	}
	m.checkBytes(c.Stream, st, len(c.Data), f.Flags)
}

func (m *model) checkData(f wire.Frame) {
	id, data, err := wire.ParseData(f.Payload)
	if err != nil || len(data) == 0 && f.Flags == 0 {
		m.t.Fatalf("DATA of %d bytes: %v", len(data), err)
	}
	st, never := m.look(id)
	switch {
	case st == nil || never:
		m.t.Fatalf("DATA for stream %d", id)
	case !m.isOurs(id) && st.ended:
		m.t.Fatalf("DATA for stream %d after the last word", id)
	case m.isOurs(id) && st.ourEnd:
		m.t.Fatalf("DATA for stream %d after its END or CANCEL", id)
	}
	m.checkBytes(id, st, len(data), f.Flags)
	if !m.isOurs(id) && f.Flags&wire.FlagEnd != 0 {
		st.ended = true
		st.lastWords++
	}
}

func (m *model) checkBytes(id uint64, st *modelStream, n int, flags wire.Flags) {
	if st.received += int64(n); st.received > st.credit {
		m.t.Fatalf("stream %d: %d bytes with a credit of %d", id, st.received, st.credit)
	}
	if m.isOurs(id) {
		st.ourEnd = st.ourEnd || flags&wire.FlagEnd != 0
		st.whole = st.whole || flags&wire.FlagEOM != 0
	}
}

func (m *model) checkCredit(f wire.Frame) {
	id, n, err := wire.ParseCredit(f.Payload)
	st, never := m.look(id)
	if err != nil || st == nil || never {
		m.t.Fatalf("CREDIT for stream %d: %v", id, err)
	}
	st.granted += int64(n)
	if st.granted-st.sent > modelCredit+modelMessage {
		m.t.Fatalf("stream %d may send %d bytes", id, st.granted-st.sent)
	}
}

// finish brings everything to its end: the session's calls are answered, the peer's are canceled, and each must get exactly
// one last word.
func (m *model) finish() {
	m.answerAll()
	for id, st := range m.theirs {
		if !st.ended {
			m.write(wire.AppendCancel(nil, id))
		}
	}
	m.settle()
	for id, st := range m.theirs {
		if st.lastWords != 1 {
			m.t.Fatalf("stream %d (%q, kind %d) got %d last words", id, st.name, st.kind, st.lastWords)
		}
	}
	if stats := m.s.Stats(); stats.Serving != 0 {
		m.t.Fatalf("%d calls are still served", stats.Serving)
	}
}

// expect requires that the session has ended if the peer broke a rule, and goes on if not.
func (m *model) expect() {
	if !m.broken {
		if err := m.s.Err(); err != nil {
			m.t.Fatal("the session has ended: ", err)
		}
		return
	}
	for end := time.Now().Add(2 * time.Second); !m.gone && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		m.settle()
	}
	m.settle()
	select {
	case <-m.s.Done():
	default:
		m.t.Fatal("the session goes on")
	}
}

// checkCalls compares what the callers were told with what the peer saw.
func (m *model) checkCalls() {
	seen := make(map[string]*modelStream)
	for _, st := range m.ours {
		seen[st.name] = st
	}
	for name, c := range m.calls {
		st := seen[name]
		var e *session.Error
		switch {
		case !c.done:
			m.t.Fatalf("%s has not returned", name)
		case c.err == nil:
			if st == nil || len(st.replies) != 1 || !bytes.Equal(st.replies[0], c.reply) {
				m.t.Fatalf("%s got a reply that is not its own", name)
			}
		case !errors.As(c.err, &e):
			m.t.Fatalf("%s: %v", name, c.err)
		case e.Outcome == wire.OutcomeNotRun && st != nil && st.whole && !st.told:
			m.t.Fatalf("%s did not run, it is said, but the peer has it: %v", name, e)
		}
	}
}
