package gateway

import "slices"

// What follows are options of Centrifugo that are none here. Whoever brings a
// configuration along learns what became of them; nothing is passed over in
// silence, since a rule that is not applied may open what was closed.

const notOffered = "this option is Centrifugo's and not offered yet"

// Hint says what becomes of an option of Centrifugo that is none here.
func (s *ClientSettings) Hint(key string) string {
	switch key {
	case "allowed_origins":
		return "what Centrifugo calls client.allowed_origins is websocket.allowed_origins here"
	case "presence_update_interval":
		return "this option of Centrifugo is not needed: presence lives as long as the node that holds the connection"
	}
	return hintFor(key, "allowed_delta_types", "channel_position_max_time_lag",
		"insecure_skip_token_signature_verify", "user_id_http_header", "connect_code_to_unidirectional_disconnect")
}

// Hint says what becomes of an option of Centrifugo that is none here.
func (s *ChannelSettings) Hint(key string) string {
	switch key {
	case "private_prefix", "namespace_boundary", "user_boundary", "user_separator":
		return "this option is Centrifugo's; here the prefix of private channels is always $, and namespace, user and next user begin with : # and ,"
	}
	return ""
}

// Hint says what becomes of an option of Centrifugo that is none here.
func (a *Access) Hint(key string) string {
	return hintFor(key, "subscribe_stream_proxy_enabled",
		"subscribe_stream_proxy_name", "subscribe_stream_proxy_bidirectional",
		"subscription_type", "map", "map_clients_presence_channel_prefix", "map_users_presence_channel_prefix",
		"shared_poll", "client_publish_debounce_interval", "batch_max_size", "batch_max_delay", "compaction")
}

func hintFor(key string, foreign ...string) string {
	if slices.Contains(foreign, key) {
		return notOffered
	}
	return ""
}
