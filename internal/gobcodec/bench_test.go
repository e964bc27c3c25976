package gobcodec_test

import (
	"bytes"
	"encoding/gob"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"gobnode/internal/gobcodec"
)

// Each operation is encode + decode into a new zero value. "codec" and "fresh" move self-contained gobs; "stream" is one
// long-lived encoding/gob pair, which sends definitions once.
//
//	go test -run '^$' -bench Both -count 6 ./internal/gobcodec
func BenchmarkBoth(b *testing.B) {
	b.Run("call", func(b *testing.B) { benchmarkBoth(b, newCall()) })
	b.Run("small", func(b *testing.B) { benchmarkBoth(b, newSmall()) })
	b.Run("medium", func(b *testing.B) { benchmarkBoth(b, newMedium()) })
	b.Run("node", func(b *testing.B) { benchmarkBoth(b, newNode()) })
	b.Run("large", func(b *testing.B) { benchmarkBoth(b, newLarge()) })
}

func benchmarkBoth[T any](b *testing.B, v *T) {
	c, err := gobcodec.For[T]()
	require.NoError(b, err)
	buf, err := c.Append(nil, v)
	require.NoError(b, err)
	b.Run("codec", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf, _ = c.Append(buf[:0], v)
			if _, err = c.Decode(buf, new(T), gobcodec.Limits{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf, err = c.Append(buf[:0], v)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err = c.Decode(buf, new(T), gobcodec.Limits{})
		}
	})
	require.NoError(b, err)
	b.Run("stream", func(b *testing.B) {
		b.ReportAllocs()
		var pipe bytes.Buffer
		enc, dec := gob.NewEncoder(&pipe), gob.NewDecoder(&pipe)
		for b.Loop() {
			if enc.Encode(v) != nil || dec.Decode(new(T)) != nil {
				b.Fatal("encoding/gob failed")
			}
		}
	})
	b.Run("fresh", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var pipe bytes.Buffer
			if gob.NewEncoder(&pipe).Encode(v) != nil || gob.NewDecoder(&pipe).Decode(new(T)) != nil {
				b.Fatal("encoding/gob failed")
			}
		}
	})
}

// Definitions never seen before: ordinary ones, and as many fields as their bounds allow.
func BenchmarkUnknownDefinitions(b *testing.B) {
	c, err := gobcodec.For[argsTarget]()
	require.NoError(b, err)
	for _, fields := range []int{3, 5000} {
		b.Run(strconv.Itoa(fields), func(b *testing.B) {
			b.ReportAllocs()
			extra := extraFields(fields, 2)
			var flood [][]byte
			for i := range int64(1100) {
				id := 100 + i
				flood = append(flood, cat(wStruct(id, "Args", extra...), wMessage(wInt(id), []byte{1, 2, 0})))
			}
			for n := 0; b.Loop(); n++ {
				if _, err := c.Decode(flood[n%len(flood)], new(argsTarget), gobcodec.Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
