package main

import (
	"image/color"
	"os"
	"path/filepath"
	"strings"

	"gobnode/bench/internal/load"
	"gobnode/bench/internal/peers"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// A chart is a plot of one metric: a group of bars for each cell, a bar for each peer.
type chart struct {
	file, title, label string
	cells              []string // names
	metric             load.Metric
	scale              float64
}

var charts = []chart{
	{"calls", "Calls of 64 B", "thousand calls/s", smallCalls, load.Rate, 1e-3},
	{"cpu", "CPU of a call of 64 B, both processes", "µs", smallCalls, load.CPU, 1},
	{"calls-64KiB", "Calls of 64 KiB", "thousand calls/s", largeCalls, load.Rate, 1e-3},
	{"streams", "Streams", "MB/s", []string{"streams/32KiB", "streams/1MiB"}, load.Throughput, 1},
	{"set-up", "Connect, call once, close", "thousand/s", []string{"set-up/1", "set-up/8"}, load.Rate, 1e-3},
	{"idle", "Server memory of an idle connection that has carried a call", "KB of heap and stack", []string{"idle/15000"}, load.UsedMemory, 1e-3},
	{"beside", "p99 of small calls beside transfers on their connection", "ms", []string{"beside/1", "beside/16"}, load.LoadedP99, 1e-3},
}

var (
	smallCalls = []string{"calls/64B/1", "calls/64B/16", "calls/64B/64over16", "calls/64B/128", "calls/64B/1024"}
	largeCalls = []string{"calls/64KiB/1", "calls/64KiB/16", "calls/64KiB/64over16", "calls/64KiB/128", "calls/64KiB/1024"}
)

// colors are told apart by those who see fewer of them too (Okabe and Ito's palette), this library's first.
var colors = []color.RGBA{
	{0xd5, 0x5e, 0x00, 0xff},
	{0x00, 0x72, 0xb2, 0xff},
	{0x00, 0x9e, 0x73, 0xff},
	{0x56, 0xb4, 0xe9, 0xff},
	{0xe6, 0x9f, 0x00, 0xff},
	{0xcc, 0x79, 0xa7, 0xff},
	{0x99, 0x99, 0x99, 0xff},
}

// A plotted chart has a title and a path beside the results.
type plotted struct{ title, path string }

// plots draws the charts whose cells were all measured into plots/ beside the file of that name.
func (r *report) plots(name string) ([]plotted, error) {
	const folder = "plots"
	var done []plotted
	for _, c := range charts {
		p, err := r.draw(&c)
		if err != nil {
			return nil, err
		}
		if p == nil {
			continue
		}
		if err := os.MkdirAll(filepath.Join(filepath.Dir(name), folder), 0o755); err != nil {
			return nil, err
		}
		path := filepath.Join(folder, c.file+".svg")
		if err := p.Save(chartWidth, chartHeight, filepath.Join(filepath.Dir(name), path)); err != nil {
			return nil, err
		}
		done = append(done, plotted{c.title, filepath.ToSlash(path)})
	}
	return done, nil
}

// The sizes of a chart. Its right part is for the legend.
const (
	chartWidth, chartHeight = 8 * vg.Inch, 4 * vg.Inch
	axisWidth               = vg.Inch // roughly, of the Y axis with its labels
	legendShare             = 0.2
	groupShare              = 0.85 // of the room from one group to the next
)

// draw returns nil if a cell was not measured. The floor is left out of charts of rates, which it would flatten: it is in the tables.
func (r *report) draw(c *chart) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.Y.Label.Text = c.title, c.label
	labels := make([]string, len(c.cells))
	for i, name := range c.cells {
		cell, _ := r.samples.find(name, "")
		if cell == nil {
			return nil, nil
		}
		labels[i] = strings.ReplaceAll(cell.title, " over ", "\nover ")
	}
	p.NominalX(labels...)
	p.Legend.Top = true
	var bars []*plotter.BarChart
	for i, peer := range r.plan.peers {
		values := r.values(c, peer)
		if values == nil || peer.Name == peers.Bare && c.metric == load.Rate {
			continue
		}
		b, err := plotter.NewBarChart(values, 1)
		if err != nil {
			return nil, err
		}
		b.Color, b.LineStyle.Width = colors[i%len(colors)], 0
		bars = append(bars, b)
		p.Legend.Add(peer.Name, b)
	}
	groups := float64(len(c.cells)) / (1 - legendShare) // that would fill the width
	width := (chartWidth - axisWidth) / vg.Length(groups) * groupShare / vg.Length(len(bars))
	for i, b := range bars {
		b.Width, b.Offset = width, width*vg.Length(float64(i)-float64(len(bars)-1)/2)
		p.Add(b)
	}
	p.X.Min, p.X.Max, p.Y.Min = -0.5, groups-0.5, 0 // after Add, which widens them
	return p, nil
}

// values returns nil if the peer was not measured at all of the chart's cells.
func (r *report) values(c *chart, peer *peers.Peer) plotter.Values {
	values := make(plotter.Values, 0, len(c.cells))
	for _, name := range c.cells {
		cell, s := r.samples.find(name, peer.Name)
		if s == nil {
			return nil
		}
		x, ok := s.spread(cell, c.metric)
		if !ok {
			return nil
		}
		values = append(values, x.Median*c.scale)
	}
	return values
}
