package handlers_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/internal/memnet"
	"gobnode/types"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// talk serves the handlers on a connection over which in is sent, and returns
// all that came back and what was logged.
func talk(t *testing.T, in string) (out, logged string) {
	t.Helper()
	var log bytes.Buffer
	e := &endpoint.Endpoint{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	handlers.Register(e)
	near, far := memnet.Pipe()
	go func() {
		_, _ = io.WriteString(near, in)
		_ = near.CloseWrite()
	}()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.ServeConn(context.Background(), far)
	}()
	b, err := io.ReadAll(near)
	require.NoError(t, err)
	<-ended
	require.NoError(t, near.Close())
	return string(b), log.String()
}

func gobOf(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, gob.NewEncoder(&b).Encode(v))
	return b.String()
}

func TestBytes(t *testing.T) {
	long := strings.Repeat("x", 9000)
	for _, tt := range []struct{ name, in, out, logged string }{
		{"STRING", "STRING\nAdditional data.\nPING\n", "Thank you.\nPONG\n", `msg="string received" text="Additional data."`},
		{"STRING inline", "STRING hello\nPING\n", "Thank you.\nPONG\n", "text=hello"},
		{"STRING with CRLF", "STRING\r\nhello\r\nPING\r\n", "Thank you.\nPONG\n", "text=hello "},
		{"STRING without an end", "STRING\nhello", "Thank you.\n", "text=hello"},
		{"STRING without data", "STRING\n", "", "STRING data: EOF"},
		{"STRING that is too long", "STRING\n" + long + "\nPING\n", "", "a line of more than 8192 bytes"},
		{"ECHO", "ECHO\none\n\ntwo\nexit\nPING\n", "Message received: one\nMessage received: \nMessage received: two\nPONG\n", ""},
		{"ECHO until quit", "ECHO quit\nPING\n", "PONG\n", ""},
		{"ECHO until the end", "ECHO\none\nexit now", "Message received: one\nMessage received: exit now\n", ""},
		{"ECHO that is too long", "ECHO\n" + long + "\nPING\n", "", "ECHO data: a line of more than 8192 bytes"},
		{"PING", "PING DELETE x\nPING\n", "PONG\nPONG\n", ""},
		{"GOB", "GOB\n" + gobOf(t, types.Sample()) + "PING\n", "PONG\n", "and the value inside it"},
		{"GOB of another type", "GOB\n" + gobOf(t, struct{ N string }{"x"}) + "PING\n", "", "GOB data: "},
		{"GOB without data", "GOB\n", "", "GOB data: EOF"},
		{"SUM", "SUM {\"Numbers\":[1,2,3]}\nSUM {}\n", "OK {\"Total\":6}\nOK {\"Total\":0}\n", ""},
		{"DESCRIBE", "DESCRIBE {\"Name\":\"NONE\"}\n", "ERR not_found failed no command \"NONE\" here; LIST {} tells what there is\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, logged := talk(t, tt.in)
			assert.Equal(t, tt.out, out)
			if tt.logged == "" {
				assert.Empty(t, logged)
			}
			assert.Contains(t, logged, tt.logged)
		})
	}
}

func TestHelp(t *testing.T) {
	e := endpoint.New()
	handlers.Register(e)
	e.AddHandleFunc("UNDESCRIBED", handlers.Ping)
	var b bytes.Buffer
	handlers.Help(e)(bufio.NewReadWriter(nil, bufio.NewWriter(&b)))
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	commands := e.Commands()
	require.Len(t, lines, len(commands))
	for i, c := range commands {
		assert.Equal(t, c.Name, strings.Fields(lines[i])[0])
		assert.True(t, strings.HasSuffix(lines[i], c.Doc) && (c.Doc == "") == (lines[i] == c.Name), lines[i])
	}
}

func TestListAndDescribe(t *testing.T) {
	e := endpoint.New()
	handlers.Register(e)
	defer e.Close()
	list, err := types.List.Call(t.Context(), e, types.ListRequest{})
	require.NoError(t, err)
	require.Len(t, list.Commands, len(e.Commands()))
	for i, c := range e.Commands() {
		assert.Equal(t, types.CommandSummary{Name: c.Name, Kind: c.Kind.String(), Doc: c.Doc}, list.Commands[i])
		d, err := types.Describe.Call(t.Context(), e, types.DescribeRequest{Name: c.Name})
		require.NoError(t, err)
		assert.Equal(t, types.CommandDescription{Name: c.Name, Kind: c.Kind.String(), Doc: c.Doc, Request: c.Request, Reply: c.Reply, Example: c.Example}, d)
	}
	d, err := types.Describe.Call(t.Context(), e, types.DescribeRequest{Name: "SUM"})
	require.NoError(t, err)
	assert.Equal(t, "type SumRequest struct {\n\tNumbers []float64\n}", d.Request)
	assert.Equal(t, `{"Numbers":[0]}`, d.Example)
	assert.Equal(t, "unary", d.Kind)
}

func TestReverse(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10} {
		var data types.ComplexData
		for i, v := 1, &data; i <= n; i, v = i+1, v.C {
			v.N = i
			if i < n {
				v.C = new(types.ComplexData)
			}
		}
		got, err := handlers.Reverse(t.Context(), data)
		require.NoError(t, err)
		v := &got
		for i := n; i >= 1; i, v = i-1, v.C {
			require.NotNil(t, v)
			assert.Equal(t, i, v.N)
		}
		assert.Nil(t, v)
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestBrokenConnection(t *testing.T) {
	for _, f := range []endpoint.ServeFunc{handlers.String, handlers.Echo} {
		rw := bufio.NewReadWriter(bufio.NewReader(strings.NewReader("one\ntwo\n")), bufio.NewWriter(brokenWriter{}))
		require.ErrorIs(t, f(t.Context(), rw), errBroken)
	}
}
