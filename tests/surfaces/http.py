"""A bare HTTP/1.1 client: paths and headers go out exactly as given, nothing is normalised."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """Header names are lower case; repeated headers are joined with a comma."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Http:
    """`base` is the URL of a running server, ours or another."""

    base: str

    async def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
        url = urlsplit(self.base)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        try:
            writer.write(head(method, path, {"host": url.netloc, "connection": "close", **(headers or {})}, body))
            writer.write(body or b"")
            await writer.drain()
            return parse(await reader.read(), method)
        finally:
            writer.close()

    async def post(self, path: str, document: Any, headers: Mapping[str, str] | None = None) -> Answer:
        sent = {"content-type": "application/json", **(headers or {})}
        return await self.request("POST", path, sent, json.dumps(document).encode())

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return await self.request("GET", path, headers)


def head(method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body is not None and "transfer-encoding" not in headers and "content-length" not in headers:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def parse(raw: bytes, method: str = "GET") -> Answer:
    top, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "content-length" in headers and method != "HEAD":
        assert len(body) == int(headers["content-length"]), (headers, body)
    return Answer(int(first.split()[1]), headers, body)
