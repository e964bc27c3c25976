package main

import (
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"

	"gobnode/internal/gobcodec"
)

// Names of the codecs, in the order of the table.
const (
	gobnode   = "gobnode"
	gobFresh  = "gob, fresh"
	gobPair   = "gob, one pair"
	protobuf  = "protobuf"
	vtproto   = "vtprotobuf"
	jsonCodec = "encoding/json"
)

// A subject is one codec with one value to encode and decode. Every codec gets the form of its API that costs it least with
// values owned by the caller: encoding is into a buffer that is used again and has room, decoding into a new zero value,
// nothing of which refers to the message.
type subject struct {
	codec  string
	encode func() error           // into message
	decode func() (any, error)    // of message
	equal  func(decoded any) bool // to the value
	buffer *buffer
}

// A buffer is what a codec writes to and reads from. As a reader it is an io.ByteReader as well, so that gob puts no
// buffered reader in front of it.
type buffer struct {
	b    []byte
	read int
}

func (b *buffer) Write(p []byte) (int, error) {
	b.b = append(b.b, p...)
	return len(p), nil
}

func (b *buffer) Read(p []byte) (int, error) {
	if b.read == len(b.b) {
		return 0, io.EOF
	}
	n := copy(p, b.b[b.read:])
	b.read += n
	return n, nil
}

func (b *buffer) ReadByte() (byte, error) {
	if b.read == len(b.b) {
		return 0, io.EOF
	}
	b.read++
	return b.b[b.read-1], nil
}

// A vtMessage is a generated message with the methods of both libraries.
type vtMessage[M any] interface {
	*M
	proto.Message
	SizeVT() int
	MarshalToSizedBufferVT(b []byte) (int, error)
	UnmarshalVT(b []byte) error
}

// subjects are all codecs for the Go value v and the same value as the message m.
func subjects[T, M any, PM vtMessage[M]](v *T, m PM) ([]*subject, error) {
	own, err := ofGobnode(v)
	if err != nil {
		return nil, err
	}
	pair, err := ofGobPair(v)
	if err != nil {
		return nil, err
	}
	all := []*subject{own, ofGobFresh(v), pair, ofProtobuf[M](m), ofVTProtobuf[M](m), ofJSON(v)}
	for _, s := range all {
		if err := s.verify(); err != nil {
			return nil, fmt.Errorf("%s: %T: %w", s.codec, v, err)
		}
	}
	return all, nil
}

// verify makes sure that what is measured works.
func (s *subject) verify() error {
	for range 2 { // the second time into a used buffer
		if err := s.encode(); err != nil {
			return err
		}
		decoded, err := s.decode()
		if err != nil {
			return err
		}
		if !s.equal(decoded) {
			return errors.New("decoded value differs")
		}
	}
	return nil
}

func ofGobnode[T any](v *T) (*subject, error) {
	c, err := gobcodec.For[T]()
	if err != nil {
		return nil, err
	}
	buf := new(buffer)
	return &subject{
		codec: gobnode, buffer: buf, equal: deepEqual(v),
		encode: func() (err error) {
			buf.b, err = c.Append(buf.b[:0], v)
			return err
		},
		decode: func() (any, error) {
			x := new(T)
			_, err := c.Decode(buf.b, x, gobcodec.Limits{})
			return x, err
		},
	}, nil
}

// ofGobFresh has an Encoder and a Decoder a message, which is what independent messages need from encoding/gob.
func ofGobFresh[T any](v *T) *subject {
	buf := new(buffer)
	return &subject{
		codec: gobFresh, buffer: buf, equal: deepEqual(v),
		encode: func() error {
			buf.b = buf.b[:0]
			return gob.NewEncoder(buf).Encode(v)
		},
		decode: func() (any, error) {
			x := new(T)
			buf.read = 0
			return x, gob.NewDecoder(buf).Decode(x)
		},
	}
}

// ofGobPair has one Encoder and one Decoder for all messages, which leave the definitions out after the first: encoding/gob
// at its fastest, where the messages of a connection are a single stream that never loses one.
func ofGobPair[T any](v *T) (*subject, error) {
	buf := new(buffer)
	enc, dec := gob.NewEncoder(buf), gob.NewDecoder(buf)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	if err := dec.Decode(new(T)); err != nil {
		return nil, err
	}
	return &subject{
		codec: gobPair, buffer: buf, equal: deepEqual(v),
		encode: func() error {
			buf.b = buf.b[:0]
			return enc.Encode(v)
		},
		decode: func() (any, error) {
			x := new(T)
			buf.read = 0
			return x, dec.Decode(x)
		},
	}, nil
}

func ofProtobuf[M any, PM vtMessage[M]](m PM) *subject {
	buf := new(buffer)
	return &subject{
		codec: protobuf, buffer: buf, equal: protoEqual(m),
		encode: func() (err error) {
			buf.b, err = proto.MarshalOptions{}.MarshalAppend(buf.b[:0], m)
			return err
		},
		decode: func() (any, error) {
			x := PM(new(M))
			return x, proto.Unmarshal(buf.b, x)
		},
	}
}

// ofVTProtobuf leaves out vtprotobuf's pools and its unsafe decoding, whose values are not the caller's to keep.
func ofVTProtobuf[M any, PM vtMessage[M]](m PM) *subject {
	buf := new(buffer)
	return &subject{
		codec: vtproto, buffer: buf, equal: protoEqual(m),
		encode: func() error {
			size := m.SizeVT()
			buf.b = slices.Grow(buf.b[:0], size)[:size]
			_, err := m.MarshalToSizedBufferVT(buf.b)
			return err
		},
		decode: func() (any, error) {
			x := PM(new(M))
			return x, x.UnmarshalVT(buf.b)
		},
	}
}

// ofJSON encodes by an Encoder because Marshal would copy the message once more.
func ofJSON[T any](v *T) *subject {
	buf := new(buffer)
	enc := json.NewEncoder(buf)
	return &subject{
		codec: jsonCodec, buffer: buf, equal: deepEqual(v),
		encode: func() error {
			buf.b = buf.b[:0]
			return enc.Encode(v)
		},
		decode: func() (any, error) {
			x := new(T)
			return x, json.Unmarshal(buf.b, x)
		},
	}
}

func deepEqual(v any) func(any) bool {
	return func(decoded any) bool { return reflect.DeepEqual(decoded, v) }
}

func protoEqual(m proto.Message) func(any) bool {
	return func(decoded any) bool {
		d, ok := decoded.(proto.Message)
		return ok && proto.Equal(d, m)
	}
}
