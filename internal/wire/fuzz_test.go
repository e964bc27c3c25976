package wire_test

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"gobnode/internal/wire"
)

// long makes tests run in full whose figures matter.
var long = flag.Bool("long", false, "run the long tests in full")

// FuzzParse feeds the parser anything. It must not panic; what it accepts must point into the input, survive being
// written and read again, and a frame with its checksum put right must be judged by its payload alone.
func FuzzParse(f *testing.F) {
	for _, s := range samples() {
		f.Add(s)
	}
	f.Fuzz(checkBytes)
}

// checkBytes parses b as frames, and again as a payload.
func checkBytes(t *testing.T, b []byte) {
	for rest := b; ; {
		fr, n, err := wire.Parse(rest)
		if err != nil || n == 0 {
			break
		}
		if n != len(fr.Payload)+wire.Overhead || n > wire.MaxFrame {
			t.Fatalf("size %d, payload %d", n, len(fr.Payload))
		}
		checkPayload(t, fr)
		rest = rest[n:]
	}
	// The checksum hides most payloads from a fuzzer: the same bytes again, as the payload of a frame of each kind.
	if len(b) == 0 {
		return
	}
	payload := b[1:min(len(b), wire.MaxPayload)]
	fr, n, err := wire.Parse(wire.AppendFrame(nil, wire.Kind(b[0]%16), 0, payload))
	if err == nil && n > 0 {
		if !bytes.Equal(fr.Payload, payload) {
			t.Fatal("payload changed")
		}
		checkPayload(t, fr)
	}
}

// TestParseMutations feeds the parser frames that were changed a little: faster than the fuzzer, and blind.
func TestParseMutations(t *testing.T) {
	n := 200_000
	if *long {
		n = 50_000_000
	}
	seed := rand.Uint64()
	if v, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = v
	}
	t.Logf("SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, seed))
	all := samples()
	var b []byte
	for range n {
		f := all[r.IntN(len(all))]
		if r.IntN(2) == 0 {
			// The payload behind a kind: checkBytes puts the checksum right.
			b = append(append(b[:0], f[0]), f[wire.HeaderSize:len(f)-wire.TrailerSize]...)
		} else {
			b = append(append(b[:0], f...), all[r.IntN(len(all))]...)
		}
		for range r.IntN(4) {
			i := r.IntN(len(b))
			switch r.IntN(6) {
			case 0:
				b[i] ^= 1 << r.IntN(8)
			case 1:
				b[i] = byte(r.Uint32())
			case 2:
				b[i] = []byte{0, 1, 0x7f, 0x80, 0xff}[r.IntN(5)]
			case 3:
				b = b[:i+1]
			case 4:
				b = slices.Insert(b, i, byte(r.Uint32()))
			case 5:
				b = slices.Delete(b, i, min(i+1+r.IntN(4), len(b)))
			}
			if len(b) == 0 {
				break
			}
		}
		checkBytes(t, b)
		if t.Failed() {
			t.Fatalf("input %q", b)
		}
	}
}

// checkPayload parses a payload by its kind and requires that what was accepted is the same after another round.
func checkPayload(t *testing.T, fr wire.Frame) {
	again := func(b []byte) []byte {
		f, n, err := wire.Parse(b)
		if err != nil || n != len(b) || f.Kind != fr.Kind {
			t.Fatalf("own frame refused: %v, %d of %d", err, n, len(b))
		}
		return f.Payload
	}
	switch fr.Kind {
	case wire.KindHello:
		if h, err := wire.ParseHello(fr.Payload); err == nil {
			if h2, err := wire.ParseHello(again(wire.AppendHello(nil, &h))); err != nil || h2 != h {
				t.Fatalf("%+v became %+v, %v", h, h2, err)
			}
		}
	case wire.KindCall:
		if c, err := wire.ParseCall(fr.Payload); err == nil {
			checkCall(t, c, again)
		}
	case wire.KindData:
		if id, d, err := wire.ParseData(fr.Payload); err == nil {
			id2, d2, err := wire.ParseData(again(wire.AppendData(nil, 0, id, d)))
			if err != nil || id2 != id || !bytes.Equal(d, d2) {
				t.Fatal("data changed")
			}
		}
	case wire.KindError:
		if e, err := wire.ParseError(fr.Payload); err == nil {
			b := wire.AppendError(nil, &e)
			if len(b) > wire.MaxFrame {
				return // numbers written longer than they need be made room that is not there now
			}
			e2, err := wire.ParseError(again(b))
			if err != nil || e2.Stream != e.Stream || e2.Code != e.Code || e2.Outcome != e.Outcome || !bytes.Equal(e.Message, e2.Message) || !samePairs(e.Pairs, e2.Pairs) {
				t.Fatalf("%+v became %+v, %v", e, e2, err)
			}
		}
	case wire.KindCancel:
		if id, err := wire.ParseCancel(fr.Payload); err == nil && id == 0 {
			t.Fatal("stream 0")
		}
	case wire.KindCredit:
		if id, n, err := wire.ParseCredit(fr.Payload); err == nil && (id == 0 || n == 0) {
			t.Fatal("stream 0, or nothing")
		}
	case wire.KindPing, wire.KindPong:
		if _, err := wire.ParsePing(fr.Payload); err != nil {
			t.Fatal(err)
		}
	case wire.KindGoAway:
		if g, err := wire.ParseGoAway(fr.Payload); err == nil {
			g2, err := wire.ParseGoAway(again(wire.AppendGoAway(nil, &g)))
			if err != nil || g2.Last != g.Last || g2.Code != g.Code || !bytes.Equal(g.Message, g2.Message) {
				t.Fatalf("%+v became %+v, %v", g, g2, err)
			}
		}
	default:
		if fr.Kind < wire.FirstOptional {
			t.Fatal("unknown kind delivered")
		}
	}
}

func checkCall(t *testing.T, c wire.Call, again func([]byte) []byte) {
	if c.HeadSize()+len(c.Data) > wire.MaxPayload {
		return
	}
	c2, err := wire.ParseCall(again(wire.AppendCall(nil, 0, &c)))
	if err != nil || c2.Stream != c.Stream || c2.Kind != c.Kind || !bytes.Equal(c.Name, c2.Name) || !bytes.Equal(c.Data, c2.Data) || !samePairs(c.Pairs, c2.Pairs) {
		t.Fatalf("%+v became %+v, %v", c, c2, err)
	}
	if c.Timeout < 0 || c.Timeout%time.Microsecond != 0 || c2.Timeout != c.Timeout {
		t.Fatal("timeout", c.Timeout, c2.Timeout)
	}
}

// samePairs compares pairs by their strings.
func samePairs(a, b wire.Pairs) bool {
	return a.Len() == b.Len() && slices.Equal(a.Strings(), b.Strings())
}
