package endpoint_test

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"io"
	"runtime"
	"sync"
	"testing"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A slowReader gives what it has but for the last byte, says so, and waits for
// more before it gives that.
type slowReader struct {
	data    []byte
	waiting *sync.WaitGroup
	more    <-chan struct{}
	told    bool
}

func (s *slowReader) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	if len(s.data) == 1 {
		if !s.told {
			s.told = true
			s.waiting.Done()
		}
		<-s.more
	} else if len(p) >= len(s.data) {
		p = p[:len(s.data)-1]
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	return n, nil
}

// TestHeldMessagesAreSmall: small messages that never end hold no more than
// they are charged, whatever buffers large ones have left behind.
func TestHeldMessagesAreSmall(t *testing.T) {
	type value struct{ P []byte }
	encode := func(n int) []byte {
		var b bytes.Buffer
		require.NoError(t, gob.NewEncoder(&b).Encode(value{make([]byte, n)}))
		return b.Bytes()
	}
	large, small := encode(900_000), encode(100)
	// read starts n calls of ReadGob and returns when each waits for its last byte.
	read := func(calls *sync.WaitGroup, n int, data []byte, more <-chan struct{}) {
		var waiting sync.WaitGroup
		waiting.Add(n)
		for range n {
			calls.Go(func() {
				var v value
				r := bufio.NewReader(&slowReader{data: data, waiting: &waiting, more: more})
				assert.NoError(t, endpoint.ReadGob(r, &v, endpoint.Limits{InFlight: -1}))
			})
		}
		waiting.Wait()
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // empties pools for good
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const rounds, each = 4, 50
	before := heap()
	end := make(chan struct{})
	var held sync.WaitGroup
	for range rounds {
		var calls sync.WaitGroup
		more := make(chan struct{})
		read(&calls, each, large, more)
		close(more)
		calls.Wait() // and leave their buffers behind
		read(&held, each, small, end)
	}
	perCall := (int64(heap()) - int64(before)) / (rounds * each)
	close(end)
	held.Wait()
	t.Logf("%d bytes held by a call", perCall)
	assert.Less(t, perCall, int64(32<<10)) // two of 8 KiB and the reader of 4
}
