// Protogen compiles a .proto file of the current folder and has plugins generate Go files beside it:
//
//	go run gobnode/bench/internal/protogen FILE.proto PLUGIN[=PARAMETERS]...
//
// It stands in for protoc, which is no Go program and would have to be installed. The plugins are tools of go.mod, which pins them.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	if err := run(context.Background(), os.Args[1:], write); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

// run passes every generated file to take, by its path.
func run(ctx context.Context, args []string, take func(path, content string) error) error {
	if len(args) < 2 {
		return errors.New("want a .proto file and at least one plugin, PLUGIN[=PARAMETERS]")
	}
	file, err := compile(ctx, args[0])
	if err != nil {
		return err
	}
	for _, arg := range args[1:] {
		plugin, parameters, _ := strings.Cut(arg, "=")
		files, err := generate(ctx, file, plugin, parameters)
		if err != nil {
			return fmt.Errorf("%s: %w", plugin, err)
		}
		for _, f := range files {
			if err := take(f.GetName(), f.GetContent()); err != nil {
				return err
			}
		}
	}
	return nil
}

func write(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// compile returns the descriptor of a file that imports no other.
func compile(ctx context.Context, name string) (*descriptorpb.FileDescriptorProto, error) {
	compiler := protocompile.Compiler{
		Resolver:       &protocompile.SourceResolver{ImportPaths: []string{"."}},
		SourceInfoMode: protocompile.SourceInfoStandard, // comments become doc comments
	}
	files, err := compiler.Compile(ctx, name)
	if err != nil {
		return nil, err
	}
	result, ok := files[0].(linker.Result)
	if !ok {
		return nil, fmt.Errorf("%s was not compiled from its source", name)
	}
	return result.FileDescriptorProto(), nil
}

func generate(ctx context.Context, file *descriptorpb.FileDescriptorProto, plugin, parameters string) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	request, err := proto.Marshal(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{file.GetName()},
		Parameter:      new(parameters),
		ProtoFile:      []*descriptorpb.FileDescriptorProto{file},
	})
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "tool", plugin)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(request), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &response); err != nil {
		return nil, err
	}
	if response.Error != nil {
		return nil, errors.New(response.GetError())
	}
	return response.GetFile(), nil
}
