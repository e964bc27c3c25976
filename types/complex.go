// Package types holds what both sides of a connection agree on.
package types

// ComplexData is a value with a bit of everything, itself included. The command
// GOB takes one.
type ComplexData struct {
	N int
	S string
	M map[string]int
	P []byte
	C *ComplexData
}

// Sample returns the value that the demonstration sends: one with another
// inside.
func Sample() ComplexData {
	return ComplexData{
		N: 61000,
		S: "a value from another process",
		M: map[string]int{"bytes": 5, "levels": 2},
		P: []byte{0, 1, 127, 128, 255},
		C: &ComplexData{
			N: -1,
			S: "and the value inside it",
			M: map[string]int{"levels": 1},
		},
	}
}
