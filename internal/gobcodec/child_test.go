package gobcodec_test

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"gobnode/internal/gobcodec"
)

const childVariable = "GOBCODEC_TEST_CHILD"

type (
	shift1 struct{ A [7]map[string][]int }
	shift2 struct{ B shift1 }
)

// TestOtherTypeIDs sends values to a process that has numbered its types otherwise, and gets them back with that process's
// numbers: they must be other bytes and the same values.
func TestOtherTypeIDs(t *testing.T) {
	f := newFiller(*seed)
	var sent []any
	var in bytes.Buffer
	all := subjects(t)
	for _, s := range all {
		for range 3 {
			v := s.random(f)
			b, err := s.append(nil, v)
			require.NoError(t, err)
			in.WriteByte(1)
			in.Write(b)
			sent = append(sent, v)
		}
	}
	in.WriteByte(0)
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childVariable+"=1")
	cmd.Stdin = &in
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())

	r, other := bufio.NewReader(bytes.NewReader(out)), 0
	for i, v := range sent {
		s := all[i/3]
		var b, mine []byte
		b, err = gobcodec.ReadMessage(r, nil, gobcodec.Limits{})
		require.NoError(t, err)
		mine, err = s.append(nil, v)
		require.NoError(t, err)
		if !bytes.Equal(b, mine) {
			other++
		}
		want, got, std := s.zero(), s.zero(), s.zero()
		require.NoError(t, stdDecode(mine, want))
		_, err = s.decode(b, got, gobcodec.Limits{})
		require.NoError(t, err, "%v, -seed %d", s.rt, *seed)
		require.True(t, equal(want, got), "%v, -seed %d", s.rt, *seed)
		require.NoError(t, stdDecode(b, std))
		require.True(t, equal(want, std), "%v, -seed %d", s.rt, *seed)
	}
	require.Greater(t, other, len(sent)/2, "the other process has the same numbers")
	_, err = r.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}

// child decodes each gob it gets and encodes it again, with types met in another order.
func child(in io.Reader, out, errs io.Writer) int {
	if err := gob.NewEncoder(io.Discard).Encode(shift2{}); err != nil {
		fmt.Fprintln(errs, err)
		return 1
	}
	all := subjects(childFatal{})
	r := bufio.NewReader(in)
	for i := 0; ; i++ {
		if more, err := r.ReadByte(); err != nil || more == 0 {
			return 0
		}
		s := all[i/3]
		b, err := gobcodec.ReadMessage(r, nil, gobcodec.Limits{})
		v := s.zero()
		if err == nil {
			_, err = s.decode(b, v, gobcodec.Limits{})
		}
		if err == nil {
			b, err = s.append(nil, v)
		}
		if err == nil {
			_, err = out.Write(b)
		}
		if err != nil {
			fmt.Fprintln(errs, reflect.TypeOf(v), err)
			return 1
		}
	}
}

// childFatal ends the child where a test would fail.
type childFatal struct{ testing.TB }

func (childFatal) Helper() {}

func (childFatal) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format, args...) }

func (childFatal) FailNow() { os.Exit(1) }
