"""`ctx.logger`: the given logger, with the invocation's fields, silent while replaying.

Rules: what an earlier attempt logged is not logged again; any logger with the methods of the standard library
works, the one of Powertools included; payloads are never added.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol

from holdfast.protocol.machine import Machine


class Log(Protocol):
    """A logger of the standard library, or one that passes its methods on, as Powertools' does."""

    @property
    def info(self) -> Callable[..., None]: ...


class _RequestFacts(Protocol):
    @property
    def invocation_id(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def handler(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def attempt(self) -> int: ...


class AttemptLogger(logging.LoggerAdapter[Any]):
    """Structured: fields travel in `extra`."""

    def __init__(self, log: Log, request: _RequestFacts, machine: Machine) -> None:
        fields: dict[str, object] = {
            "invocation_id": request.invocation_id,
            "service": request.service,
            "handler": request.handler,
            "attempt": request.attempt,
        }
        if request.key:
            fields["key"] = request.key
        super().__init__(log, fields)
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        """What else the given logger can do, e.g. `append_keys` of Powertools."""
        if name == "logger":  # not set yet
            raise AttributeError(name)
        return getattr(self.logger, name)

    def isEnabledFor(self, level: int) -> bool:
        """False while the handler repeats what it did before."""
        return not self._machine.replaying and bool(self.logger.isEnabledFor(level))

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    def attempt_failed(self, error: BaseException) -> None:
        """Once per failed attempt, replaying or not: the failure itself is new."""
        extra = dict(self.extra or {})
        self.logger.log(logging.WARNING, "holdfast.attempt_failed", exc_info=error, extra=extra)
