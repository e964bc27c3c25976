package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestGenerated runs what the go:generate lines say, and compares the files with those that are there.
func TestGenerated(t *testing.T) {
	for _, folder := range []string{"../echo/pb", "../../codec/pb"} {
		t.Run(folder, func(t *testing.T) {
			t.Chdir(folder)
			source, err := os.ReadFile("generate.go")
			if err != nil {
				t.Fatal(err)
			}
			_, command, ok := strings.Cut(string(source), "//go:generate go run gobnode/bench/internal/protogen ")
			if !ok {
				t.Fatal("there is no go:generate line")
			}
			files := 0
			err = run(t.Context(), strings.Fields(command), func(path, content string) error {
				files++
				there, err := os.ReadFile(path)
				if err == nil && !bytes.Equal(there, []byte(content)) {
					t.Errorf("%s differs from what is generated: run go generate", path)
				}
				return err
			})
			if err != nil || files < 2 {
				t.Errorf("%d files, %v", files, err)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Chdir("../echo/pb")
	write := func(string, string) error { return nil }
	for name, args := range map[string][]string{
		"no plugin":      {"echo.proto"},
		"no file":        {"nothing.proto", "protoc-gen-go"},
		"another plugin": {"echo.proto", "protoc-gen-nothing"},
		"parameters":     {"echo.proto", "protoc-gen-go=paths=nowhere"},
	} {
		if err := run(t.Context(), args, write); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
