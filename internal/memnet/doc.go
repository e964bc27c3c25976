// Package memnet is a buffered network in memory, for tests of network code
// under testing/synctest.
//
// Sockets cannot be used in a synctest bubble: a goroutine that waits for one
// is not durably blocked, so the fake clock stands still. [net.Pipe] can, but it
// has no buffer: a writer waits for its reader, which makes deadlocks that TCP
// does not have and hides those that it has. The connections here buffer as a
// socket does, and wait only on a [sync.Cond] and on timers: inside a bubble every
// wait is durable, and a deadline fires at exactly its fake time.
//
// States and errors are those of TCP between two Linux processes with no time
// in between, down to which call is the one that fails; the tests compare the
// two. What differs: bytes that are already buffered do not survive
// [Conn.Reset], and nothing is ever delayed or segmented on the way.
//
// Make listeners and connections inside the bubble that uses them: to wake a
// bubble's goroutine from outside is a fatal error of the runtime. The package
// starts no goroutine; a deadline that fires, or a context that ends during
// [Listener.Dial], costs the short-lived one of its timer or callback.
package memnet

// Addr is the address of an end of a connection, in the form host:port. A
// listener is memN:1, with an N of its own in the process, and whoever dials it is
// memN:2, memN:3 and so on in the order of the calls. The ends of a [Pipe] are always
// pipe:1 and pipe:2.
type Addr string

// Network returns "mem".
func (Addr) Network() string { return "mem" }

// String returns the address itself.
func (a Addr) String() string { return string(a) }
