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
	v := &invocation{e: c.e, en: en, call: en.unary.newCall(), charge: c.e.newCharge()}
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
	if inline {
		line, err := c.b.r.ReadSlice('\n') // whole in the buffer: readLine saw it
		return append(dst, bytes.TrimRight(line, "\r\n")...), v.charge.hold(leastCharge), err == nil
	}
	if v.call.noRequest() {
		return dst, v.charge.hold(leastCharge), true
	}
	c.t.boundSteps("Progress", c.e.limits.Progress)
	defer c.t.boundReads("", 0)
	data, err := readMessage(c.b.r, dst, &c.e.limits, &v.charge)
	var told *Error
	switch {
	case err == nil:
		return data, nil, true
	case errors.As(err, &told):
		known := told.Outcome == OutcomeNotRun
		told.Outcome = OutcomeNotRun // nothing of it has run either way
		return data, told, known
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return data, refusal(InvalidArgument, "the connection ended within the data of %s", c.running), false
	}
	return data, nil, false
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

// beingRead is what all calls of ReadGob hold together.
var beingRead allowance

// ReadGob reads one gob value from r, no byte further, into *v: what
// encoding/gob would decode, without its risks on hostile bytes. It obeys
// limits.Message and limits.Decoded, and while it reads and decodes, all calls of
// ReadGob in the process together hold at most limits.InFlight.
//
// If r ends before the first byte, the error is io.EOF. If it is an *Error with
// the outcome not_run, the gob was read whole and refused, and what follows it
// can be read. After any other error r stands somewhere inside the gob.
func ReadGob[T any](r *bufio.Reader, v *T, limits Limits) error {
	codec, err := gobcodec.For[T]()
	if err != nil {
		return errors.WithStack(&Error{Code: InvalidArgument, Message: err.Error(), cause: err})
	}
	limits = limits.withDefaults()
	c := charge{from: &beingRead, limit: int64(limits.InFlight)}
	defer c.release()
	buf := takeMessage()
	defer dropMessage(buf)
	data, err := readMessage(r, (*buf)[:0], &limits, &c)
	*buf = data
	if err != nil {
		return errors.WithStack(err)
	}
	refused := c.decode(data, limits.gob(), func(src []byte, limits gobcodec.Limits) (int, error) {
		return codec.Decode(src, v, limits)
	})
	if refused != nil {
		return errors.WithStack(refused)
	}
	return nil
}

// readMessage reads one gob behind dst, holding its bytes before they are
// there. Its error is an *Error with the outcome not_run if the gob was read to
// its end.
func readMessage(r *bufio.Reader, dst []byte, limits *Limits, c *charge) ([]byte, error) {
	data, err := gobcodec.ReadMessageCharged(r, dst, limits.gob(), func(n int) error {
		if err := c.hold(int64(n)); err != nil {
			c.release() // the rest is dropped as it comes
			return err
		}
		return nil
	})
	if err == nil {
		return data, nil
	}
	var bad *gobcodec.Error
	var bound *gobcodec.BoundError
	if !errors.As(err, &bad) && !errors.As(err, &bound) {
		return data, err // of r, or of hold
	}
	refused := badData(err)
	if errors.Is(err, gobcodec.ErrEndUnknown) {
		refused.Outcome = OutcomeUnknown
	}
	return data, refused
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
