"""An HTTP/1.1 endpoint that costs next to nothing: every invocation ends at once with the same result.

It stands in for the SDK where only the coordinator's own cost is asked for, so that the SDK's processes do not
compete with it for the cores: `python -m bench.canned_endpoint <port>`; its service is `Bench`, its handler `noop`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Final, cast

import httptools
import uvloop

from holdfast.protocol import frames, messages
from holdfast.protocol.messages import MessageType

MANIFEST: Final = json.dumps(
    {
        "protocolMode": "REQUEST_RESPONSE",
        "minProtocolVersion": 5,
        "maxProtocolVersion": 6,
        "services": [{"name": "Bench", "ty": "SERVICE", "handlers": [{"name": "noop"}]}],
    }
).encode()
OUTPUT: Final = messages.OutputCommand(value=messages.Value(content=b'"done"')).SerializeToString()
FRAMES: Final = frames.encode(MessageType.OUTPUT_COMMAND, OUTPUT) + frames.encode(MessageType.END, b"")


def answer(content_type: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (content_type, len(body), body)


class Canned(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"content-type":
            self.content_type = value

    def on_message_complete(self) -> None:
        if self.url.endswith(b"/discover"):
            self.transport.write(answer(b"application/vnd.restate.endpointmanifest.v4+json", MANIFEST))
        else:
            self.transport.write(answer(self.content_type, FRAMES))


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
