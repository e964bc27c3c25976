package handlers

// The bounds of a Chat.
const (
	MaxMembers   = maxMembers
	MaxUnheard   = maxUnheard
	ChatPace     = chatPace
	ChatBurst    = chatBurst
	FarewellTime = farewellTime
)
