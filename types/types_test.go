package types_test

import (
	"bytes"
	"encoding/gob"
	"testing"

	"gobnode/types"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSample: the sample has something in every field, a value inside, and
// survives a trip as a gob.
func TestSample(t *testing.T) {
	s := types.Sample()
	assert.NotZero(t, s.N)
	assert.NotZero(t, s.S)
	assert.NotEmpty(t, s.M)
	assert.NotEmpty(t, s.P)
	require.NotNil(t, s.C)
	assert.Nil(t, s.C.C)
	var b bytes.Buffer
	require.NoError(t, gob.NewEncoder(&b).Encode(s))
	var back types.ComplexData
	require.NoError(t, gob.NewDecoder(&b).Decode(&back))
	assert.Equal(t, s, back)

	s.M["bytes"], s.C.N = -100, -100
	assert.Equal(t, back, types.Sample(), "each is another")
}

// TestNames: names on the wire do not change.
func TestNames(t *testing.T) {
	assert.Equal(t, []string{"STRING", "GOB", "ECHO", "PING", "HELP", "SUM", "REVERSE", "LIST", "DESCRIBE", "CHAT"}, []string{
		types.StringCommand, types.GobCommand, types.EchoCommand, types.PingCommand, types.HelpCommand,
		string(types.Sum), string(types.Reverse), string(types.List), string(types.Describe), string(types.Chat),
	})
}
