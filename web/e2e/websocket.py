"""The client of Python's websockets, playing a script; see websocket.mjs."""

import asyncio
import os
import ssl
import sys

import websockets


def from_hex(text):
    return b"" if text == "-" else bytes.fromhex(text)


def to_hex(data):
    return (data.encode() if isinstance(data, str) else bytes(data)).hex() or "-"


async def parts_of(parts):
    for part in parts:
        yield part


async def receive(socket, box):
    try:
        async for message in socket:
            box.append(("message", message.encode() if isinstance(message, str) else message))
    except websockets.ConnectionClosed:
        pass


class Case:
    async def open(self, protocol):
        url = os.environ["WS_URL"]
        tls = None
        if url.startswith("wss:"):
            tls = ssl.create_default_context(cafile=os.environ["CA_FILE"])
        protocols = None if protocol == "-" else [protocol]
        options = {} if os.environ.get("OPTIONS") != "plain" else {"compression": None}
        self.socket = await websockets.connect(url, subprotocols=protocols, ssl=tls, max_size=None, ping_interval=None, **options)
        self.box = []
        self.reader = asyncio.create_task(receive(self.socket, self.box))
        print("open", self.socket.response_headers.get("Sec-WebSocket-Extensions", "-"), flush=True)

    async def text(self, *parts):
        await self.send([from_hex(part).decode() for part in parts])

    async def binary(self, *parts):
        await self.send([from_hex(part) for part in parts])

    async def send(self, parts):
        await self.socket.send(parts[0] if len(parts) == 1 else parts_of(parts))

    async def ping(self, data):
        self.answer = await self.socket.ping(from_hex(data))

    async def pong(self, data):
        await self.answer
        self.box.append(("pong", from_hex(data)))

    async def raw(self, data):
        self.socket.transport.write(from_hex(data))

    async def half(self):
        self.socket.transport.write_eof()

    async def until(self, data):
        wanted = from_hex(data)
        while not self.reader.done() and not any(wanted in message for _, message in self.box):
            await asyncio.sleep(0.005)

    async def close(self, code, reason):
        if code == "0":  # the library has no close without a code
            await self.raw("888000000000")
        else:
            await self.socket.close(int(code), from_hex(reason).decode())

    async def end(self):
        await self.reader
        for kind, data in self.box:
            print(kind, to_hex(data))
        print("closed", self.socket.close_code, to_hex(self.socket.close_reason or ""))
        print("end", flush=True)


async def main():
    case = Case()
    for line in sys.stdin:
        verb, *args = line.split()
        await getattr(case, verb)(*args)


asyncio.run(main())
