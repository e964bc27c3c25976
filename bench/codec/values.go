package main

import (
	"fmt"
	"math/rand"

	"gobnode/bench/codec/pb"
)

// The four values measured. They are flat and short (Small, about 90 bytes), an ordinary request (Medium, 2 KB), recursive
// (Node) and bulk data (Large, 150 KB). The contents are random but the same in every run.

// Small has one field of each common kind.
type Small struct {
	ID     int64
	Name   string
	Email  string
	Score  float64
	Active bool
}

// An Item is an element of Medium.
type Item struct {
	SKU   string
	Qty   int
	Price float64
	Taxed bool
}

// Medium nests: 20 structs, a map of 10 entries, a blob of 1 KiB.
type Medium struct {
	ID     int
	Title  string
	Items  []Item
	Counts map[string]int
	Blob   []byte
	Owner  Small
}

// Node is recursive; the value has 3 levels with a map of 3 entries each.
type Node struct {
	Number  int
	Label   string
	Weights map[string]int
	Payload []byte
	Next    *Node
}

// A Record is an element of Large.
type Record struct {
	ID    int
	Name  string
	X, Y  float64
	Valid bool
}

// Large has 10,000 floats, 1,000 structs and a map of 1,000 entries.
type Large struct {
	Samples []float64
	Records []Record
	Index   map[string]int64
}

func newSmall() *Small {
	return &Small{
		ID: 123_456_789, Name: "Grace Brewster Hopper", Email: "grace.hopper@naval-reserve.example.org",
		Score: 2.718281828459045, Active: true,
	}
}

func newMedium() *Medium {
	r := rand.New(rand.NewSource(1))
	m := &Medium{
		ID: 4711, Title: "An order of twenty different items", Owner: *newSmall(),
		Counts: make(map[string]int), Blob: make([]byte, 1<<10),
	}
	for i := range 20 {
		m.Items = append(m.Items, Item{
			SKU: fmt.Sprintf("SKU-%06d-%c", r.Intn(1e6), 'A'+i), Qty: r.Intn(1000),
			Price: float64(r.Intn(100_000)) / 100, Taxed: i%2 == 0,
		})
	}
	for i := range 10 {
		m.Counts[fmt.Sprintf("counter-%d", i)] = r.Intn(1e6)
	}
	r.Read(m.Blob)
	return m
}

func newNode() *Node {
	var n *Node
	for level := 3; level > 0; level-- {
		n = &Node{
			Number: 1000 * level, Label: fmt.Sprintf("node at level %d", level), Next: n,
			Weights: map[string]int{"a": level, "bb": 10 * level, "ccc": 100 * level},
			Payload: []byte("fedcba9876543210fedcba9876543210"),
		}
	}
	return n
}

func newLarge() *Large {
	r := rand.New(rand.NewSource(2))
	l := &Large{Index: make(map[string]int64)}
	for range 10_000 {
		l.Samples = append(l.Samples, r.NormFloat64())
	}
	for i := range 1000 {
		l.Records = append(l.Records, Record{
			ID: i, Name: fmt.Sprintf("record number %d", i), X: r.Float64(), Y: r.Float64(), Valid: i%3 == 0,
		})
		l.Index[fmt.Sprintf("key-%08d", r.Intn(1e8))] = r.Int63n(1e12)
	}
	return l
}

func (s *Small) message() *pb.Small {
	return &pb.Small{Id: s.ID, Name: s.Name, Email: s.Email, Score: s.Score, Active: s.Active}
}

func (m *Medium) message() *pb.Medium {
	out := &pb.Medium{Id: int64(m.ID), Title: m.Title, Counts: widen(m.Counts), Blob: m.Blob, Owner: m.Owner.message()}
	for _, it := range m.Items {
		out.Items = append(out.Items, &pb.Item{Sku: it.SKU, Qty: int64(it.Qty), Price: it.Price, Taxed: it.Taxed})
	}
	return out
}

func (n *Node) message() *pb.Node {
	if n == nil {
		return nil
	}
	return &pb.Node{
		Number: int64(n.Number), Label: n.Label, Weights: widen(n.Weights), Payload: n.Payload, Next: n.Next.message(),
	}
}

func (l *Large) message() *pb.Large {
	out := &pb.Large{Samples: l.Samples, Index: l.Index}
	for _, r := range l.Records {
		out.Records = append(out.Records, &pb.Record{Id: int64(r.ID), Name: r.Name, X: r.X, Y: r.Y, Valid: r.Valid})
	}
	return out
}

func widen(m map[string]int) map[string]int64 {
	out := make(map[string]int64, len(m))
	for k, v := range m {
		out[k] = int64(v)
	}
	return out
}
