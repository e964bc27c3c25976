package endpoint_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/gob"
	"hash/crc32"
	"io"
	"net"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/handlers"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A foreignPeer speaks session mode from its description alone: sockets,
// encoding/gob and encoding/binary, nothing of this library.
type foreignPeer struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// The frames of the description that it uses.
const (
	frameHello, frameCall, frameData, frameError, frameCancel = 1, 2, 3, 4, 5
	frameCredit, framePing, framePong, frameGoAway            = 6, 7, 8, 9

	flagEnd, flagEOM = 1, 2
)

type foreignFrame struct {
	kind, flags byte
	payload     []byte
}

func dialForeign(t *testing.T, addr string) *foreignPeer {
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	p := &foreignPeer{t, conn, bufio.NewReader(conn)}
	_, err = io.WriteString(conn, "SESSION 1\n")
	require.NoError(t, err)
	var hello []byte // 5: name and version; 99: from a later time
	hello = append(hello, 5, 7)
	hello = append(hello, "foreign"...)
	hello = append(hello, 99, 3, 'x', 'y', 'z')
	p.send(frameHello, 0, hello)
	ok, err := p.r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "OK\n", ok)
	f := p.next()
	require.EqualValues(t, frameHello, f.kind)
	return p
}

func (p *foreignPeer) send(kind, flags byte, payload []byte) {
	p.t.Helper()
	b := []byte{kind, flags}
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	_, err := p.conn.Write(b)
	require.NoError(p.t, err)
}

// next returns the next frame, after checking its form.
func (p *foreignPeer) next() foreignFrame {
	p.t.Helper()
	head := make([]byte, 6)
	_, err := io.ReadFull(p.r, head)
	require.NoError(p.t, err)
	n := binary.BigEndian.Uint32(head[2:])
	require.LessOrEqual(p.t, n, uint32(64<<10))
	b := append(head, make([]byte, n+4)...)
	_, err = io.ReadFull(p.r, b[6:])
	require.NoError(p.t, err)
	sum := crc32.Checksum(b[:6+n], crc32.MakeTable(crc32.Castagnoli))
	require.Equal(p.t, sum, binary.BigEndian.Uint32(b[6+n:]))
	return foreignFrame{head[0], head[1], b[6 : 6+n]}
}

// of returns the next frame of a stream, of this kind, without the stream's
// number. Pings and credit on the way are answered and noted.
func (p *foreignPeer) of(kind byte, stream uint64) (flags byte, rest []byte) {
	p.t.Helper()
	for {
		f := p.next()
		switch f.kind {
		case framePing:
			p.send(framePong, 0, f.payload)
		case framePong, frameCredit:
		default:
			require.Equal(p.t, kind, f.kind, "%q", f.payload)
			require.Equal(p.t, stream, binary.BigEndian.Uint64(f.payload))
			return f.flags, f.payload[8:]
		}
	}
}

// onStream is the beginning of most payloads.
func onStream(id uint64, rest ...byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, id), rest...)
}

// call is the payload of a CALL without a deadline and without a header.
func foreignCall(id uint64, kind byte, name string, data []byte) []byte {
	b := onStream(id, kind, 0, byte(len(name)))
	b = append(b, name...)
	return append(append(b, 0), data...)
}

func encodeGob(t *testing.T, v any) []byte {
	var b bytes.Buffer
	require.NoError(t, gob.NewEncoder(&b).Encode(v))
	return b.Bytes()
}

func decodeGob[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	require.NoError(t, gob.NewDecoder(bytes.NewReader(b)).Decode(&v))
	return v
}

func TestSessionForeignPeer(t *testing.T) {
	const ask endpoint.Command[text, text] = "ASK"
	canceled := make(chan error, 1)
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		streamCommands(e)
		fail.Handle(e, misbehave)
		waitCall.Handle(e, func(ctx context.Context, _ line) (line, error) {
			canceled <- nil
			<-ctx.Done()
			canceled <- ctx.Err()
			return line{}, ctx.Err()
		})
		backCall.Handle(e, func(ctx context.Context, l line) (line, error) {
			got, err := ask.Call(endpoint.WithHeader(ctx, "key", "value"), endpoint.PeerFrom(ctx), text{l.Text})
			return line{got.S}, err
		})
	})
	p := dialForeign(t, n.net.Addr().String())

	// A typed call.
	p.send(frameCall, flagEnd|flagEOM, foreignCall(1, 1, "FAIL", encodeGob(t, text{"hello"})))
	flags, data := p.of(frameData, 1)
	assert.EqualValues(t, flagEnd|flagEOM, flags)
	assert.Equal(t, text{"hello"}, decodeGob[text](t, data))

	// One whose data comes in pieces.
	whole := encodeGob(t, text{"in pieces"})
	p.send(frameCall, 0, foreignCall(3, 1, "FAIL", whole[:1]))
	p.send(frameData, 0, onStream(3, whole[1:5]...))
	p.send(frameData, flagEOM, onStream(3, whole[5:]...))
	p.send(frameData, flagEnd, onStream(3))
	_, data = p.of(frameData, 3)
	assert.Equal(t, text{"in pieces"}, decodeGob[text](t, data))

	// Failures: code, outcome, text, no pairs.
	p.send(frameCall, flagEnd|flagEOM, foreignCall(5, 1, "FIAL", encodeGob(t, text{})))
	_, data = p.of(frameError, 5)
	assert.Equal(t, []byte{12, 1}, data[:2], "unimplemented, not_run")
	assert.Contains(t, string(data), "did you mean FAIL?")
	assert.Zero(t, data[len(data)-1])
	p.send(frameCall, flagEnd|flagEOM, foreignCall(7, 1, "FAIL", encodeGob(t, text{"panic"})))
	_, data = p.of(frameError, 7)
	assert.Equal(t, []byte{13, 2}, data[:2], "internal, failed")
	p.send(frameCall, flagEnd|flagEOM, foreignCall(9, 2, "FAIL", nil))
	_, data = p.of(frameError, 9)
	assert.Equal(t, []byte{9, 1}, data[:2], "failed_precondition, not_run")

	// A stream.
	p.send(frameCall, 0, foreignCall(11, 2, "ECHOSTREAM", nil))
	for _, s := range []string{"one", "two"} {
		p.send(frameData, flagEOM, onStream(11, encodeGob(t, line{s})...))
		flags, data = p.of(frameData, 11)
		assert.EqualValues(t, flagEOM, flags)
		assert.Equal(t, line{s}, decodeGob[line](t, data))
	}
	p.send(frameData, flagEnd, onStream(11))
	flags, data = p.of(frameData, 11)
	assert.EqualValues(t, flagEnd, flags)
	assert.Empty(t, data)

	// A cancel: the handler hears of it, and has the last word.
	p.send(frameCall, flagEnd|flagEOM, foreignCall(13, 1, "WAIT", encodeGob(t, line{})))
	require.NoError(t, <-canceled, "it runs")
	p.send(frameCancel, 0, onStream(13))
	select {
	case err := <-canceled:
		assert.ErrorIs(t, err, context.Canceled)
		flags, _ = p.of(frameData, 13)
		assert.EqualValues(t, flagEnd, flags)
	case <-time.After(patience):
		t.Fatal("the handler did not hear of the cancel")
	}

	// A call from the other side: answered, and answered with an error.
	for i, answer := range []string{"fine", ""} {
		id, theirs := uint64(15+2*i), uint64(2+2*i)
		p.send(frameCall, flagEnd|flagEOM, foreignCall(id, 1, "BACK", encodeGob(t, line{"question"})))
		flags, data = p.of(frameCall, theirs)
		assert.EqualValues(t, flagEnd|flagEOM, flags)
		want := append([]byte{1, 0, 3}, "ASK\x01\x03key\x05value"...)
		require.True(t, bytes.HasPrefix(data, want), "%q", data)
		assert.Equal(t, text{"question"}, decodeGob[text](t, data[len(want):]))
		if answer != "" {
			p.send(frameData, flagEnd|flagEOM, onStream(theirs, encodeGob(t, text{answer})...))
			_, data = p.of(frameData, id)
			assert.Equal(t, line{answer}, decodeGob[line](t, data))
			continue
		}
		p.send(frameError, 0, onStream(theirs, append([]byte{5, 2, 4}, "gone\x00"...)...))
		_, data = p.of(frameError, id)
		assert.Equal(t, append([]byte{5, 2, 4}, "gone\x00"...), data, "not_found, failed")
	}

	// A frame of a kind that may be ignored, and one that may not.
	p.send(200, 0, []byte("whatever"))
	p.send(framePing, 0, []byte("12345678"))
	f := p.next()
	for f.kind == frameCredit {
		f = p.next()
	}
	assert.Equal(t, foreignFrame{framePong, 0, []byte("12345678")}, f)
	p.send(100, 0, nil)
	for f = p.next(); f.kind == frameCredit; f = p.next() {
	}
	assert.EqualValues(t, frameGoAway, f.kind)
	_, err := p.r.ReadByte()
	assert.Equal(t, io.EOF, err)
	assertReleased(t, n)
}

// TestSessionForeignChat: the room of CHAT, too, can be joined from its
// description alone.
func TestSessionForeignChat(t *testing.T) {
	type (
		something struct{ Text string }
		happened  struct {
			Kind, Name, Text string
			Names            []string
		}
	)
	n := tcpNode(t, func(e *endpoint.Endpoint) { handlers.Register(e) })
	join := func(p *foreignPeer, id uint64, name string) {
		b := onStream(id, 2, 0, 4)
		b = append(b, "CHAT\x01\x04name"...)
		b = append(append(b, byte(len(name))), name...)
		p.send(frameCall, 0, b)
	}
	hears := func(p *foreignPeer, id uint64, want happened) {
		t.Helper()
		flags, data := p.of(frameData, id)
		assert.EqualValues(t, flagEOM, flags)
		assert.Equal(t, want, decodeGob[happened](t, data))
	}
	ann, bob := dialForeign(t, n.net.Addr().String()), dialForeign(t, n.net.Addr().String())
	join(ann, 1, "ann")
	hears(ann, 1, happened{Kind: "here"})
	join(bob, 1, "bob")
	hears(bob, 1, happened{Kind: "here", Names: []string{"ann"}})
	hears(ann, 1, happened{Kind: "came", Name: "bob"})
	bob.send(frameData, flagEOM, onStream(1, encodeGob(t, something{"hello"})...))
	hears(ann, 1, happened{Kind: "said", Name: "bob", Text: "hello"})
	join(bob, 3, "ANN")
	_, data := bob.of(frameError, 3)
	assert.Equal(t, []byte{6, 2}, data[:2], "already_exists, failed")
	bob.send(frameData, flagEnd, onStream(1))
	flags, data := bob.of(frameData, 1)
	assert.EqualValues(t, flagEnd, flags)
	assert.Empty(t, data)
	hears(ann, 1, happened{Kind: "left", Name: "bob"})
	join(bob, 5, "bob")
	hears(ann, 1, happened{Kind: "came", Name: "bob"})
	hears(bob, 5, happened{Kind: "here", Names: []string{"ann"}})
	bob.send(frameCancel, 0, onStream(5))
	hears(ann, 1, happened{Kind: "left", Name: "bob"})
}
