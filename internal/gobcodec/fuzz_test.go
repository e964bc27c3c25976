package gobcodec_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime/metrics"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"gobnode/internal/gobcodec"
)

var update = flag.Bool("update", false, "write the corpus of the fuzz tests anew from the attacks")

// fuzzSubjects are what fuzzed bytes are decoded into. The corpus refers to them by position: new ones go to the end.
func fuzzSubjects(tb testing.TB) []subject {
	tb.Helper()
	return append([]subject{
		of[argsTarget](tb), of[mapTarget](tb), of[structMapTarget](tb), of[listTarget](tb), of[treeTarget](tb), of[fatTarget](tb),
		of[wideTarget](tb), of[widePointerTarget](tb), of[mapsTarget](tb), of[stringsTarget](tb), of[intsTarget](tb),
		of[recordTarget](tb), of[manyTarget](tb), of[[]map[string]wideItem](tb),
	}, subjects(tb)...)
}

// addSeeds adds two values of every type.
func addSeeds(f *testing.F, all []subject) {
	f.Helper()
	fill := newFiller(1)
	for i, s := range all {
		for range 2 {
			b, err := s.append(nil, s.random(fill))
			require.NoError(f, err)
			if len(b) < 2*kib {
				f.Add(byte(i), b)
			}
		}
	}
}

// Whatever the bytes: no panic, an answer within 50 ms, memory within twice the limit.
func FuzzDecode(f *testing.F) {
	all := fuzzSubjects(f)
	addSeeds(f, all)
	patience := 50 * time.Millisecond
	if raceEnabled {
		patience *= 20
	}
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		s := all[int(which)%len(all)]
		const limit = mib
		decode := func() (took time.Duration, allocated uint64, err error) {
			v := s.zero()
			before, start := heapAllocs(), time.Now()
			charged, err := s.decode(data, v, gobcodec.Limits{Decoded: limit})
			took, allocated = time.Since(start), heapAllocs()-before
			if charged > limit {
				t.Fatalf("%d bytes charged", charged)
			}
			return took, allocated, err
		}
		took, allocated, err := decode()
		for i := 0; i < 9 && took > patience; i++ { // the machine may have been busy with something else
			took, _, _ = decode()
		}
		if took > patience {
			t.Fatalf("took %v", took)
		}
		if allocated > 2*limit { // perhaps for the plan, which has a bound of its own
			if _, allocated, _ = decode(); allocated > 2*limit+planBytes {
				t.Fatalf("%d bytes allocated", allocated)
			}
		}
		checkError(t, err)
	})
}

// planBytes is what compiling definitions at the bound may take.
const planBytes = 6 * mib

// heapAllocs is the bytes allocated so far, short of what the current spans of small blocks hide.
func heapAllocs() uint64 {
	metrics.Read(allocs)
	return allocs[0].Value.Uint64()
}

var allocs = []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}

// checkError holds every error to be one of the two kinds, with a figure over the limit and a path of bounded length.
func checkError(t *testing.T, err error) {
	t.Helper()
	var bound *gobcodec.BoundError
	var plain *gobcodec.Error
	switch {
	case err == nil:
	case errors.As(err, &bound):
		if bound.Figure <= bound.Limit || len(bound.Path) > kib {
			t.Fatalf("%+v", bound)
		}
	case errors.As(err, &plain):
		if plain.Reason == "" || len(plain.Path) > kib {
			t.Fatalf("%+v", plain)
		}
	default:
		t.Fatalf("error of another kind: %v", err)
	}
}

// What the codec accepts, encoding/gob accepts as the same value. encoding/gob does not see what the codec refused: it might
// never come back.
func FuzzDifferential(f *testing.F) {
	all := fuzzSubjects(f)
	addSeeds(f, all)
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		s := all[int(which)%len(all)]
		got, want := s.zero(), s.zero()
		if _, err := s.decode(data, got, gobcodec.Limits{Decoded: 64 * kib}); err != nil || len(data) == 0 {
			return
		}
		err := recovered(func() error { return stdDecode(data, want) })
		if err != nil {
			if !knownDifference(err) {
				t.Fatalf("%v: encoding/gob refuses: %v\n%x", s.rt, err, data)
			}
			return
		}
		if !alike(s, got, want) {
			t.Fatalf("%v\ncodec        %+v\nencoding/gob %+v\n%x", s.rt, got, want, data)
		}
	})
}

func recovered(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return f()
}

// knownDifference recognizes what TestDifferences lists.
func knownDifference(err error) bool {
	for _, text := range []string{
		"panic: reflect: indirection through nil pointer to embedded struct",
	} {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// alike is DeepEqual, or, where NaN or a pointer as a key forbids that, equality of the encoded lengths.
func alike(s subject, a, b any) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	x, xErr := s.append(nil, a)
	y, yErr := s.append(nil, b)
	same := len(x) == len(y) && (xErr == nil) == (yErr == nil)
	return same && (!s.ordered || bytes.Equal(x, y))
}

// Random values survive, and are the same to encoding/gob. Non-zero targets are covered by differential.
func FuzzRoundTrip(f *testing.F) {
	all := subjects(f)
	for i := range all {
		f.Add(byte(i), uint64(i), false)
	}
	f.Fuzz(func(t *testing.T, which byte, seed uint64, noMaps bool) {
		fill := newFiller(seed)
		fill.noMaps = noMaps
		differential(t, fill, all[int(which)%len(all)])
	})
}

// A message read from a stream is the bytes that Decode takes for a whole gob, and nothing behind it is consumed.
func FuzzRead(f *testing.F) {
	all := fuzzSubjects(f)
	addSeeds(f, all)
	f.Fuzz(func(t *testing.T, cut byte, data []byte) {
		var source io.Reader = bytes.NewReader(data)
		if cut%2 == 0 {
			source = iotest.OneByteReader(source)
		}
		r := bufio.NewReaderSize(source, 16+int(cut))
		prefix := []byte("prefix")
		b, err := gobcodec.ReadMessage(r, prefix, gobcodec.Limits{Message: 64 * kib})
		require.True(t, bytes.HasPrefix(b, prefix))
		b = b[len(prefix):]
		rest, _ := io.ReadAll(r)
		switch {
		case err == nil:
			require.True(t, bytes.Equal(data, cat(b, rest)))
			if _, value, refused := gobcodec.Split(b); refused == nil {
				require.NotEmpty(t, value)
			}
		case errors.Is(err, io.EOF):
			require.Empty(t, data)
		case errors.Is(err, io.ErrUnexpectedEOF):
			_, _, cut := gobcodec.Split(data)
			require.Error(t, cut)
		default:
			checkError(t, err)
			require.Empty(t, b)
		}
	})
}

// The corpus in testdata/fuzz has every attack, cut down in size where it is large.
func TestCorpus(t *testing.T) {
	all := fuzzSubjects(t)
	position := func(rt reflect.Type) int {
		for i, s := range all {
			if s.rt == rt {
				return i
			}
		}
		t.Fatalf("%v is no subject of the fuzz tests", rt)
		return 0
	}
	for _, a := range attacks(t) {
		require.LessOrEqual(t, a.corpus, math.MaxInt)
		name := strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
				return r
			}
			return '_'
		}, strings.ToLower(a.name))
		for _, target := range []string{"FuzzDecode", "FuzzDifferential", "FuzzRead"} {
			path := filepath.Join("testdata", "fuzz", target, name)
			if *update {
				text := fmt.Sprintf("go test fuzz v1\nbyte('\\x%02x')\n[]byte(%q)\n", position(a.target.rt), a.bytes(a.corpus))
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
			}
			require.FileExists(t, path, "run go test -run Corpus -update")
		}
	}
}
