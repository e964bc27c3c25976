module gobnode/bench

go 1.26.0

toolchain go1.26.8

replace gobnode => ../

tool (
	github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto
	google.golang.org/protobuf/cmd/protoc-gen-go
)

require (
	github.com/planetscale/vtprotobuf v0.6.0
	gobnode v0.0.0-00010101000000-000000000000
	google.golang.org/protobuf v1.36.12
)
