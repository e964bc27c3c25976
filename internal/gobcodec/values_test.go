package gobcodec_test

import (
	"fmt"
	"math/rand/v2"
)

// The values that everything is measured on: a call as the benchmark of the endpoint makes them, a small record, a medium order, a
// recursive node of three levels and a large table. Their sizes on the wire are about 210 B, 160 B, 2.2 KB, 0.4 KB and 154 KB.

type callValue struct {
	ID   uint64
	Name string
	Body []byte
	Tags []string
}

type smallValue struct {
	ID     int64
	Name   string
	Email  string
	Score  float64
	Active bool
}

type mediumItem struct {
	SKU   string
	Qty   int
	Price float64
	Taxed bool
}

type mediumValue struct {
	ID     int
	Title  string
	Items  []mediumItem
	Counts map[string]int
	Blob   []byte
	Owner  smallValue
}

type largeRecord struct {
	ID   int
	Name string
	X, Y float64
	OK   bool
}

type largeValue struct {
	Floats  []float64
	Records []largeRecord
	Sums    map[string]int64
}

type nodeValue struct {
	Number int
	Text   string
	Counts map[string]int
	Bytes  []byte
	Child  *nodeValue
}

func newCall() *callValue {
	c := &callValue{ID: 123456, Name: "inventory.reserve-stock.", Body: make([]byte, 64), Tags: []string{"alpha", "beta", "gamma"}}
	for i := range c.Body {
		c.Body[i] = byte(i * 7)
	}
	return c
}

func newSmall() *smallValue {
	return &smallValue{
		ID: 123456789, Name: "Ada Lovelace, Countess", Email: "ada.lovelace@analytical-engine.example.org",
		Score: 3.14159265358979, Active: true,
	}
}

func newMedium() *mediumValue {
	r := rand.New(rand.NewPCG(1, 0))
	m := &mediumValue{
		ID: 4711, Title: "An order of medium size with a title", Counts: map[string]int{},
		Blob: make([]byte, 1024), Owner: *newSmall(),
	}
	for i := range 20 {
		m.Items = append(m.Items, mediumItem{
			SKU: fmt.Sprintf("SKU-%06d-%c", r.IntN(1e6), 'A'+i), Qty: r.IntN(1000),
			Price: float64(r.IntN(100_000)) / 100, Taxed: i%2 == 0,
		})
	}
	for i := range 10 {
		m.Counts[fmt.Sprintf("counter-%d", i)] = r.IntN(1e6)
	}
	for i := range m.Blob {
		m.Blob[i] = byte(r.Uint32())
	}
	return m
}

func newNode() *nodeValue {
	var child *nodeValue
	for i := 3; i > 0; i-- {
		child = &nodeValue{
			Number: 1000 * i, Text: fmt.Sprintf("node at level %d", i), Bytes: []byte("0123456789abcdef0123456789abcdef"),
			Counts: map[string]int{"a": i, "bb": i * 10, "ccc": i * 100}, Child: child,
		}
	}
	return child
}

func newLarge() *largeValue {
	r := rand.New(rand.NewPCG(2, 0))
	l := &largeValue{Sums: map[string]int64{}}
	for range 10_000 {
		l.Floats = append(l.Floats, r.NormFloat64())
	}
	for i := range 1000 {
		l.Records = append(l.Records, largeRecord{i, fmt.Sprintf("record number %d", i), r.Float64(), r.Float64(), i%3 == 0})
		l.Sums[fmt.Sprintf("key-%08d", r.IntN(1e8))] = r.Int64N(1e12)
	}
	return l
}
