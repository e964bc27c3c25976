package main_test

import (
	"strings"
	"testing"
	"unicode"

	node "gobnode/cmd/node"

	"github.com/stretchr/testify/assert"
)

func TestHarmless(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain\ttext\n": "plain\ttext\n",
		"h\u00e9llo \u4e16\u754c \U0001f468\u200d\U0001f469": "h\u00e9llo \u4e16\u754c \U0001f468\u200d\U0001f469",
		"\x1b[31mred\x1b[0m":        `\x1b[31mred\x1b[0m`,
		"\x1b]0;title\x07":          `\x1b]0;title\x07`,
		"over\rwritten\b\x7f\x00":   `over\x0dwritten\x08\x7f\x00`,
		"\u009b31m":                 `\u009b31m`,
		"\x9b31m":                   `\x9b31m`,
		"\u202egnp.exe\u2066\u200e": `\u202egnp.exe\u2066\u200e`,
		"a\u2028b\u2029c\ufeff":     `a\u2028b\u2029c\ufeff`,
		"cut \xe4\xb8":              "cut \ufffd\ufffd",
		"bad \xff\xfe.":             `bad \xff\xfe.`,
	} {
		assert.Equal(t, want, node.Harmless(in))
	}
}

// FuzzHarmless: whatever comes, nothing that a terminal acts upon is left.
func FuzzHarmless(f *testing.F) {
	f.Add("\x1b[2J\u009b\x9b\r\u202e")
	f.Fuzz(func(t *testing.T, in string) {
		out := node.Harmless(in)
		assert.Equal(t, -1, strings.IndexFunc(out, func(r rune) bool {
			return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r)
		}))
	})
}
