package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"gobnode/bench/internal/load"
	"gobnode/bench/internal/peers"
	"gobnode/bench/internal/rounds"
)

// A column of a table.
type column struct {
	head   string
	metric load.Metric
	format func(float64) string
}

// A report is the results of a run as text and plots.
type report struct {
	plan     *plan
	samples  *samples
	verdicts []verdict
	began    time.Time
	command  string
}

func newReport(p *plan, s *samples, began time.Time, args []string) *report {
	command := strings.Join(append([]string{"go -C bench run ."}, args...), " ")
	return &report{plan: p, samples: s, verdicts: judge(s), began: began, command: command}
}

// good says whether all targets that were measured were met and no peer failed.
func (r *report) good() bool {
	for _, v := range r.verdicts {
		if !v.met {
			return false
		}
	}
	for _, all := range r.samples.all {
		for _, s := range all {
			if s.err != nil {
				return false
			}
		}
	}
	return true
}

// write writes the report as Markdown.
func (r *report) write(w io.Writer) {
	r.head(w)
	writeVerdicts(w, r.verdicts)
	var last *kind
	for _, c := range r.plan.cells {
		if last == nil || last.title != c.kind.title {
			fmt.Fprintf(w, "\n### %s\n\n%s\n", c.kind.title, c.kind.about)
			last = c.kind
		}
		r.table(w, c)
	}
}

func (r *report) head(w io.Writer) {
	var modules, about []string
	for _, p := range r.plan.peers {
		modules = append(modules, p.Module)
		if p.About != "" {
			about = append(about, fmt.Sprintf("%s: %s", p.Name, p.About))
		}
	}
	fmt.Fprintf(w, "- Command: `%s`, %s, revision %s\n", r.command, r.began.UTC().Format("2006-01-02 15:04 MST"), revision())
	fmt.Fprintf(w, "- Machine and versions: %s\n", rounds.Environment(append(modules, "google.golang.org/protobuf")...))
	fmt.Fprintf(w, "- %d interleaved rounds of %v s, medians. A sample has a server and a client process of its own, both on these processors, over "+
		"TCP on the loopback. CPU is user and system time, of both where nothing else is said. Every reply is compared with its request: an ID, a name "+
		"of 24 bytes, a body, three short strings.\n", r.plan.rounds, r.plan.seconds)
	fmt.Fprintf(w, "- \"× this\" is a figure of %s by that of the peer of the row, the median of those within each round; in brackets the lowest and highest. Under 1.3 a rate is a tie.\n", peers.Gobnode)
	fmt.Fprintf(w, "- %s\n", droppedRule)
	if about != nil {
		fmt.Fprintf(w, "- Set-ups: %s. Everything else is at its defaults.\n", strings.Join(about, "; "))
	}
}

// table writes the figures of one cell.
func (r *report) table(w io.Writer, c *cell) {
	title := c.title
	if c.spec.Kind == load.Calls {
		title += ", " + spaced(c.spec.Body)
	}
	fmt.Fprintf(w, "\n**%s** (`%s`)\n\n| peer |", title, c.name)
	own := r.samples.all[c][peers.Gobnode]
	heads := []string{}
	for _, col := range c.kind.columns {
		heads = append(heads, col.head)
	}
	if own != nil {
		for _, m := range c.kind.ratios {
			heads = append(heads, string(m)+" × this")
		}
	}
	heads = append(heads, "rounds")
	fmt.Fprintf(w, " %s |\n|---|%s\n", strings.Join(heads, " | "), strings.Repeat("--:|", len(heads)))
	for _, p := range r.plan.of(c) {
		s := r.samples.of(c, p)
		if s.err != nil {
			fmt.Fprintf(w, "| %s | failed: %s |%s\n", p.Name, cellText(s.err.Error()), strings.Repeat(" |", len(heads)-1))
			continue
		}
		fmt.Fprintf(w, "| %s | %s |\n", p.Name, strings.Join(row(c, own, s), " | "))
	}
}

func row(c *cell, own, s *series) []string {
	var cells []string
	for _, col := range c.kind.columns {
		text := "–"
		if x, ok := s.spread(c, col.metric); ok {
			text = col.format(x.Median)
		}
		cells = append(cells, text)
	}
	if own != nil {
		for _, m := range c.kind.ratios {
			text := "–"
			if x, ok := ratio(c, own, s, m); ok && own != s {
				text = brackets(x)
			}
			cells = append(cells, text)
		}
	}
	return append(cells, s.usedText(c))
}

// brackets shows a spread.
func brackets(x rounds.Spread) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", x.Median, x.Low, x.High)
}

// cellText fits a text into a cell of a table.
func cellText(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return strings.ReplaceAll(s, "|", "\\|")
}

// count writes a whole number with its thousands apart.
func count(x float64) string {
	s := strconv.FormatFloat(x, 'f', 0, 64)
	digits := strings.TrimPrefix(s, "-")
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if s[0] == '-' {
		return "-" + digits
	}
	return digits
}

func one(x float64) string   { return strconv.FormatFloat(x, 'f', 1, 64) }
func two(x float64) string   { return strconv.FormatFloat(x, 'f', 2, 64) }
func three(x float64) string { return strconv.FormatFloat(x, 'f', 3, 64) }

// revision is the commit that was measured, where git knows it.
func revision() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output() //nolint:noctx // it reads a file or two
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// The marks around these results in a file that has others too.
const (
	beginMark = "<!-- begin: go -C bench run . -->"
	endMark   = "<!-- end: go -C bench run . -->"
)

// save writes the report into its section of the file, or behind what the file has, and the plots beside it.
func (r *report) save(name string) error {
	old, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	plots, err := r.plots(name)
	if err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n## Calls, streams and connections\n\n", beginMark)
	r.write(&text)
	if plots != nil {
		fmt.Fprintf(&text, "\n### Plots\n\n")
		for _, p := range plots {
			fmt.Fprintf(&text, "![%s](%s)\n", p.title, p.path)
		}
	}
	text.WriteString(endMark)
	return os.WriteFile(name, []byte(replaceSection(string(old), text.String())), 0o644)
}

// replaceSection puts section in place of the one that file has, or at its end.
func replaceSection(file, section string) string {
	before, rest, ok := strings.Cut(file, beginMark)
	if ok {
		if _, after, closed := strings.Cut(rest, endMark); closed {
			return before + section + after
		}
	}
	if file != "" && !strings.HasSuffix(file, "\n\n") {
		file = strings.TrimRight(file, "\n") + "\n\n"
	}
	return file + section + "\n"
}
