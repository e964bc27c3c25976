package endpoint

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A HandleFunc serves one raw command: the name has been read; it reads the
// command's data from rw, no further, writes its reply and flushes it (a
// forgotten flush is done for it). rw is not to be used after it returns. It
// cannot report an error: panic(ErrAbort) ends the connection quietly when the
// rest of the data cannot be trusted.
type HandleFunc func(rw *bufio.ReadWriter)

// ServeCommand calls f and returns nil.
func (f HandleFunc) ServeCommand(_ context.Context, rw *bufio.ReadWriter) error {
	f(rw)
	return nil
}

// A Handler is the full form of a HandleFunc: it also sees the context (peer,
// logger, cancellation), and its error ends the connection, because how much of
// the data was consumed is then unknown. The context ends when the connection
// is cut, at the latest when the handler has returned.
//
// A handler's panic, and runtime.Goexit in it, end the connection as an error
// does, never the process.
type Handler interface {
	ServeCommand(ctx context.Context, rw *bufio.ReadWriter) error
}

// A ServeFunc is a function as a Handler.
type ServeFunc func(ctx context.Context, rw *bufio.ReadWriter) error

// ServeCommand calls f.
func (f ServeFunc) ServeCommand(ctx context.Context, rw *bufio.ReadWriter) error { return f(ctx, rw) }

// maxName is the length of a command's name in bytes.
const maxName = 64

// checkName reports why name cannot be a command's.
func checkName(name string) error {
	if name == "" {
		return refusal(InvalidArgument, "an empty command name")
	}
	if len(name) > maxName {
		return refusal(InvalidArgument, "command name %s is longer than %d bytes", quoteName(name), maxName)
	}
	for i := range len(name) {
		if !nameByte(name[i]) {
			return refusal(InvalidArgument, "command name %s: only printable ASCII without spaces will do", quoteName(name))
		}
	}
	return nil
}

func nameByte(b byte) bool { return '!' <= b && b <= '~' }

// quoteName quotes what a peer gave as a command's name, cut to a length that
// fits a log line, so that a log stays one line of printable ASCII.
func quoteName[T ~string | ~[]byte](name T) string {
	s := string(name)
	if len(s) > maxName {
		return fmt.Sprintf("%+q...", s[:maxName])
	}
	return fmt.Sprintf("%+q", s)
}

// An entry is what the table holds of a command. It does not change.
type entry struct {
	name    string
	kind    Kind
	handler Handler // of a raw command
	unary   unary   // of a typed one
}

// CommandInfo describes a registered command.
type CommandInfo struct {
	Name string
	Kind Kind
	Doc  string // as given to Describe

	// Of typed commands: the Go types as text, and a request as JSON to type by
	// hand ("" where JSON cannot hold the type).
	Request, Reply, Example string
}

// AddHandleFunc registers f under name, in place of an earlier command of that
// name. It may be called while the endpoint serves; commands that run go on as
// they began. Names are 1 to 64 printable ASCII characters without spaces,
// case-sensitive; on any other it panics, as on a nil f.
func (e *Endpoint) AddHandleFunc(name string, f HandleFunc) {
	e.Handle(name, f)
}

// Handle registers h under name, as AddHandleFunc does.
func (e *Endpoint) Handle(name string, h Handler) {
	isNil := h == nil
	switch f := h.(type) {
	case HandleFunc:
		isNil = f == nil
	case ServeFunc:
		isNil = f == nil
	}
	if isNil {
		panic("endpoint: nil Handler for " + quoteName(name)) //nolint:forbidigo // a defect of the program, found when it starts
	}
	e.register(name, entry{kind: KindRaw, handler: h})
}

func (e *Endpoint) register(name string, en entry) {
	if err := checkName(name); err != nil {
		panic("endpoint: " + err.Error()) //nolint:forbidigo // a defect of the program, found when it starts
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.handlers == nil {
		e.handlers = make(map[string]*entry)
	}
	en.name = name
	e.handlers[name] = &en
}

// Describe gives the command name a text for HELP, one paragraph. It may come
// before the command is registered, and stays when it is replaced.
func (e *Endpoint) Describe(name, doc string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.docs == nil {
		e.docs = make(map[string]string)
	}
	e.docs[name] = doc
}

// Commands returns what is registered, sorted by name.
func (e *Endpoint) Commands() []CommandInfo {
	e.mu.RLock()
	entries := make([]*entry, 0, len(e.handlers))
	list := make([]CommandInfo, 0, len(e.handlers))
	for _, name := range slices.Sorted(maps.Keys(e.handlers)) {
		en := e.handlers[name]
		entries = append(entries, en)
		list = append(list, CommandInfo{Name: name, Kind: en.kind, Doc: e.docs[name]})
	}
	e.mu.RUnlock()
	for i, en := range entries { // not under the lock: a type's MarshalJSON may do anything
		if en.unary != nil {
			list[i].Request, list[i].Reply, list[i].Example = en.unary.describe()
		}
	}
	return list
}

// lookup finds the command that name, a slice of a read buffer, names; nil if
// there is none.
func (e *Endpoint) lookup(name []byte) *entry {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.handlers[string(name)] // this form does not allocate
}

// near returns the registered name that a mistyped one most likely means, or
// "". It looks at no more than maxNear names of about the same length, so that
// a peer that sends nonsense cannot make a large table expensive.
func (e *Endpoint) near(name string) string {
	const maxNear, maxEdits = 1024, 2
	best, bestEdits := "", maxEdits+1
	e.mu.RLock()
	defer e.mu.RUnlock()
	seen := 0
	for candidate := range e.handlers {
		if abs(len(candidate)-len(name)) > maxEdits {
			continue
		}
		if seen++; seen > maxNear {
			break
		}
		edits := 0
		if !strings.EqualFold(candidate, name) {
			edits = 1 + distance(strings.ToUpper(candidate), strings.ToUpper(name))
		}
		// A word of which half is wrong is another word.
		if edits > 0 && 2*(edits-1) >= len(name) {
			continue
		}
		if edits < bestEdits || edits == bestEdits && candidate < best {
			best, bestEdits = candidate, edits
		}
	}
	return best
}

func abs(n int) int { return max(n, -n) }

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours that turn a into b.
func distance(a, b string) int {
	var rows [3][maxName + 3]int // names are at most maxName long, candidates 2 more
	before, last, row := rows[0][:len(b)+1], rows[1][:len(b)+1], rows[2][:len(b)+1]
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
