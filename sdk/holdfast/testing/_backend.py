"""What a test runtime needs of whatever runs the handlers: the coordinator in memory, or a deployed stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from holdfast._calls import Call
from holdfast.testing.faults import EndpointFault, StepFault
from holdfast.testing.mocks import Mock

Verb = Literal["cancel", "kill", "pause", "resume", "purge"]


class Backend(Protocol):
    """Ids are text. Rows are those of the admin API's `/holdfast/invocations`."""

    async def send(self, call: Call, delay: timedelta | None) -> tuple[str, bool]:
        """The id, and whether it was accepted earlier."""
        ...

    async def result(self, invocation_id: str, *, kept: bool = True) -> bytes:
        """Wait for the result. Raises TerminalError, Stuck, NotKept, HandlerFailed, OutOfPatience.

        kept: of what the test has started also past its retention.
        """
        ...

    async def output(self, invocation_id: str) -> bytes:
        """The result that is there now. Raises TerminalError, and IngressError with status 470 or 404."""
        ...

    async def describe(self, invocation_id: str) -> Mapping[str, Any] | None: ...

    async def list(self, service: str | None, status: str | None) -> Sequence[Mapping[str, Any]]: ...

    async def operate(self, verb: Verb, invocation_id: str) -> None: ...

    async def state(self, service: str, key: str) -> Mapping[str, bytes]: ...

    async def set_state(self, service: str, key: str, state: Mapping[str, bytes]) -> None: ...

    async def resolve_awakeable(self, id: str, value: bytes) -> None: ...

    async def reject_awakeable(self, id: str, message: str) -> None: ...

    async def signal(self, invocation_id: str, name: str, value: bytes) -> None: ...

    async def promise(self, workflow: str, key: str, wish: Mapping[str, Any]) -> Any: ...

    def now(self) -> datetime: ...

    async def advance(self, by: timedelta) -> None: ...

    async def crash_coordinator(self) -> None: ...

    async def story(self) -> str:
        """Everything there is to tell of a failed test; empty when nothing is known."""
        ...

    def mock(self, mock: Mock[Any, Any]) -> None: ...

    def add_fault(self, fault: EndpointFault | StepFault) -> None: ...

    def close(self) -> None: ...
