package endpoint_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"gobnode/endpoint"

	pkgerrors "github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// codes are gRPC's, number by number
// (https://grpc.io/docs/guides/status-codes/).
var codes = []struct {
	code endpoint.Code
	name string
}{
	{endpoint.OK, "ok"},
	{endpoint.Canceled, "canceled"},
	{endpoint.Unknown, "unknown"},
	{endpoint.InvalidArgument, "invalid_argument"},
	{endpoint.DeadlineExceeded, "deadline_exceeded"},
	{endpoint.NotFound, "not_found"},
	{endpoint.AlreadyExists, "already_exists"},
	{endpoint.PermissionDenied, "permission_denied"},
	{endpoint.ResourceExhausted, "resource_exhausted"},
	{endpoint.FailedPrecondition, "failed_precondition"},
	{endpoint.Aborted, "aborted"},
	{endpoint.OutOfRange, "out_of_range"},
	{endpoint.Unimplemented, "unimplemented"},
	{endpoint.Internal, "internal"},
	{endpoint.Unavailable, "unavailable"},
	{endpoint.DataLoss, "data_loss"},
	{endpoint.Unauthenticated, "unauthenticated"},
}

func TestCodes(t *testing.T) {
	for i, tt := range codes {
		assert.Equal(t, endpoint.Code(i), tt.code)
		assert.Equal(t, tt.name, tt.code.String())
		assert.Equal(t, tt.name, tt.code.Error())
	}
	assert.Equal(t, "code_17", endpoint.Code(len(codes)).String())
	assert.Equal(t, "code_255", endpoint.Code(255).String())
	for i, name := range []string{"unknown", "not_run", "failed", "outcome_3"} {
		assert.Equal(t, name, endpoint.Outcome(i).String())
	}
	assert.Equal(t, endpoint.OutcomeUnknown, endpoint.Outcome(0))
	assert.Equal(t, endpoint.OutcomeNotRun, endpoint.Outcome(1))
	assert.Equal(t, endpoint.OutcomeFailed, endpoint.Outcome(2))
}

// wrappings are ways in which errors come to be inside of others.
var wrappings = map[string]func(error) error{
	"bare":            func(err error) error { return err },
	"WithStack":       pkgerrors.WithStack,
	"Wrap":            func(err error) error { return pkgerrors.Wrap(err, "outer") },
	"WithMessage":     func(err error) error { return pkgerrors.WithMessage(err, "outer") },
	"twice":           func(err error) error { return pkgerrors.Wrap(pkgerrors.WithStack(err), "outer") },
	"fmt.Errorf":      func(err error) error { return fmt.Errorf("outer: %w", err) },
	"errors.Join":     func(err error) error { return errors.Join(io.ErrClosedPipe, err) },
	"endpoint.Errorf": func(err error) error { return endpoint.Errorf(endpoint.CodeOf(err), "outer: %w", err) },
}

func TestCodeOf(t *testing.T) {
	var nobody *endpoint.Error
	for i, tt := range []struct {
		err     error
		code    endpoint.Code
		outcome endpoint.Outcome
	}{
		{endpoint.Errorf(endpoint.NotFound, "x"), endpoint.NotFound, endpoint.OutcomeUnknown},
		{&endpoint.Error{Code: endpoint.Aborted, Outcome: endpoint.OutcomeFailed}, endpoint.Aborted, endpoint.OutcomeFailed},
		{&endpoint.Error{Code: endpoint.Unavailable, Outcome: endpoint.OutcomeNotRun}, endpoint.Unavailable, endpoint.OutcomeNotRun},
		{&endpoint.Error{}, endpoint.Unknown, endpoint.OutcomeUnknown},
		{&endpoint.Error{Code: 200}, endpoint.Unknown, endpoint.OutcomeUnknown},
		{endpoint.OK, endpoint.Unknown, endpoint.OutcomeUnknown},
		{endpoint.DataLoss, endpoint.DataLoss, endpoint.OutcomeUnknown},
		{endpoint.Code(200), endpoint.Unknown, endpoint.OutcomeUnknown},
		{context.DeadlineExceeded, endpoint.DeadlineExceeded, endpoint.OutcomeUnknown},
		{context.Canceled, endpoint.Canceled, endpoint.OutcomeUnknown},
		{os.ErrDeadlineExceeded, endpoint.DeadlineExceeded, endpoint.OutcomeUnknown},
		{io.EOF, endpoint.Unknown, endpoint.OutcomeUnknown},
		{errors.New("x"), endpoint.Unknown, endpoint.OutcomeUnknown},
	} {
		for name, wrap := range wrappings {
			err := wrap(tt.err)
			assert.Equal(t, tt.code, endpoint.CodeOf(err), "%d %s", i, name)
			if name != "endpoint.Errorf" { // which makes an outcome of its own, unknown
				assert.Equal(t, tt.outcome, endpoint.OutcomeOf(err), "%d %s", i, name)
			}
			assert.ErrorIs(t, err, tt.err, "%d %s", i, name)
		}
	}
	assert.Equal(t, endpoint.OK, endpoint.CodeOf(nil))
	assert.Equal(t, endpoint.OutcomeUnknown, endpoint.OutcomeOf(nil))
	assert.Equal(t, endpoint.Unknown, endpoint.CodeOf(nobody))
	assert.Equal(t, endpoint.OutcomeUnknown, endpoint.OutcomeOf(nobody))
}

func TestErrorIs(t *testing.T) {
	for _, tt := range codes[1:] {
		for name, wrap := range wrappings {
			err := wrap(&endpoint.Error{Code: tt.code, Message: "m"})
			for _, other := range codes {
				assert.Equal(t, other.code == tt.code, errors.Is(err, other.code), "%s %s %s", tt.name, name, other.name)
			}
			assert.Equal(t, tt.code == endpoint.DeadlineExceeded, errors.Is(err, context.DeadlineExceeded))
			assert.Equal(t, tt.code == endpoint.Canceled, errors.Is(err, context.Canceled))
			assert.NotErrorIs(t, err, io.EOF)
			var e *endpoint.Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, tt.code, e.Code)
		}
	}
}

func TestErrorText(t *testing.T) {
	for want, e := range map[string]*endpoint.Error{
		"no such order (not_found, failed)":      {Code: endpoint.NotFound, Outcome: endpoint.OutcomeFailed, Message: "no such order"},
		"GET: no such order (not_found, failed)": {Code: endpoint.NotFound, Outcome: endpoint.OutcomeFailed, Message: "no such order", Command: "GET"},
		" (ok, unknown)":                         {},
	} {
		assert.Equal(t, want, e.Error())
	}
}

func TestErrorf(t *testing.T) {
	err := endpoint.Errorf(endpoint.NotFound, "order %d of %q", 7, "me")
	var e *endpoint.Error
	require.ErrorAs(t, err, &e)
	assert.Equal(t, endpoint.Error{Code: endpoint.NotFound, Message: `order 7 of "me"`}, *e)
	assert.NoError(t, errors.Unwrap(err))

	err = endpoint.Errorf(endpoint.Internal, "reading: %w", io.ErrUnexpectedEOF)
	assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.ErrorIs(t, err, endpoint.Internal)
	assert.Equal(t, "reading: unexpected EOF (internal, unknown)", err.Error())

	err = endpoint.Errorf(endpoint.Internal, "%w and %w", io.ErrUnexpectedEOF, io.ErrNoProgress)
	assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.ErrorIs(t, err, io.ErrNoProgress)
}

func TestErrLine(t *testing.T) {
	for _, code := range codes[1:] {
		for _, outcome := range []endpoint.Outcome{endpoint.OutcomeUnknown, endpoint.OutcomeNotRun, endpoint.OutcomeFailed} {
			e := &endpoint.Error{Code: code.code, Outcome: outcome, Message: " two  words "}
			line := string(endpoint.AppendErrLine([]byte("before"), e))
			assert.Equal(t, "beforeERR "+code.name+" "+outcome.String()+"  two  words \n", line)
			for _, end := range []string{"", "\n", "\r\n"} {
				back, ok := endpoint.ParseErrLine(strings.TrimSuffix(line[len("before"):], "\n") + end)
				require.True(t, ok)
				assert.Equal(t, e, back)
			}
		}
	}
	for _, line := range []string{
		"", "ERR", "ERR ", "ERR not_found", "ERR not_found not_found x", "ERR ok failed x", "ERR NOT_FOUND failed x", "err not_found failed x",
		"ERR  not_found failed x", "ERR code_77 failed x", "ERR not_found outcome_3 x", "ERROR not_found failed x", " ERR not_found failed x", "OK",
	} {
		_, ok := endpoint.ParseErrLine(line)
		assert.False(t, ok, "%q", line)
	}
	// A text may be missing.
	for _, line := range []string{"ERR not_found failed", "ERR not_found failed "} {
		e, ok := endpoint.ParseErrLine(line)
		require.True(t, ok, "%q", line)
		assert.Equal(t, endpoint.Error{Code: endpoint.NotFound, Outcome: endpoint.OutcomeFailed}, *e)
	}
}

// TestErrLineCut: texts end at 1 KiB, between letters.
func TestErrLineCut(t *testing.T) {
	for _, letter := range []string{"a", "é", "世", "🐁", "\xff", "a\x00", "é\n世"} {
		for shift := range 5 {
			text := strings.Repeat("x", shift) + strings.Repeat(letter, 2000)
			line := endpoint.AppendErrLine(nil, &endpoint.Error{Code: endpoint.Internal, Message: text})
			got := strings.TrimSuffix(strings.TrimPrefix(string(line), "ERR internal unknown "), "\n")
			assert.LessOrEqual(t, len(got), 1024, "%q", letter)
			assert.Greater(t, len(got), 1024-utf8.UTFMax)
			assert.True(t, utf8.ValidString(got), "%q", letter)
			assert.NotContains(t, got, "\ufffd")
			assert.NotContains(t, got, "\n")
		}
	}
}
