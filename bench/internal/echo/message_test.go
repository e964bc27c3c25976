package echo_test

import (
	"testing"
	"time"

	"gobnode/bench/internal/echo"
)

func TestCheck(t *testing.T) {
	m := echo.New(64)
	m.ID = 7
	if len(m.Name) != 24 || len(m.Body) != 64 || len(m.Tags) != 3 {
		t.Fatalf("%+v", m)
	}
	same := echo.New(64)
	if err := m.Check(7, same.Name, same.Body, same.Tags); err != nil {
		t.Error(err)
	}
	other := echo.New(64)
	other.Body[63]++
	for name, err := range map[string]error{
		"id":   m.Check(8, same.Name, same.Body, same.Tags),
		"name": m.Check(7, "name", same.Body, same.Tags),
		"body": m.Check(7, same.Name, other.Body, same.Tags),
		"size": m.Check(7, same.Name, same.Body[:63], same.Tags),
		"tags": m.Check(7, same.Name, same.Body, same.Tags[:2]),
	} {
		if err == nil {
			t.Errorf("another %s was taken for the same", name)
		}
	}
}

func TestTotal(t *testing.T) {
	var total echo.Total
	body := echo.New(1000).Body
	for id := range uint64(3) {
		if err := total.Take(id, body); err != nil {
			t.Fatal(err)
		}
	}
	if total != (echo.Total{Messages: 3, Bytes: 3000}) {
		t.Errorf("%+v", total)
	}
	if total.Take(2, body) == nil || total.Take(3, body[1:]) == nil || total.Take(3, nil) == nil {
		t.Error("a wrong message was taken")
	}
}

func TestPause(t *testing.T) {
	var h echo.Handler
	h.Pause() // does nothing
	h.Sleep(3, 20*time.Millisecond)
	began := time.Now()
	for range 6 {
		h.Pause()
	}
	if took := time.Since(began); took < 40*time.Millisecond {
		t.Errorf("two pauses took %v", took)
	}
}
