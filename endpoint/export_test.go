package endpoint

// Held is how many bytes of Limits.InFlight the calls under way hold.
func (e *Endpoint) Held() int64 { return e.inFlight.used.Load() }

// HeldByReadGob is how many bytes all calls of ReadGob hold.
func HeldByReadGob() int64 { return beingRead.used.Load() }

// The bounds on what a call is charged for.
const (
	LeastCharge    = leastCharge
	FirstAllowance = firstAllowance
)
