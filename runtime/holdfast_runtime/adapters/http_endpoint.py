"""Endpoints behind HTTP: HTTP/1.1, cleartext HTTP/2 with prior knowledge, https with the version ALPN chooses.

The address says which: `http_version` HTTP/1.1 is what `use_http_11` registered; otherwise cleartext means
HTTP/2 at once, and TLS offers both (service protocol §5.3, http-api §3.1). Statuses come back as they are;
only a missing answer raises.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple, cast
from urllib.parse import unquote, urlsplit

from holdfast_runtime.adapters.http1 import IDLE_LIMIT, Http1Connection, Http1Pool
from holdfast_runtime.adapters.http2 import Http2Connection, Http2Pool
from holdfast_runtime.adapters.http_exchange import (
    DEFAULT_LIMITS,
    ExchangeFailed,
    Limits,
    Outgoing,
    ProtocolChanged,
    TimedOut,
    Unconnected,
    checked_target,
    describe,
    merged_headers,
)
from holdfast_runtime.ports.endpoint import (
    Address,
    EndpointFailure,
    EndpointRequest,
    EndpointResponse,
    HttpAddress,
    HttpVersion,
)
from holdfast_runtime.ports.forbidden import is_forbidden

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_USER_AGENT: Final = ("user-agent", "holdfast/1")

# A handler may work for minutes and say nothing. What stands between forgets a silent connection (NAT gateways of AWS after 350 s) and
# tells nobody: the answer would be lost, and missed only when the abort timeout is over.
PROBE_AFTER_S: Final = 60
PROBE_EVERY_S: Final = 15
PROBES: Final = 4  # unanswered, and the connection is broken


class Target(NamedTuple):
    """A deployment's URI taken apart. `shown` is the URI without user and password, for messages."""

    scheme: str
    host: str
    port: int
    authority: str
    base_path: str  # without the final slash
    authorization: str | None
    shown: str


@lru_cache(maxsize=4096)
def parse_uri(uri: str) -> Target:
    """Takes an absolute http or https URI apart. ExchangeFailed says what is wrong with another."""
    try:
        parts = urlsplit(uri)
        port = parts.port
        host = parts.hostname
    except ValueError as exc:
        raise ExchangeFailed(f"the URI is not valid: {exc}", "RT0006") from exc
    if parts.scheme not in _DEFAULT_PORTS or not host:
        raise ExchangeFailed("the URI must be absolute and start with http:// or https://", "RT0006")
    if parts.query or parts.fragment:
        raise ExchangeFailed("the URI must have no query and no fragment, only a base path", "RT0006")
    bracketed = f"[{host}]" if ":" in host else host
    authority = bracketed if port in (None, _DEFAULT_PORTS[parts.scheme]) else f"{bracketed}:{port}"
    base_path = parts.path.rstrip("/")
    checked_target(base_path or "/")
    authorization = None
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(user.encode()).decode()
    shown = f"{parts.scheme}://{authority}{base_path}/"
    return Target(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], authority, base_path, authorization, shown)


def keep_open(transport: asyncio.BaseTransport) -> None:
    """Have TCP ask, as far as the system can, whether the peer is still there."""
    opened = transport.get_extra_info("socket")
    if opened is None:
        return
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", PROBE_AFTER_S), ("TCP_KEEPINTVL", PROBE_EVERY_S), ("TCP_KEEPCNT", PROBES)):
        if hasattr(socket, name):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Origin:
    """The connections to one (scheme, host, port) for one wanted version.

    `mode` is what is spoken, None until TLS has said. refuses: IP addresses to which nothing is asked, wherever the host leads by now.
    """

    def __init__(
        self,
        target: Target,
        version: HttpVersion,
        tls: ssl.SSLContext | None,
        *,
        idle_limit: int = IDLE_LIMIT,
        limits: Limits = DEFAULT_LIMITS,
        resend: bool = True,
        refuses: Callable[[str], bool] | None = None,
    ) -> None:
        self._target = target
        self._refuses = refuses
        self._tls = tls
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._first = asyncio.Lock()
        self.h1 = Http1Pool(self._connect_h1, idle_limit=idle_limit, limits=limits, resend=resend)
        self.h2 = Http2Pool(self._connect_h2, limits=limits)
        self.mode: HttpVersion | None = None if tls is not None and version is HttpVersion.HTTP_2 else version

    async def exchange(self, request: Outgoing, *, timeout_s: float) -> EndpointResponse:
        deadline = self._loop.time() + timeout_s
        for _ in range(3):
            if self.mode is HttpVersion.HTTP_1_1:
                pool: Http1Pool | Http2Pool = self.h1
            elif self.mode is HttpVersion.HTTP_2:
                pool = self.h2
            else:
                await self._find_mode(deadline)
                continue
            try:
                return await pool.exchange(request, timeout_s=max(0.0, deadline - self._loop.time()))
            except ProtocolChanged:
                self.mode = None
        raise ExchangeFailed("the peer negotiates another HTTP version with each connection", "RT0012")

    def close(self) -> None:
        self.h1.close()
        self.h2.close()

    async def _find_mode(self, deadline: float) -> None:
        """The first TLS connection tells; it is kept for use. Concurrent first requests wait for it."""
        try:
            async with asyncio.timeout_at(deadline), self._first:
                if self.mode is not None:
                    return
                connection = await self._connect(deadline)
        except TimeoutError:
            raise TimedOut() from None
        if isinstance(connection, Http2Connection):
            self.mode = HttpVersion.HTTP_2
            self.h2.adopt(connection)
        else:
            self.mode = HttpVersion.HTTP_1_1
            self.h1.adopt(connection)

    async def _connect_h1(self, deadline: float) -> Http1Connection:
        connection = await self._connect(deadline)
        if isinstance(connection, Http1Connection):
            return connection
        connection.close()
        raise ProtocolChanged

    async def _connect_h2(self, deadline: float) -> Http2Connection:
        connection = await self._connect(deadline)
        if isinstance(connection, Http2Connection):
            return connection
        connection.close()
        raise ProtocolChanged

    async def _connect(self, deadline: float) -> Http1Connection | Http2Connection:
        """A new connection, ready for an exchange, or ExchangeFailed."""
        target = self._target
        limit = min(deadline, self._loop.time() + self._limits.connect_timeout_s)
        try:
            async with asyncio.timeout_at(limit):
                transport, protocol = await self._loop.create_connection(
                    self._protocol,
                    target.host,
                    target.port,
                    ssl=self._tls,
                    server_hostname=target.host if self._tls is not None else None,
                )
                self._check_reached(transport)
                keep_open(transport)
                connection = protocol.chosen if isinstance(protocol, _ByAlpn) else protocol
                if isinstance(connection, Http2Connection):
                    await self._wait_ready(connection)
                return connection
        except TimeoutError as exc:
            if isinstance(exc, OSError) and exc.errno is not None:  # ETIMEDOUT of the system
                raise Unconnected(f"connect error: {describe(exc)}") from exc
            raise Unconnected("connect error: no connection in time; is the address reachable from here?") from None
        except (OSError, ValueError) as exc:  # refused, unreachable, unknown name, failed TLS handshake; ValueError: what cannot be a name
            raise Unconnected(f"connect error: {describe(exc)}") from exc

    def _check_reached(self, transport: asyncio.BaseTransport) -> None:
        """Asked of each connection before it is used: a name may lead elsewhere than when it was registered."""
        address = transport.get_extra_info("peername")[0]
        if self._refuses is not None and self._refuses(address):
            cast(asyncio.Transport, transport).abort()
            led = f"{self._target.host} leads to {address}, a link-local or metadata address, where no handlers run"
            raise ExchangeFailed(f"{led}; correct the name or the URI", "RT0006")

    async def _wait_ready(self, connection: Http2Connection) -> None:
        try:
            await asyncio.shield(connection.ready)
        except BaseException:
            connection.close()
            raise

    def _protocol(self) -> Http1Connection | Http2Connection | _ByAlpn:
        if self._tls is not None and self.mode is not HttpVersion.HTTP_1_1:
            return _ByAlpn(self._new_h1, self._new_h2)
        return self._new_h1() if self.mode is HttpVersion.HTTP_1_1 else self._new_h2()

    def _new_h1(self) -> Http1Connection:
        return Http1Connection(self.h1.forget, self._limits)

    def _new_h2(self) -> Http2Connection:
        return Http2Connection(self.h2.forget, self.h2.room, self._limits)


class _ByAlpn(asyncio.Protocol):
    """Hands the TLS connection to the protocol that was negotiated."""

    chosen: Http1Connection | Http2Connection

    def __init__(self, h1: Callable[[], Http1Connection], h2: Callable[[], Http2Connection]) -> None:
        self._h1 = h1
        self._h2 = h2

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        self.chosen = self._h2() if tls.selected_alpn_protocol() == "h2" else self._h1()
        transport.set_protocol(self.chosen)
        self.chosen.connection_made(transport)


class HttpEndpoint:
    """`Endpoint` for HttpAddress.

    `tls` makes the context of https origins (default: the system's trusted authorities). refuses: see `Origin`.
    """

    def __init__(
        self,
        *,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        limits: Limits = DEFAULT_LIMITS,
        refuses: Callable[[str], bool] = is_forbidden,
    ) -> None:
        self._tls = tls
        self._limits = limits
        self._refuses = refuses
        self._origins: dict[tuple[str, str, int, HttpVersion], Origin] = {}

    async def request(self, address: Address, request: EndpointRequest, *, timeout_s: float) -> EndpointResponse:
        assert isinstance(address, HttpAddress)
        shown = "the endpoint"
        try:
            target = parse_uri(address.uri)
            shown = f"'{target.shown}'"
            outgoing = _outgoing(target, address, request)
            return await self._origin(target, address.http_version).exchange(outgoing, timeout_s=timeout_s)
        except ExchangeFailed as failed:
            reason = failed.within(timeout_s) if isinstance(failed, TimedOut) else failed.reason
            raise EndpointFailure(f"error when calling {shown}: {reason}", error_code=failed.error_code) from failed

    async def close(self) -> None:
        for origin in self._origins.values():
            origin.close()
        self._origins.clear()

    def _origin(self, target: Target, version: HttpVersion) -> Origin:
        key = (target.scheme, target.host, target.port, version)
        origin = self._origins.get(key)
        if origin is None:
            context = self._context(target, version)
            origin = self._origins[key] = Origin(target, version, context, limits=self._limits, refuses=self._refuses)
        return origin

    def _context(self, target: Target, version: HttpVersion) -> ssl.SSLContext | None:
        if target.scheme != "https":
            return None
        context = self._tls()
        context.set_alpn_protocols(["http/1.1"] if version is HttpVersion.HTTP_1_1 else ["h2", "http/1.1"])
        return context


def _outgoing(target: Target, address: HttpAddress, request: EndpointRequest) -> Outgoing:
    """The caller's headers win over the deployment's: content-type and identity are not for users to change."""
    headers = merged_headers(address.additional_headers, request.headers)
    names = {name for name, _ in headers}
    if target.authorization is not None and "authorization" not in names:
        headers.append(("authorization", target.authorization))
    if "user-agent" not in names:
        headers.append(_USER_AGENT)
    authority = target.authority
    if "host" in names:
        authority = dict(headers)["host"]
    path = checked_target(target.base_path + request.path)
    return Outgoing(target.scheme, request.method, authority, path, headers, request.body)
