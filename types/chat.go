package types

import "gobnode/endpoint"

// Chat is a room to talk in: who has it open is in the room, and everybody there
// hears everybody else. The caller says who it is by the header [ChatName]:
//
//	s, err := types.Chat.Open(endpoint.WithHeader(ctx, types.ChatName, "ann"), client)
//
// It sends lines and receives what happens, first who is there already.
// CloseSend leaves: what was sent before it is said, and then Recv returns
// io.EOF.
const Chat endpoint.StreamCommand[ChatLine, ChatEvent] = "CHAT"

// ChatName is the key of the header with the name of who joins a Chat.
const ChatName = "name"

// MaxChatText is the longest text of a ChatLine, in bytes.
const MaxChatText = 1 << 10

// ChatLine is something to say.
type ChatLine struct{ Text string }

// ChatEvent is something that happened in a Chat.
type ChatEvent struct {
	Kind  string   // ChatHere, ChatCame, ChatSaid or ChatLeft; others may follow, to be ignored
	Name  string   // who came, spoke or left
	Text  string   // what was said: one line, without control characters
	Names []string // who is there already, sorted
}

// The kinds of a ChatEvent.
const (
	ChatHere = "here" // the first one that a newcomer gets: Names
	ChatCame = "came" // Name
	ChatSaid = "said" // Name, Text
	ChatLeft = "left" // Name, for whatever reason
)
