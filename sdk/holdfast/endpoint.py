"""Serving handlers: requests in, responses out, whatever carries them.

Rules: discovery, invocation and health are the only routes, found by the last segments of the path, so any mount
prefix works; a response has the content type of its request; what cannot be served is answered by status alone
(service protocol §3.7, §5).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from holdfast import __version__
from holdfast._attempt import Attempt
from holdfast.logs import Log
from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.machine import Machine
from holdfast.protocol.versions import MAX_VERSION, MIN_VERSION, content_type, parse_content_type
from holdfast.service import Handler, ServiceBase

SERVER: Final = f"holdfast-sdk-python/{__version__}"

Answer = tuple[int, dict[str, str], bytes]


class AttemptReport(NamedTuple):
    """What an attempt did, for metrics: entries it was given and entries it added."""

    service: str
    handler: str
    invocation_id: str
    attempt: int
    replayed_entries: int
    new_entries: int


class Endpoint:
    """A set of services, ready to be served. Raises TypeError or ValueError when they cannot be."""

    def __init__(
        self,
        services: Sequence[ServiceBase],
        *,
        logger: Log | None = None,
        identity_keys: Sequence[str] = (),
        on_attempt: Callable[[AttemptReport], None] | None = None,
        compression: str | None = None,
    ) -> None:
        self.services: dict[str, ServiceBase] = {}
        if not services:
            raise ValueError("an endpoint without services serves nothing; pass at least one Service, VirtualObject or Workflow")
        if isinstance(identity_keys, str):
            raise TypeError(f"identity_keys is a list of keys, found the text {identity_keys!r}; write [{identity_keys!r}]")
        for service in services:
            if not isinstance(service, ServiceBase):
                raise TypeError(f"expected services, found {service!r}; pass the Service, not a handler")
            if service.name in self.services:
                raise ValueError(f"two services are named '{service.name}'; rename one")
            service.check()
            self.services[service.name] = service
        self._log: Log = logging.getLogger("holdfast") if logger is None else logger
        self._on_attempt = on_attempt
        self._compression = compression
        self._verify: Callable[[str, Mapping[str, str]], str | None] | None = None
        if identity_keys:
            from holdfast.identity import verifier  # needs cryptography

            self._verify = verifier(identity_keys)

    async def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answers one request: status, headers, body. `headers`: names in any case."""
        routed = self.route(method, path, headers, body)
        if not isinstance(routed, Attempt):
            return routed
        from holdfast import _drive, _drive_sync  # loads asyncio, which plain handlers on Lambda do without

        if routed.handler.is_async:
            return self.answered(routed, await _drive.drive(routed))
        return self.answered(routed, await _drive.in_thread(lambda: _drive_sync.drive(routed)))

    def handle_blocking(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer | Attempt:
        """The same without an event loop; an attempt of an async handler is handed back to be driven in one."""
        routed = self.route(method, path, headers, body)
        if isinstance(routed, Attempt) and not routed.handler.is_async:
            from holdfast import _drive_sync

            return self.answered(routed, _drive_sync.drive(routed))
        return routed

    def route(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer | Attempt:
        """The attempt a request starts, or the answer to everything else."""
        lower = {name.lower(): value for name, value in headers.items()}
        segments = [_unquoted(part) for part in path.partition("?")[0].split("/") if part]
        match segments:
            case [*_, "health"] if method == "GET":
                return 200, _plain(), b"ok"
            case [*_, "discover"] if method == "GET":
                return self._refusal("/discover", lower) or self._discover(lower.get("accept"))
            case [*_, "invoke", service, handler] if method == "POST":
                refusal = self._refusal("/" + "/".join(path.partition("?")[0].split("/")[-3:]), lower)
                return refusal or self._begin(service, handler, lower, body)
        return _refused(404, f"no such route: {method} {path}; expected /discover, /health or /invoke/SERVICE/HANDLER")

    def answered(self, attempt: Attempt, body: bytes) -> Answer:
        """The answer of a finished attempt."""
        machine = attempt.machine
        if self._on_attempt is not None:
            request = attempt.request
            report = AttemptReport(
                request.service,
                request.handler,
                request.invocation_id,
                request.attempt,
                machine.recorded_entries,
                machine.new_entries,
            )
            self._on_attempt(report)
        return 200, {"content-type": content_type(machine.version), "x-restate-server": SERVER}, body

    def _begin(self, service: str, handler: str, headers: Mapping[str, str], body: bytes) -> Answer | Attempt:
        found = self._find(service, handler)
        if isinstance(found, str):
            return _refused(404, found)
        version = parse_content_type(headers.get("content-type", ""))
        if version is None or not MIN_VERSION <= version <= MAX_VERSION:
            return _refused(
                415,
                f"content-type must be {content_type(MIN_VERSION)} to v{MAX_VERSION}, found '{headers.get('content-type', '')}'",
            )
        try:
            return self.attempt(version, body, found)
        except ProtocolError as error:
            return _refused(400, str(error))

    def attempt(self, version: int, body: bytes, handler: Handler[Any, Any]) -> Attempt:
        """A new attempt at what the request holds. Raises ProtocolError."""
        return Attempt(Machine(version, body), handler, self._log)

    def _find(self, service: str, handler: str) -> Handler[Any, Any] | str:
        """The handler, or why there is none."""
        if service not in self.services:
            return f"service '{service}' is not served here; known are {', '.join(self.services)}"
        handlers = self.services[service].handlers
        if handler not in handlers:
            return f"service '{service}' has no handler '{handler}'; known are {', '.join(handlers)}"
        return handlers[handler]

    def _discover(self, accept: str | None) -> Answer:
        from holdfast import discovery  # once per deployment, so not at every cold start

        status, kind, body = discovery.answer(list(self.services.values()), accept, self._compression)
        return status, {"content-type": kind, "x-restate-server": SERVER}, body

    def _refusal(self, path: str, headers: Mapping[str, str]) -> Answer | None:
        """401 when request identity is required and does not hold."""
        problem = self._verify(path, headers) if self._verify is not None else None
        return None if problem is None else _refused(401, problem)


def _unquoted(part: str) -> str:
    if "%" not in part:
        return part
    from urllib.parse import unquote  # rarely needed, and a cold start should not pay for it

    return unquote(part)


def _plain() -> dict[str, str]:
    return {"content-type": "text/plain; charset=utf-8", "x-restate-server": SERVER}


def _refused(status: int, message: str) -> Answer:
    return status, _plain(), message.encode()
