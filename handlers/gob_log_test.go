package handlers_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/types"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGobLogsTheBeginning: what a large value costs in the log is bounded.
func TestGobLogsTheBeginning(t *testing.T) {
	large := func(c *types.ComplexData) types.ComplexData {
		v := types.ComplexData{N: 7, S: strings.Repeat("s", 1<<18), P: bytes.Repeat([]byte("p"), 1<<18), M: make(map[string]int), C: c}
		for i := range 10_000 {
			v.M[fmt.Sprintf("%d%0100d", i, 0)] = i
		}
		return v
	}
	inner := large(&types.ComplexData{})
	var data, log bytes.Buffer
	require.NoError(t, gob.NewEncoder(&data).Encode(large(&inner)))

	e := &endpoint.Endpoint{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	e.Handle(types.GobCommand, endpoint.ServeFunc(handlers.Gob))
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.ServeConn(context.Background(), there)
	}()
	_, err := fmt.Fprintf(here, "%s\n", types.GobCommand)
	require.NoError(t, err)
	_, err = here.Write(data.Bytes())
	require.NoError(t, err)
	_ = here.Close()
	<-done

	line := log.String()
	for _, part := range []string{`msg="gob received"`, " s=" + strings.Repeat("s", 1<<10) + " ", " p=\"" + strings.Repeat("p", 1<<10) + "\" ", ` c="&{N:7 S:sss`} {
		assert.True(t, strings.Contains(line, part), "%.30s", part) // the line itself would be too long to show
	}
	assert.Less(t, len(line), 32<<10)
}
