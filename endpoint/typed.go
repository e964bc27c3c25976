package endpoint

import (
	"bufio"
	"bytes"
	"io"

	"gobnode/internal/gobcodec"

	"github.com/pkg/errors"
)

// typed runs one typed command in line mode. It returns false when the
// connection is to end.
func (c *lineConn) typed(en *entry, inline bool) bool {
	c.grown = true
	c.running = en.name
	v := &invocation{e: c.e, en: en, call: en.unary.newCall(), charge: c.e.newCharge()}
	v.ctx = &callContext{Context: c.ctx, info: Info{Command: en.name, Kind: en.kind, Peer: &c.peer, Logger: c.e.logger()}}
	defer v.ctx.end()
	v.exited = func(answer *Error) {
		c.answer(answer)
		c.linger()
	}
	defer v.charge.release()
	buf := takeMessage()
	defer dropMessage(buf)
	refused, ok := c.readData(v, buf, inline)
	if !ok {
		if refused != nil {
			c.refuse(refused)
		}
		return false
	}
	if refused == nil {
		refused = v.run(func() *Error {
			if inline {
				return v.decodeJSON(*buf)
			}
			return v.decodeGob(*buf)
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

// readData reads the request, whole and no further, into *buf, which is empty.
// A refused request with ok was read to its end all the same.
func (c *lineConn) readData(v *invocation, buf *[]byte, inline bool) (refused *Error, ok bool) {
	if inline {
		line, err := c.b.r.ReadSlice('\n') // whole in the buffer: readLine saw it
		*buf = append(*buf, bytes.TrimRight(line, "\r\n")...)
		return v.charge.hold(leastCharge), err == nil
	}
	if v.call.noRequest() {
		return v.charge.hold(leastCharge), true
	}
	c.t.boundSteps("Progress", c.e.limits.Progress)
	defer c.t.boundReads("", 0)
	err := readMessage(c.b.r, buf, &c.e.limits, &v.charge)
	var told *Error
	switch {
	case err == nil:
		return nil, true
	case errors.As(err, &told):
		known := told.Outcome == OutcomeNotRun
		told.Outcome = OutcomeNotRun // nothing of it has run either way
		return told, known
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return refusal(InvalidArgument, "the connection ended within the data of %s", c.running), false
	}
	return nil, false
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
var beingRead = newBudget(-1)

// ReadGob reads one gob value from r, no byte further, into *v: what
// encoding/gob would decode, without its risks on hostile bytes. It obeys
// limits.Message and limits.Decoded, and while it reads and decodes, all calls of
// ReadGob in the process together hold at most limits.InFlight.
//
// An empty struct is no data: nothing is read. A T that gob cannot hold is
// invalid_argument, and nothing is read either.
//
// If r ends before the first byte, the error is io.EOF. If it is an *Error with
// the outcome not_run, the gob was read whole and refused, and what follows it
// can be read. After any other error r stands somewhere inside the gob.
func ReadGob[T any](r *bufio.Reader, v *T, limits Limits) error {
	codec, err := gobcodec.For[T]()
	if err != nil {
		return errors.WithStack(&Error{Code: InvalidArgument, Message: err.Error(), cause: err})
	}
	if codec.Empty() {
		return nil
	}
	limits = limits.withDefaults()
	c := charge{from: beingRead, limit: int64(limits.InFlight), least: leastCharge}
	defer c.release()
	buf := takeMessage()
	defer dropMessage(buf)
	if err := readMessage(r, buf, &limits, &c); err != nil {
		return errors.WithStack(err)
	}
	refused := c.decode(*buf, limits.gob(), func(src []byte, limits gobcodec.Limits) (int, error) {
		return codec.Decode(src, v, limits)
	})
	if refused != nil {
		return errors.WithStack(refused)
	}
	return nil
}

// readMessage reads one gob into *buf, which is empty, and holds its bytes
// before they are there. Its error is an *Error with the outcome not_run if the
// gob was read to its end.
func readMessage(r *bufio.Reader, buf *[]byte, limits *Limits, c *charge) error {
	data, err := gobcodec.ReadMessageInto(r, *buf, limits.gob(), func(dst []byte, n int) ([]byte, error) {
		if err := c.room(buf, dst, n); err != nil {
			dropMessage(&dst) // the rest is not kept as it comes
			*buf = nil
			c.release()
			return nil, err
		}
		return *buf, nil
	})
	if err == nil {
		*buf = data
		return nil
	}
	var bad *gobcodec.Error
	var bound *gobcodec.BoundError
	if !errors.As(err, &bad) && !errors.As(err, &bound) {
		return err // of r, or of hold
	}
	refused := badData(err)
	if errors.Is(err, gobcodec.ErrEndUnknown) {
		refused.Outcome = OutcomeUnknown
	}
	return refused
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
