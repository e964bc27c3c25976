package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/term"
)

// A console is what the prompt reads lines from and prints replies to: plain
// streams, or a terminal with editing, history and completion.
type console struct {
	readLine func() (string, error) // without the line's end; io.EOF at the end
	out      *output                // for replies; may be written to while readLine waits
	say      io.Writer              // for everything else, in the same way
	status   func(text string)      // shown before the line that is being typed
	restore  func()                 // gives the terminal back
	terminal bool
}

// errCtrlC is what readLine returns for Ctrl-C, which is no signal while a
// terminal is in raw mode.
var errCtrlC = errors.New("interrupted by Ctrl-C")

// openConsole makes a terminal of standard input and output if they are one.
// names are what it completes.
func (n *node) openConsole(status string, names []string) (*console, error) {
	if !n.atTerminal() {
		return n.plainConsole(), nil
	}
	in, _ := isTerminal(n.stdin)
	out, _ := isTerminal(n.stdout)
	old, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, &failure{code: exitInternal, text: "cannot prepare the terminal: " + rootText(err) + "; try it with piped input"}
	}
	k := &keys{r: in}
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{k, out}, harmless(status)+"> ")
	t.AutoCompleteCallback = completion(names, t)
	c := &console{
		readLine: func() (string, error) {
			fit(t, out)
			line, err := t.ReadLine()
			if errors.Is(err, io.EOF) && k.ctrlC.Load() {
				err = errCtrlC
			}
			return line, err
		},
		out: &output{w: &display{w: t}}, say: n.stderr, terminal: true,
		status: func(text string) {
			t.SetPrompt(harmless(text) + "> ")
			_, _ = t.Write(nil) // draws it anew, with what has been typed behind it
		},
		restore: func() {
			_, _ = io.WriteString(out, "\r\x1b[K") // the prompt that nobody answers any more
			_ = term.Restore(int(in.Fd()), old)
		},
	}
	if _, ok := isTerminal(n.stderr); ok {
		c.say = t
	}
	return c, nil
}

// atTerminal reports whether somebody sits in front of the prompt.
func (n *node) atTerminal() bool {
	_, in := isTerminal(n.stdin)
	_, out := isTerminal(n.stdout)
	return in && out
}

// plainConsole is for input or output that is a file or a pipe.
func (n *node) plainConsole() *console {
	in := bufio.NewReader(n.stdin)
	return &console{
		readLine: func() (string, error) {
			line, err := in.ReadString('\n')
			if errors.Is(err, io.EOF) && line != "" {
				err = nil // the end comes again
			}
			return strings.TrimSuffix(line, "\n"), err
		},
		out: n.out(), say: n.stderr, status: func(string) {}, restore: func() {},
	}
}

// fit tells t the size of the terminal, which may have changed since the last
// line.
func fit(t *term.Terminal, f *os.File) {
	if width, height, err := term.GetSize(int(f.Fd())); err == nil && width > 0 && height > 0 {
		_ = t.SetSize(width, height) // a failure leaves the old size
	}
}

// keys notices Ctrl-C, which a term.Terminal reports as it does Ctrl-D.
type keys struct {
	r     io.Reader
	ctrlC atomic.Bool
}

func (k *keys) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if strings.ContainsRune(string(p[:n]), '\x03') {
		k.ctrlC.Store(true)
	}
	return n, err
}

// completion returns what makes Tab complete the first word of a line to one of
// names, whatever its case, as far as they agree. Where they do not, it lists
// them on w.
func completion(names []string, w io.Writer) func(line string, pos int, key rune) (string, int, bool) {
	return func(line string, pos int, key rune) (string, int, bool) {
		word, rest := line[:pos], line[pos:]
		if key != '\t' || word == "" || strings.Contains(word, " ") {
			return "", 0, false
		}
		var fits []string
		for _, name := range names {
			if len(name) >= len(word) && strings.EqualFold(name[:len(word)], word) {
				fits = append(fits, name)
			}
		}
		if len(fits) == 0 {
			return "", 0, false
		}
		whole := commonPrefix(fits)
		if len(fits) == 1 && rest == "" {
			whole += " "
		}
		if whole == word {
			_, _ = io.WriteString(w, strings.Join(fits, "  ")+"\n")
		}
		return whole + rest, len(whole), true
	}
}

func commonPrefix(names []string) string {
	prefix := names[0]
	for _, name := range names[1:] {
		for !strings.HasPrefix(name, prefix) {
			prefix = prefix[:len(prefix)-1]
		}
	}
	return prefix
}
