package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// isTerminal reports whether stream, one of run's, is a terminal.
func isTerminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	return f, true
}

// out is where replies go: a terminal is shielded, anything else gets the bytes
// as they come.
func (n *node) out() *output {
	if _, ok := isTerminal(n.stdout); ok {
		return &output{w: &display{w: n.stdout}}
	}
	return &output{w: n.stdout}
}

// An output remembers that it failed, so that copying to it tells that from a
// failure to read, and the last byte that it was given.
type output struct {
	w    io.Writer
	err  error
	last byte
}

func (o *output) Write(p []byte) (int, error) {
	written, err := o.w.Write(p)
	if err != nil {
		o.err = err
	}
	if len(p) > 0 {
		o.last = p[len(p)-1]
	}
	return written, err
}

// A display shows what a peer sent on a terminal, which is to interpret none of
// it: what is not plain text, a line's end or a tab is shown as an escape of Go.
// A rune that is cut between two writes is shown with the second.
type display struct {
	w    io.Writer
	rest []byte // the beginning of a rune
}

func (d *display) Write(p []byte) (int, error) {
	text, rest := neutralise(append(d.rest, p...))
	d.rest = append([]byte(nil), rest...)
	if _, err := io.WriteString(d.w, text); err != nil {
		return 0, err
	}
	return len(p), nil
}

// harmless returns text for a terminal, as a display shows it.
func harmless(text string) string {
	shown, rest := neutralise([]byte(text))
	return shown + strings.Repeat("\uFFFD", len(rest))
}

// neutralise returns p for a terminal. rest is the part of a rune at p's end.
func neutralise(p []byte) (text string, rest []byte) {
	var b strings.Builder
	for len(p) > 0 && utf8.FullRune(p) {
		r, size := utf8.DecodeRune(p)
		switch {
		case r == utf8.RuneError && size == 1: // 0x9b alone is a control sequence to some terminals
			fmt.Fprintf(&b, `\x%02x`, p[0])
		case shown(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		p = p[size:]
	}
	return b.String(), p
}

// shown reports whether a terminal gets r as it is. Of the runes without a
// glyph, only the joiners are: writing needs them, and they move nothing, as
// controls, and marks of direction, do.
func shown(r rune) bool {
	return r == '\n' || r == '\t' || unicode.IsGraphic(r) || r == '\u200c' || r == '\u200d'
}
