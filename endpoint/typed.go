package endpoint

import (
	"bufio"
	"bytes"
	"io"
	"sync"

	"gobnode/internal/gobcodec"

	"github.com/pkg/errors"
)

// messages are the buffers that messages are read into and made in.
var messages = sync.Pool{New: func() any { return new([]byte) }}

// keptMessage is the largest buffer that is kept, in bytes. Smaller bounds were
// measured to throw the gain away for large values.
const keptMessage = 1 << 20

func takeMessage() *[]byte { return messages.Get().(*[]byte) }

func dropMessage(b *[]byte) {
	if cap(*b) <= keptMessage {
		*b = (*b)[:0]
		messages.Put(b)
	}
}

// typed runs one typed command in line mode. It returns false when the
// connection is to end.
func (c *lineConn) typed(en *entry, inline bool) bool {
	c.grown = true
	c.running = en.name
	v := &invocation{e: c.e, en: en, call: en.unary.newCall(), charge: charge{from: &c.e.inFlight}}
	v.ctx = &callContext{Context: c.ctx, info: Info{Command: en.name, Kind: en.kind, Peer: &c.peer, Logger: c.e.logger()}}
	defer v.ctx.end()
	v.exited = func(answer *Error) { c.answer(answer) }
	defer v.charge.release()
	buf := takeMessage()
	defer dropMessage(buf)
	data, refused, ok := c.readData(v, (*buf)[:0], inline)
	*buf = data
	if !ok {
		if refused != nil {
			c.refuse(refused)
		}
		return false
	}
	if refused == nil {
		refused = v.run(func() *Error {
			if inline {
				return v.decodeJSON(data)
			}
			return v.decodeGob(data)
		})
	}
	if refused == errAborted {
		return false
	}
	if refused != nil {
		return c.answer(refused)
	}
	return c.sendReply(v, buf, inline)
}

// readData reads the request, whole and no further, into dst. A refused request
// with ok was read to its end all the same.
func (c *lineConn) readData(v *invocation, dst []byte, inline bool) (data []byte, refused *Error, ok bool) {
	if err := v.charge.hold(leastCharge); err != nil && !inline && v.call.noRequest() {
		return dst, err, true
	} else if err != nil {
		refused = err
	}
	if inline {
		line, err := c.b.r.ReadSlice('\n') // whole in the buffer: readLine saw it
		return append(dst, bytes.TrimRight(line, "\r\n")...), refused, err == nil
	}
	if v.call.noRequest() {
		return dst, refused, true
	}
	c.t.boundSteps("Progress", c.e.limits.Progress)
	defer c.t.boundReads("", 0)
	data, err := gobcodec.ReadMessageCharged(c.b.r, dst, c.e.limits.gob(), func(n int) error {
		if refused == nil {
			refused = v.charge.hold(int64(n))
		}
		if refused != nil {
			return refused
		}
		return nil
	})
	switch {
	case err == nil:
		return data, refused, true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return data, refusal(InvalidArgument, "the connection ended within the data of %s", c.running), false
	case gone(err), c.t.broken.Load() != nil:
		return data, nil, false
	}
	var told *Error
	if !errors.As(err, &told) {
		told = badData(err)
	}
	return data, told, !errors.Is(err, gobcodec.ErrEndUnknown)
}

// sendReply sends OK and the reply.
func (c *lineConn) sendReply(v *invocation, buf *[]byte, inline bool) bool {
	var out []byte
	var refused *Error
	if inline {
		out, refused = v.reply(append((*buf)[:0], "OK "...), v.call.appendReplyJSON)
		out = append(out, '\n')
	} else {
		out, refused = v.reply(append((*buf)[:0], "OK\n"...), v.call.appendReply)
	}
	*buf = out
	if refused != nil {
		return c.answer(refused)
	}
	_, err := c.stream.Write(out)
	return err == nil
}

// answer sends the ERR line for a command after which the connection goes on.
func (c *lineConn) answer(e *Error) bool {
	buf := takeMessage()
	defer dropMessage(buf)
	*buf = appendErrLine((*buf)[:0], e)
	_, err := c.stream.Write(*buf)
	return err == nil
}

// ReadGob reads one gob value from r, no byte further, into *v, under
// limits.Message and limits.Decoded: what encoding/gob would decode, without
// its risks on hostile bytes. r ends before the first byte: io.EOF. Any other
// error leaves r somewhere in the data unless it is an *Error with the outcome
// not_run: then the gob was read whole and refused.
func ReadGob[T any](r *bufio.Reader, v *T, limits Limits) error {
	codec, err := gobcodec.For[T]()
	if err != nil {
		return errors.WithStack(badData(err))
	}
	limits = limits.withDefaults()
	buf := takeMessage()
	defer dropMessage(buf)
	data, err := gobcodec.ReadMessage(r, (*buf)[:0], limits.gob())
	*buf = data
	if err != nil {
		return errors.WithStack(err)
	}
	if _, err := codec.Decode(data, v, limits.gob()); err != nil {
		return errors.WithStack(badData(err))
	}
	return nil
}

// WriteGob writes *v to w as one self-contained gob, byte for byte what a new
// encoding/gob Encoder writes (the order of map entries aside), in one Write.
func WriteGob[T any](w io.Writer, v *T) error {
	codec, err := gobcodec.For[T]()
	if err != nil {
		return errors.WithStack(badData(err))
	}
	buf := takeMessage()
	defer dropMessage(buf)
	if *buf, err = codec.Append((*buf)[:0], v); err != nil {
		return errors.WithStack(badData(err))
	}
	_, err = w.Write(*buf)
	return errors.WithStack(err)
}
