package endpoint_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/internal/memnet"
	"gobnode/types"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// FuzzTyped sends bytes behind a typed command's line, by gob and by JSON, and
// then commands behind them. Whatever they are, the endpoint answers or closes,
// holds nothing at the end, and, if the connection went on, serves on.
func FuzzTyped(f *testing.F) {
	for _, data := range []string{
		gobOf(f, types.SumRequest{Numbers: []float64{1, 2, 3}}), gobOf(f, types.Sample()), gobOf(f, []int{1}), gobOf(f, struct{ Numbers []string }{[]string{"x"}}),
		`{"Numbers":[1,2,3]}`, `{"Numbers":[1e999]}`, `{"N":1,"C":{"C":{"C":{}}}}`, `{"M":{"a":1},"P":"AAA="}`, `{"Nubers":[]}`, "null", "[[[[", "", "\n\n", "\x00", "\xff", "\xf8\xff\xff",
	} {
		f.Add([]byte(data))
	}
	for _, a := range attacks(f) {
		if len(a.gob) < 4096 {
			f.Add([]byte(a.gob))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e := endpoint.New()
		e.Logger = new(journal).logger()
		e.Limits = endpoint.Limits{Decoded: 1 << 20, Message: 1 << 20, InFlight: 8 << 20}
		handlers.Register(e)
		for _, head := range []string{"SUM\n", "REVERSE\n", "SUM ", "REVERSE "} {
			near, far := memnet.Pipe()
			go e.ServeConn(t.Context(), far) // ends with e
			go func() {                      // ends with the connection
				_, _ = io.WriteString(near, head)
				_, _ = near.Write(data)
				_, _ = io.WriteString(near, "\nLIST {}\n")
				_ = near.CloseWrite()
			}()
			require.NoError(t, near.SetReadDeadline(time.Now().Add(patience)))
			answer, err := io.ReadAll(near)
			require.True(t, err == nil || ended(err), "%v", err)
			require.NotEmpty(t, answer, "it answers") // no raw command that could end it in silence is called
			first, rest, _ := bytes.Cut(answer, []byte("\n"))
			require.True(t, bytes.Equal(first, []byte("OK")) || bytes.HasPrefix(first, []byte("OK ")) || bytes.HasPrefix(first, []byte("ERR ")), "%q", first)
			if strings.HasSuffix(head, " ") && !bytes.ContainsAny(data, "\n") && len(bytes.Trim(data, " \r")) > 0 {
				require.Contains(t, string(rest), `OK {"Commands":[{"Name":"CHAT"`, "the line's end is known, so the connection goes on")
			}
			_ = near.Close()
		}
		require.NoError(t, e.Close())
		assert.Zero(t, e.Held())
	})
}

// FuzzReply plays an endpoint that answers anything. A call ends, its outcome is
// one that can be known, and whatever is not an answer kills the Conn.
func FuzzReply(f *testing.F) {
	for _, reply := range []string{
		"OK\n" + gobOf(f, types.SumReply{Total: 6}), "OK\n", "ERR not_found failed no\n", "ERR unavailable not_run later\nOK\n", "OK {}\n", "Thank you.\n", "", "\n",
		"ERR ok failed x\n", "ERR  \n", "OK\r\n" + gobOf(f, types.SumReply{}), strings.Repeat("x", 9000),
	} {
		f.Add([]byte(reply))
	}
	f.Fuzz(func(t *testing.T, reply []byte) {
		far := newFarEnd(t, endpoint.Limits{Decoded: 1 << 20, Message: 1 << 20})
		go func() { // ends with the connection
			_, _ = far.Write(reply)
			_ = far.CloseWrite()
			_, _ = io.Copy(io.Discard, far)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := types.Sum.Call(ctx, far.conn, types.SumRequest{Numbers: []float64{1}})
		require.NotEqual(t, endpoint.DeadlineExceeded, endpoint.CodeOf(ctx.Err()))
		line, _, _ := bytes.Cut(reply, []byte("\n"))
		switch {
		case err == nil:
			require.Equal(t, "OK", strings.TrimSuffix(string(line), "\r"))
		case bytes.HasPrefix(line, []byte("ERR ")) && endpoint.OutcomeOf(err) != endpoint.OutcomeUnknown:
			require.Contains(t, string(line), endpoint.CodeOf(err).String())
		case !bytes.HasPrefix(line, []byte("ERR ")):
			require.Equal(t, endpoint.OutcomeUnknown, endpoint.OutcomeOf(err))
			assertDead(t, far.conn)
		}
	})
}
