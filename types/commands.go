package types

// The names of the raw commands in package handlers.
const (
	StringCommand = "STRING"
	GobCommand    = "GOB"
	EchoCommand   = "ECHO"
	PingCommand   = "PING"
	HelpCommand   = "HELP"
)
