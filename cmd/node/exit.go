package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"gobnode/endpoint"
	"gobnode/types"
)

// The exit codes, which scripts rely on. helpText says what they mean.
const (
	exitOK          = 0
	exitInternal    = 1
	exitUsage       = 2
	exitConnect     = 3
	exitTimeout     = 4
	exitInterrupted = 5
	exitAnswered    = 64 // plus the endpoint.Code of the peer's error
)

// A failure is the end of the program with another exit code than 0. Its text
// says what failed, why, and what to try.
type failure struct {
	code  int
	text  string
	brief string // text without what to try, if that is of use
}

func (f *failure) Error() string { return f.text }

func usage(format string, args ...any) error {
	return &failure{code: exitUsage, text: fmt.Sprintf(format, args...) + "; node -help tells more"}
}

func cannotPrint(err error) error {
	return &failure{code: exitInternal, text: "cannot write to standard output: " + rootText(err)}
}

func cannotRead(err error) error {
	return &failure{code: exitInternal, text: "cannot read standard input: " + rootText(err)}
}

// A timeoutError is the cause of a context that -timeout ended.
type timeoutError struct{ after time.Duration }

func (e *timeoutError) Error() string { return fmt.Sprintf("not done within -timeout %v", e.after) }

// within returns a context that ends after -timeout.
func (n *node) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if n.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, n.timeout, &timeoutError{n.timeout})
}

// ended is the failure behind the end of ctx, nil while it goes on. doing says
// what was under way.
func ended(ctx context.Context, doing string) error {
	cause := context.Cause(ctx)
	if cause == nil {
		return nil
	}
	if _, ok := errors.AsType[*timeoutError](cause); ok {
		return &failure{code: exitTimeout, text: doing + ": " + cause.Error() + "; try a longer -timeout, 0 for none"}
	}
	return &failure{code: exitInterrupted, text: doing + ": " + cause.Error()}
}

// cannotConnect is the failure of having connected to none of the addresses. ctx
// bounded the connecting.
func (n *node) cannotConnect(ctx context.Context, failed []unanswered) error {
	if f := ended(ctx, "connecting to "+strings.Join(n.addrs, ", ")); f != nil {
		return f
	}
	prefix := ""
	var long, short []string
	for _, u := range failed {
		long, short = append(long, whyNot(u.addr, u.err)), append(short, brief(u.err))
	}
	if len(failed) > 1 {
		prefix = "no node answers: "
	}
	return &failure{code: exitConnect, text: prefix + strings.Join(long, "; "), brief: prefix + strings.Join(short, "; ")}
}

// brief is what went wrong, without what to try, for those who are told again and
// again. The library ends its texts with a question where one helps.
func brief(err error) string {
	if f, ok := errors.AsType[*failure](err); ok && f.brief != "" {
		return f.brief
	}
	text := err.Error()
	if told, ok := asError(err); ok {
		text = told.Message
	}
	what, try, ok := strings.Cut(text, ": is ")
	if ok && strings.Contains(try, "?") {
		return what
	}
	return text
}

// whyNot is the text of err, of connecting to addr, and what to try.
func whyNot(addr string, err error) string {
	text, try := err.Error(), ""
	if e, ok := asError(err); ok {
		text = e.Message
		switch {
		case e.Code == endpoint.FailedPrecondition:
			try = "; try without -tls"
		case e.Code == endpoint.Unauthenticated:
			try = "; -tls-ca names the file with the authority that signed it, -connect a name that it is for"
		case strings.HasSuffix(text, "?"):
			try = " Try: node -listen " + addr + " there"
		}
	}
	return text + try
}

// lost is the failure of a connection that ended too early. err is what reading
// from it, or writing to it, returned.
func lost(ctx context.Context, addr, doing string, err error) error {
	if f := ended(ctx, doing); f != nil {
		return f
	}
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" { // an alert of TLS, as crypto/tls reports it
		return &failure{code: exitConnect, text: doing + ": " + addr + " refused this side's certificate: " + alert.Err.Error() +
			"; try -tls-cert and -tls-key with one that it knows"}
	}
	return &failure{code: exitConnect, text: doing + ": " + whyLost(addr, err) +
		"; what was under way may have run or not; see whether the node there still runs, and connect again"}
}

// whyLost is the text of err, which ended the connection to addr.
func whyLost(addr string, err error) string {
	why := "closed by the peer"
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		why = rootText(err)
	}
	return "lost the connection to " + addr + ": " + why
}

// answered is the failure of a peer that answered with an ERR line.
func (n *node) answered(doing string, e *endpoint.Error) error {
	text := doing + ": " + e.Error()
	switch {
	case e.Code == endpoint.FailedPrecondition && strings.Contains(e.Message, "TLS"):
		text += "; try -tls"
	case e.Code == endpoint.FailedPrecondition && doing == string(types.Chat) && n.chatName == "":
		text += "; try -chat NAME"
	case e.Code == endpoint.Unimplemented:
		text += "; HELP lists what there is"
	case e.Code == endpoint.ResourceExhausted && e.Outcome == endpoint.OutcomeNotRun, e.Code == endpoint.Unavailable:
		text += "; try again later"
	}
	return &failure{code: exitAnswered + int(e.Code), text: text}
}

// rootText is err's text without the operation and the addresses that package
// net, or the file that package os, puts in front.
func rootText(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err
	}
	if path, ok := errors.AsType[*os.PathError](err); ok {
		err = path.Err
	}
	return err.Error()
}

// asError returns the *endpoint.Error inside err.
func asError(err error) (*endpoint.Error, bool) { return errors.AsType[*endpoint.Error](err) }

// allCodes are the codes that an ERR line can carry.
func allCodes() []endpoint.Code {
	var codes []endpoint.Code
	for c := endpoint.OK + 1; c <= endpoint.Unauthenticated; c++ {
		codes = append(codes, c)
	}
	return codes
}
