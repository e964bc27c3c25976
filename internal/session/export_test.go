package session

// BuffersOut returns how many pooled buffers have not come back.
func BuffersOut() int64 { return buffersOut.Load() }
