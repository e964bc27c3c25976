// Package pb holds the benchmark's values as protobuf messages, with the methods of google.golang.org/protobuf and those of
// vtprotobuf side by side.
//
// The generated files were made with protoc 3.21.12 (Debian's protobuf-compiler), protoc-gen-go v1.36.12 and
// protoc-gen-go-vtproto v0.6.0; the tool lines of go.mod pin the two plugins.
package pb

//go:generate sh -c "protoc --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --plugin=protoc-gen-go-vtproto=$(go tool -n protoc-gen-go-vtproto) --go_out=. --go_opt=paths=source_relative --go-vtproto_out=. --go-vtproto_opt=paths=source_relative,features=marshal+unmarshal+size values.proto"
