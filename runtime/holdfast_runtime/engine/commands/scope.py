"""What a command may see and do: its invocation's journal, completions, and who it runs as."""

from __future__ import annotations

from typing import Any

from holdfast_runtime.engine import journal, model
from holdfast_runtime.engine.events import ReceivedFrame
from holdfast_runtime.engine.model import Document
from holdfast_runtime.engine.payload import Entry, Payload, Result, completion_entry
from holdfast_runtime.engine.registry import HandlerKind
from holdfast_runtime.engine.transaction import Transaction


class Violation(Exception):
    """The command cannot be accepted: it and all behind it are dropped, the attempt has failed (service protocol §3.4)."""

    def __init__(self, code: int, message: str, error_code: str = "RT0012", *, terminal: bool = False) -> None:
        """terminal: another attempt cannot do better, the invocation ends with this failure."""
        super().__init__(message)
        self.code = code
        self.error_code = error_code
        self.terminal = terminal


class Scope:
    """One invocation while the frames of one response are applied to it."""

    def __init__(self, tx: Transaction, invocation: str, document: Document) -> None:
        self.tx = tx
        self.invocation = invocation
        self.document = document
        self.service, self.handler, self.key, kind = document[model.TARGET]
        self.kind = HandlerKind(kind)
        self.output: Result | None = None

    def append(self, entry: Entry) -> int:
        """Append a journal entry; its index."""
        return journal.append(self.tx, self.invocation, self.document, entry)

    def complete(self, type_: int, completion_id: int, result: Result) -> None:
        """Journal a completion that is available now, right behind its command."""
        self.append(completion_entry(type_, completion_id, result))

    def expect(self, completion_id: int, type_: int, index: int) -> None:
        """The completion comes later."""
        self.tx.put(model.invocation_page(self.invocation), (model.PENDING, completion_id), [type_, index])

    def sink(self, completion_id: int, type_: int) -> list[Any]:
        """Who is told a result: this life of the invocation, because the next one of its id counts its commands anew."""
        return [self.invocation, completion_id, type_, self.document[model.CREATED_AT]]

    @property
    def source(self) -> list[Any]:
        return [self.invocation, self.service, self.handler, self.key]

    def require_state(self, *, write: bool) -> tuple[str, str]:
        """(service, key) of the state this handler may use."""
        if self.key is None:
            raise Violation(
                571,
                f"{self.service}/{self.handler} is a plain service handler: it has no state; use a virtual object or a workflow",
            )
        if write and self.kind is HandlerKind.SHARED:
            raise Violation(
                571,
                f"{self.service}/{self.handler} is a shared handler: it may read state but not write it; make it exclusive",
            )
        return self.service, self.key

    def require_promises(self) -> tuple[str, str]:
        """(workflow, key) of the promises this handler may use."""
        registered = self.tx.registry.services.get(self.service)
        is_workflow = self.kind is HandlerKind.RUN or (
            self.kind is HandlerKind.SHARED and registered is not None and registered.type.name == "WORKFLOW"
        )
        if self.key is None or not is_workflow:
            raise Violation(
                571,
                f"{self.service}/{self.handler} is not a handler of a workflow: durable promises exist in workflows only",
            )
        return self.service, self.key


def content(frame: ReceivedFrame, inline: bytes) -> Payload:
    """The value a frame carries: as it stands, or where it was stored."""
    return frame.payload if frame.payload is not None else inline
