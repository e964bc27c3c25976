package endpoint_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// attackMap24 is a struct{M map[string]int} that claims 2^24 entries.
const attackMap24 = "1b7f030101074d61704172677301ff8000010101014d01ff820000001eff810401010e6d61705b737472696e675d696e7401ff8200010c0104000008ff8001fc01000000"

// unhex is the bytes of a hexadecimal text with spaces in it.
func unhex(t testing.TB, s string) string {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return string(b)
}
