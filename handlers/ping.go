package handlers

import "bufio"

// Ping serves PING. It takes no data and answers
//
//	PONG\n
func Ping(rw *bufio.ReadWriter) {
	_, _ = rw.WriteString("PONG\n") // a lost connection is for the endpoint to notice
	_ = rw.Flush()
}
