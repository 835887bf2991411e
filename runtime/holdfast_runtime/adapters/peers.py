"""Requests between coordinator processes over kept-open connections, one per pair and direction (storage design §8).

- Many requests share a connection; a reply comes when it is ready, in any order.
- A connection is given up when nothing came for `dead_after_s`, though both ends ping: a peer that was paused, or a network that
  swallows packets, is noticed although the connection stays open. Every request under way then counts as lost.
- Delivery is at most once per call: a request is never sent again here, the caller decides (see `coordinator.node`).
- A request whose caller has gone is cancelled at the other end: nobody waits there for the end of an invocation on behalf of nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from holdfast_runtime.adapters.peer_link import NONCE_BYTES, Kind, Link, LinkBroken
from holdfast_runtime.engine.operations import decode, encode
from holdfast_runtime.ports.peers import PeerUnavailable
from holdfast_runtime.ports.store import Registry
from holdfast_runtime.ports.system import Entropy

log = logging.getLogger("holdfast.peers")

PING_S: Final = 2.0
DEAD_AFTER_S: Final = 8.0  # as long as a member whose counter does not move is believed alive
CONNECT_TIMEOUT_S: Final = 2.0  # within a private network; a process that does not answer by then is asked again later
REGISTRY_DOCUMENT: Final = "peers"  # in the registry
SECRET_BYTES: Final = 32

_LOOPBACK: Final = ("127.", "[::1]", "localhost:")
_ELSEWHERE: Final = "; if it runs on another machine, start it with `--peers HOST:PORT` of an address that others can reach"

Request = dict[str, Any]
Serve = Callable[[Request], Awaitable[Request]]


async def cluster_secret(registry: Registry, entropy: Entropy) -> bytes:
    """What proves that a process belongs to this store: whoever may read the table may join.

    Written by the first process that needs it; of several at once one wins and the others read its. Raises StoreUnavailable.
    """
    while True:
        version, secret = await registry.load(REGISTRY_DOCUMENT)
        if secret:
            return secret
        await registry.store(REGISTRY_DOCUMENT, entropy.bytes(SECRET_BYTES), expected_version=version)


class _Connection(asyncio.Protocol):
    """One end. `on_closed` is called once, whoever closed it."""

    def __init__(self, link: Link, *, ping_s: float, dead_after_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._link = link
        self._ping_s = ping_s
        self._dead_after_s = dead_after_s
        self._heard_at = self._loop.time()
        self._ticking: asyncio.TimerHandle | None = None
        self._given_up = False
        self.transport: asyncio.Transport | None = None

    @property
    def open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def send(self, kind: Kind, request: int, content: bytes = b"") -> None:
        if self.open:
            assert self.transport is not None
            self.transport.write(self._link.frame(kind, request, content))

    def close(self) -> None:
        """A transport whose connecting was given up may already be closed, without a word to us (uvloop): the ticking ends here."""
        self._given_up = True
        if self._ticking is not None:
            self._ticking.cancel()
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop has transports of its own class
        if self._given_up:
            self.transport.abort()
            return
        self._tick()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            answer, frames = self._link.receive(data)
            if answer and self.transport is not None:
                self.transport.write(answer)
            if self._link.ready:
                self.on_ready()
            for frame in frames:
                self.on_frame(frame.kind, frame.request, frame.content)
        except LinkBroken as problem:
            self.on_refused(problem)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        self.on_closed()

    def on_refused(self, problem: LinkBroken) -> None:
        log.warning("peers.refused", extra={"peer": self._peer(), "error": str(problem)})

    def on_ready(self) -> None:
        """The other end is known; called again with everything that comes."""

    def on_frame(self, kind: Kind, request: int, content: bytes) -> None:
        raise NotImplementedError

    def on_closed(self) -> None:
        raise NotImplementedError

    def _tick(self) -> None:
        if self._loop.time() - self._heard_at > self._dead_after_s:
            log.warning("peers.silent", extra={"peer": self._peer(), "seconds": self._dead_after_s})
            self.close()
            return
        if self._link.ready:
            self.send(Kind.PING, 0)
        self._ticking = self._loop.call_later(self._ping_s, self._tick)

    def _peer(self) -> str:
        name = self.transport.get_extra_info("peername") if self.transport is not None else None
        return f"{name[0]}:{name[1]}" if name else "?"


class _Refused(PeerUnavailable):
    """Somebody else listens at the address: a peer of another store, or no peer."""


class _Caller(_Connection):
    def __init__(self, link: Link, *, ping_s: float, dead_after_s: float) -> None:
        super().__init__(link, ping_s=ping_s, dead_after_s=dead_after_s)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._last = 0
        self.known: asyncio.Future[None] = self._loop.create_future()  # set when the other end has proved the secret
        self.known.add_done_callback(lambda known: known.cancelled() or known.exception())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.open:
            assert self.transport is not None
            self.transport.write(self._link.hello())

    async def ask(self, content: bytes) -> bytes:
        self._last += 1
        number = self._last
        reply: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting[number] = reply
        self.send(Kind.REQUEST, number, content)
        try:
            return await reply
        except asyncio.CancelledError:
            self.send(Kind.CANCEL, number)
            raise
        finally:
            self._waiting.pop(number, None)

    def on_refused(self, problem: LinkBroken) -> None:
        if self.known.done():
            super().on_refused(problem)
        else:  # told by who connects, which happens again and again
            self.known.set_exception(_Refused(f"{problem}; who listens there? Look at its `peers` and `peers-advertised-address`"))

    def on_ready(self) -> None:
        if not self.known.done():
            self.known.set_result(None)

    def on_frame(self, kind: Kind, request: int, content: bytes) -> None:
        reply = self._waiting.get(request)
        if reply is None or reply.done():
            return
        if kind is Kind.REPLY:
            reply.set_result(content)
        elif kind is Kind.FAILED:
            reply.set_exception(PeerUnavailable(f"the peer at {self._peer()} could not serve the request, its log says why"))

    def on_closed(self) -> None:
        lost = PeerUnavailable("the connection was lost")
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(lost)
        if not self.known.done():
            self.known.set_exception(lost)
        self._waiting.clear()


class PeerNetwork:
    """Asks other processes (port `Peers`). `close` ends what is under way with PeerUnavailable."""

    def __init__(self, secret: bytes, entropy: Entropy, *, ping_s: float = PING_S, dead_after_s: float = DEAD_AFTER_S) -> None:
        self._secret = secret
        self._entropy = entropy
        self._ping_s = ping_s
        self._dead_after_s = dead_after_s
        self._connections: dict[str, _Caller] = {}
        self._connecting: dict[str, asyncio.Task[_Caller]] = {}
        self._unreachable: dict[str, str] = {}  # what the log was told of it, once

    async def ask(self, address: str, request: Request) -> Request:
        """`address`: host:port, an IPv6 host in brackets. Raises PeerUnavailable; ValueError for a request that is too large."""
        connection = self._connections.get(address)
        if connection is None or not connection.open:
            connection = await self._connected(address)
        reply: Request = decode(await connection.ask(encode(request)))
        return reply

    async def close(self) -> None:
        for task in list(self._connecting.values()):
            task.cancel()
        for connection in list(self._connections.values()):
            connection.close()
        self._connections.clear()

    async def _connected(self, address: str) -> _Caller:
        """One attempt for all that want it at the same time; it goes on when one of them leaves."""
        task = self._connecting.get(address)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._connect(address), name=f"peer:{address}")
            self._connecting[address] = task
            task.add_done_callback(lambda done: self._tried(address, done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise PeerUnavailable("this process is ending") from None
            raise
        except (OSError, PeerUnavailable) as problem:
            within = f" within {CONNECT_TIMEOUT_S:g} s" if isinstance(problem, TimeoutError) else f": {problem}"
            event = "peers.refused" if isinstance(problem, _Refused) else "peers.unreachable"
            if self._unreachable.get(address) != event:
                self._unreachable[address] = event
                advice = _ELSEWHERE if event == "peers.unreachable" and address.startswith(_LOOPBACK) else ""
                log.warning(event, extra={"peer": address, "error": f"no connection{within}{advice}"})
            raise PeerUnavailable(f"no connection to the peer at {address}{within}") from problem

    def _tried(self, address: str, task: asyncio.Task[_Caller]) -> None:
        self._connecting.pop(address, None)
        if not task.cancelled():
            task.exception()  # known to those who wait for it; all of them may have gone

    async def _connect(self, address: str) -> _Caller:
        host, port = parse_address(address)
        link = Link(self._secret, self._entropy.bytes(NONCE_BYTES), calling=True)
        connection = _Caller(link, ping_s=self._ping_s, dead_after_s=self._dead_after_s)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.get_running_loop().create_connection(lambda: connection, host, port)
                await connection.known
        except BaseException:
            connection.close()
            raise
        self._connections[address] = connection
        if self._unreachable.pop(address, None) is not None:
            log.info("peers.reached", extra={"peer": address})
        return connection


class _Answerer(_Connection):
    def __init__(self, link: Link, serve: Serve, closed: Callable[[_Answerer], None], *, ping_s: float, dead_after_s: float) -> None:
        super().__init__(link, ping_s=ping_s, dead_after_s=dead_after_s)
        self._serve = serve
        self._closed = closed
        self._serving: dict[int, asyncio.Task[None]] = {}

    def on_frame(self, kind: Kind, request: int, content: bytes) -> None:
        if kind is Kind.REQUEST:
            task = self._loop.create_task(self._answer(request, content))
            self._serving[request] = task
            task.add_done_callback(lambda _: self._serving.pop(request, None))
        elif kind is Kind.CANCEL and request in self._serving:
            self._serving[request].cancel()

    async def _answer(self, number: int, content: bytes) -> None:
        request = decode(content)
        try:
            self.send(Kind.REPLY, number, encode(await self._serve(request)))
        except Exception:
            log.exception("peers.failed", extra={"ask": request.get("ask"), "shard": request.get("shard")})
            self.send(Kind.FAILED, number)

    def on_closed(self) -> None:
        for task in list(self._serving.values()):
            task.cancel()
        self._closed(self)


class PeerServer:
    """Answers other processes on a bound socket. `serve` gets each request; what it raises is logged and the asker told that it failed."""

    def __init__(
        self, secret: bytes, entropy: Entropy, serve: Serve, *, ping_s: float = PING_S, dead_after_s: float = DEAD_AFTER_S
    ) -> None:
        self._secret = secret
        self._entropy = entropy
        self._serve = serve
        self._ping_s = ping_s
        self._dead_after_s = dead_after_s
        self._connections: set[_Answerer] = set()
        self._server: asyncio.Server | None = None

    async def start(self, bound: Any) -> None:
        """`bound`: a socket from `bind`, not listening yet."""
        self._server = await asyncio.get_running_loop().create_server(self._accept, sock=bound)

    async def close(self) -> None:
        """Requests under way are dropped: by now the shards have been handed over."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()

    def _accept(self) -> _Answerer:
        link = Link(self._secret, self._entropy.bytes(NONCE_BYTES), calling=False)
        connection = _Answerer(link, self._serve, self._connections.discard, ping_s=self._ping_s, dead_after_s=self._dead_after_s)
        self._connections.add(connection)
        return connection


def parse_address(address: str) -> tuple[str, int]:
    """`host:port` or `[IPv6]:port`. Raises PeerUnavailable: a member record may hold anything."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise PeerUnavailable(f"a peer's address is host:port, found {address!r}")
    return host, int(port)
