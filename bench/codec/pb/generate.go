// Package pb holds the benchmark's values as protobuf messages, with the methods of google.golang.org/protobuf and those of
// vtprotobuf side by side. The files are made by go generate; go.mod pins what makes them.
package pb

//go:generate go run gobnode/bench/internal/protogen values.proto protoc-gen-go=paths=source_relative protoc-gen-go-vtproto=paths=source_relative,features=marshal+unmarshal+size
