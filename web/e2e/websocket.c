/* The client of libwebsockets, playing a script; see websocket.mjs. It offers no
 * compression: where that was agreed on, its versions 4.1 to 4.3 hand over a
 * message that is not compressed again and again. */
#define _GNU_SOURCE /* memmem */
#include <libwebsockets.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
	unsigned char *data;
	size_t size;
};

/* What has come, in order: messages and pongs. */
struct item {
	const char *kind;
	struct bytes data;
};

/* The one connection that there is at a time. */
static struct {
	struct lws *wsi;
	bool open, closed;
	char extensions[256];
	struct item *box;
	size_t items;
	struct bytes part;   /* of a message that is not complete */
	struct bytes out;    /* a frame to write, behind LWS_PRE bytes */
	int mode;            /* how to write it; -1: there is none */
	int close;           /* the code to close with; -1: stay open */
	struct bytes reason; /* for that close */
	int code;            /* of the server's own close; 1006: there was none */
	struct bytes last;   /* its reason */
} client;

static struct lws_context *context;

static void *must(void *p)
{
	return p ? p : (abort(), p);
}

static void append(struct bytes *to, const void *data, size_t size)
{
	to->data = must(realloc(to->data, to->size + size + 1));
	if (size)
		memcpy(to->data + to->size, data, size);
	to->size += size;
}

static struct bytes from_hex(const char *hex)
{
	struct bytes all = {must(malloc(strlen(hex) / 2 + 1)), 0};
	unsigned int byte;

	for (; sscanf(hex, "%2x", &byte) == 1 && *hex != '-'; hex += 2)
		all.data[all.size++] = (unsigned char)byte;
	return all;
}

static void print(const char *kind, struct bytes data)
{
	printf("%s ", kind);
	for (size_t i = 0; i < data.size; i++)
		printf("%02x", data.data[i]);
	puts(data.size ? "" : "-");
}

/* put takes over data. */
static void put(const char *kind, struct bytes data)
{
	client.box = must(realloc(client.box, (client.items + 1) * sizeof *client.box));
	client.box[client.items++] = (struct item){kind, data};
}

static void received(struct lws *wsi, const void *data, size_t size)
{
	append(&client.part, data, size);
	if (lws_remaining_packet_payload(wsi) || !lws_is_final_fragment(wsi))
		return;
	put("message", client.part);
	client.part = (struct bytes){0};
}

static void closed_by_server(const unsigned char *data, size_t size)
{
	client.code = size < 2 ? 1005 : data[0] << 8 | data[1];
	append(&client.last, data + 2, size < 2 ? 0 : size - 2);
}

/* writable writes what there is to write; what is not 0 has the library close. */
static int writable(struct lws *wsi)
{
	if (client.mode >= 0) {
		int n = lws_write(wsi, client.out.data + LWS_PRE, client.out.size, client.mode);

		client.mode = -1;
		return n < (int)client.out.size ? -1 : 0;
	}
	if (client.close < 0)
		return 0;
	lws_close_reason(wsi, client.close, client.reason.data, client.reason.size);
	return -1;
}

static int event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t size)
{
	struct bytes pong = {0};

	(void)user;
	switch (reason) {
	case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
		printf("# %.*s\n", (int)size, in ? (char *)in : "");
		exit(1);
	case LWS_CALLBACK_CLIENT_FILTER_PRE_ESTABLISH: /* the last to have headers */
		lws_hdr_copy(wsi, client.extensions, sizeof client.extensions, WSI_TOKEN_EXTENSIONS);
		break;
	case LWS_CALLBACK_CLIENT_ESTABLISHED:
		client.open = true;
		break;
	case LWS_CALLBACK_CLIENT_RECEIVE:
		received(wsi, in, size);
		break;
	case LWS_CALLBACK_CLIENT_RECEIVE_PONG:
		append(&pong, in, size);
		put("pong", pong);
		break;
	case LWS_CALLBACK_CLIENT_WRITEABLE:
		return writable(wsi);
	case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
		closed_by_server(in, size);
		break;
	case LWS_CALLBACK_CLIENT_CLOSED:
		client.closed = true;
		break;
	default:
		break;
	}
	return 0;
}

static const struct lws_protocols protocols[] = {{"client", event, 0, 65536, 0, NULL, 0}, {0}};

static void logged(int level, const char *line)
{
	(void)level;
	printf("# %s", line);
}

static void create_context(void)
{
	struct lws_context_creation_info info = {0};

	lws_set_log_level(LLL_ERR | LLL_WARN, logged);
	info.port = CONTEXT_PORT_NO_LISTEN;
	info.protocols = protocols;
	info.options = LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT | LWS_SERVER_OPTION_VALIDATE_UTF8;
	if (strlen(must(getenv("CA_FILE"))))
		info.client_ssl_ca_filepath = getenv("CA_FILE");
	context = must(lws_create_context(&info));
}

static void reset(void)
{
	for (size_t i = 0; i < client.items; i++)
		free(client.box[i].data.data);
	free(client.box);
	free(client.part.data);
	free(client.reason.data);
	free(client.last.data);
	memset(&client, 0, sizeof client);
	client.mode = client.close = -1;
	client.code = 1006;
}

static void open_socket(const char *protocol)
{
	struct lws_client_connect_info to = {0};
	const char *scheme, *rest;
	char url[256], path[256];

	reset();
	snprintf(url, sizeof url, "%s", (char *)must(getenv("WS_URL")));
	if (lws_parse_uri(url, &scheme, &to.address, &to.port, &rest))
		abort();
	snprintf(path, sizeof path, "/%s", rest);
	to.context = context;
	to.ssl_connection = strcmp(scheme, "wss") ? 0 : LCCSCF_USE_SSL;
	to.path = path;
	to.host = to.address;
	to.alpn = "http/1.1";
	to.protocol = strcmp(protocol, "-") ? protocol : NULL;
	to.local_protocol_name = protocols[0].name;
	to.pwsi = &client.wsi;
	lws_client_connect_via_info(&to);
	while (!client.open)
		lws_service(context, 0);
	printf("open %s\n", *client.extensions ? client.extensions : "-");
}

static void write_frame(struct bytes data, int mode)
{
	if (client.closed)
		return;
	client.out = (struct bytes){must(calloc(1, LWS_PRE)), LWS_PRE};
	append(&client.out, data.data, data.size);
	client.out.size = data.size;
	client.mode = mode;
	lws_callback_on_writable(client.wsi);
	while (client.mode >= 0 && !client.closed)
		lws_service(context, 0);
	free(client.out.data);
}

/* send_message sends what is left of the line, a fragment a word. */
static void send_message(int kind)
{
	char *word = strtok(NULL, " \n"), *next;

	for (int mode = kind; word; word = next, mode = LWS_WRITE_CONTINUATION) {
		struct bytes part = from_hex(word);

		next = strtok(NULL, " \n");
		write_frame(part, next ? mode | LWS_WRITE_NO_FIN : mode);
		free(part.data);
	}
}

static bool has(const char *kind, struct bytes wanted)
{
	for (size_t i = 0; i < client.items; i++)
		if (!strcmp(client.box[i].kind, kind) &&
		    memmem(client.box[i].data.data, client.box[i].data.size, wanted.data, wanted.size))
			return true;
	return false;
}

/* until waits for a message with the bytes in it, or for the end. */
static void until(const char *kind, struct bytes wanted)
{
	while (!client.closed && !has(kind, wanted))
		lws_service(context, 0);
	free(wanted.data);
}

/* end prints no code after a close of its own: the library tells nobody whether
 * and how the server answered. */
static void end(void)
{
	while (!client.closed)
		lws_service(context, 0);
	for (size_t i = 0; i < client.items; i++)
		print(client.box[i].kind, client.box[i].data);
	if (client.close >= 0 && client.code == 1006)
		printf("closed ?");
	else
		printf("closed %d", client.code);
	print("", client.last);
	puts("end");
}

int main(void)
{
	char *line = NULL;
	size_t size = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	create_context();
	while (getline(&line, &size, stdin) > 0) {
		const char *verb = strtok(line, " \n");

		if (!strcmp(verb, "open"))
			open_socket(strtok(NULL, " \n"));
		else if (!strcmp(verb, "text"))
			send_message(LWS_WRITE_TEXT);
		else if (!strcmp(verb, "binary"))
			send_message(LWS_WRITE_BINARY);
		else if (!strcmp(verb, "ping"))
			send_message(LWS_WRITE_PING);
		else if (!strcmp(verb, "pong") || !strcmp(verb, "until"))
			until(*verb == 'p' ? "pong" : "message", from_hex(strtok(NULL, " \n")));
		else if (!strcmp(verb, "close")) {
			client.close = atoi(strtok(NULL, " \n"));
			client.reason = from_hex(strtok(NULL, " \n"));
			if (!client.closed)
				lws_callback_on_writable(client.wsi);
		} else if (!strcmp(verb, "end"))
			end();
		else
			return 1;
	}
	return 0;
}
