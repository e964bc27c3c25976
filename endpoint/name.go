package endpoint

import "bytes"

// parseName reads the beginning of a command line from p: the name and the
// spaces behind it and, where nothing else follows on the line, its end. n is
// how many bytes that takes, 0 when p does not hold it all yet; inline says
// that data follows on the same line. An empty name is a blank line.
//
// A name that cannot become one is refused at its first bad byte, without
// waiting for the line's end: a TLS hello has none. The answer tells of no byte
// behind that one, so that it does not depend on how the bytes were cut.
func parseName(p []byte) (name []byte, n int, inline bool, refused *Error) {
	for n < len(p) && n <= maxName && nameByte(p[n]) {
		n++
	}
	name = p[:n]
	if n > maxName {
		return nil, 0, false, refusal(InvalidArgument, "a command name has at most %d bytes; this begins with %s", maxName, quoteName(name))
	}
	for n < len(p) && p[n] == ' ' {
		n++
	}
	if n == len(p) {
		return nil, 0, false, nil
	}
	switch {
	case p[n] == '\n':
		return name, n + 1, false, nil
	case (p[n] == '\r' || n == 0 && p[n] == tlsHandshake) && n+1 == len(p):
		return nil, 0, false, nil
	case p[n] == '\r' && p[n+1] == '\n':
		return name, n + 2, false, nil
	case len(name) > 0 && n > len(name):
		return name, n, true, nil
	}
	if bytes.HasPrefix(p, []byte{tlsHandshake, 3}) {
		return nil, 0, false, refusal(InvalidArgument, "this looks like TLS, and this port is plain: connect without TLS")
	}
	if p[n] == '\r' {
		n++ // it is what follows the CR that is wrong
	}
	return nil, 0, false, refusal(InvalidArgument, "a command name is printable ASCII without spaces; this begins with %s", quoteName(p[:n+1]))
}

// tlsHandshake is what a TLS hello begins with; 3 follows in every version (RFC
// 8446 section 5.1).
const tlsHandshake = 0x16

// unknown is the answer to a name that is not registered.
func (e *Endpoint) unknown(name []byte) *Error {
	err := refusal(Unimplemented, "unknown command %s", quoteName(name))
	switch string(name) {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "PRI":
		err.Message += ": this port does not speak HTTP"
	default:
		if near := e.near(string(name)); near != "" {
			err.Message += "; did you mean " + near + "?"
		}
	}
	return err
}
