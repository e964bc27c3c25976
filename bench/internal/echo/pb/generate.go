// Package pb is the benchmark's message and service as grpc, drpc and connect have them. The files are made by go generate; go.mod pins
// what makes them.
package pb

//go:generate go run gobnode/bench/internal/protogen echo.proto protoc-gen-go=paths=source_relative protoc-gen-go-grpc=paths=source_relative protoc-gen-go-drpc=paths=source_relative protoc-gen-connect-go=paths=source_relative
