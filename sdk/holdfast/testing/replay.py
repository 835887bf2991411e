"""Running today's code against a journal of another day: does it still do what is recorded there?

Rules: nothing has side effects: the handler gets every result from the journal, and stops where the journal ends, before it would execute
anything. The state of the key is not asked for: what the handler read is in the journal.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from holdfast import _drive, _drive_sync
from holdfast._attempt import Attempt
from holdfast.endpoint import Endpoint
from holdfast.errors import JournalMismatchError
from holdfast.logs import Log
from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.frames import encode, split
from holdfast.protocol.ids import InvocationId
from holdfast.protocol.machine import Machine, Suspended
from holdfast.protocol.messages import MessageType, OutputCommand, Start, is_command, parse
from holdfast.protocol.outcomes import Leaf, Node
from holdfast.protocol.replay import describe
from holdfast.protocol.versions import MAX_VERSION
from holdfast.service import Handler, ServiceBase
from holdfast.testing.errors import ReplayMismatch
from holdfast.testing.journal import plain

FORMAT: Final = "holdfast.journal"  # docs/cli.md, "Exported journals"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Replayed:
    """The code agrees with the journal, which has so many `entries`.

    next: what the code does after the last of them, in words. failure: what it raises there. output: its result as plain values, if it
    came to it.
    """

    handler: str
    entries: int
    next: tuple[str, ...] = ()
    failure: BaseException | None = None
    output: Any = None


@dataclass(frozen=True, slots=True)
class Recording:
    """One exported journal. seed: of `ctx.random`. entries: type and exact body, the input first."""

    invocation_id: str
    service: str
    handler: str
    key: str
    version: int
    seed: int
    entries: tuple[tuple[MessageType, bytes], ...]

    def request(self) -> bytes:
        """The request body of an attempt that is given all of it."""
        start = Start(
            id=InvocationId.parse(self.invocation_id).raw,
            debug_id=self.invocation_id,
            known_entries=len(self.entries),
            partial_state=True,
            key=self.key,
            random_seed=self.seed,
        )
        return encode(MessageType.START, start.SerializeToString()) + b"".join(encode(type_, body) for type_, body in self.entries)


async def replay(services: Sequence[ServiceBase], journal: str | Path | Mapping[str, Any]) -> Replayed:
    """Raises ReplayMismatch, and ValueError for what is not an exported journal."""
    recording = read(journal)
    endpoint = _Replaying(services)
    found = endpoint._find(recording.service, recording.handler)
    if isinstance(found, str):
        raise ReplayMismatch(f"the journal is of {recording.service}/{recording.handler}, but {found}")
    try:
        attempt = endpoint.attempt(recording.version, recording.request(), found)
    except ProtocolError as error:
        raise ValueError(f"this journal cannot be replayed: {error}") from error
    if found.is_async:
        await asyncio.create_task(_drive.drive(attempt))
    else:
        await _drive.in_thread(lambda: _drive_sync.drive(attempt))
    return _judged(recording, attempt)


def _judged(recording: Recording, attempt: ReplayAttempt) -> Replayed:
    name, machine = attempt.handler.full_name, attempt.machine
    where = f"{name} does not replay {recording.invocation_id}"
    if machine.disagreed is not None:
        raise ReplayMismatch(f"{where}: {machine.disagreed}", entry_index=machine.disagreed.entry_index)
    if attempt.failure is not None and machine.replaying:
        raise ReplayMismatch(f"{where}: {type(attempt.failure).__name__}: {attempt.failure}") from attempt.failure
    recorded = [parse(type_, body) for type_, body in recording.entries]
    added = [(frame.type, parse(frame.type, frame.body)) for frame in split(machine.response()) if is_command(frame.type)]
    outputs = [message for message in [*recorded, *(message for _, message in added)] if isinstance(message, OutputCommand)]
    return Replayed(
        handler=name,
        entries=len(recording.entries),
        next=tuple(describe(type_, message) for type_, message in added),
        failure=attempt.failure,
        output=plain(outputs[0].value.content) if outputs else None,
    )


class _Replaying(Endpoint):
    def attempt(self, version: int, body: bytes, handler: Handler[Any, Any]) -> ReplayAttempt:
        return ReplayAttempt(WatchedMachine(version, body), handler, self._log)


class WatchedMachine(Machine):
    """Remembers its disagreement with the journal also when the attempt is over."""

    def __init__(self, version: int, body: bytes) -> None:
        super().__init__(version, body)
        self.disagreed: JournalMismatchError | None = None

    def _fail(self, mismatch: JournalMismatchError) -> JournalMismatchError:
        self.disagreed = mismatch
        return super()._fail(mismatch)


class ReplayAttempt(Attempt):
    """An attempt that executes nothing. failure: what the handler raised that would be retried."""

    machine: WatchedMachine

    def __init__(self, machine: WatchedMachine, handler: Handler[Any, Any], log: Log) -> None:
        super().__init__(machine, handler, log)
        self.failure: BaseException | None = None

    def step(self, node: Node, *, may_run: bool = True) -> tuple[Leaf, ...]:
        if super().step(node, may_run=may_run):
            raise Suspended
        return ()

    def _error(self, error: BaseException, run: Leaf | None = None, delay_ms: int | None = None) -> None:
        self.failure = error
        super()._error(error, run, delay_ms)


def read(journal: str | Path | Mapping[str, Any]) -> Recording:
    """An exported journal: a path, or the parsed document."""
    document = journal if isinstance(journal, Mapping) else _load(Path(journal))
    if document.get("format") != FORMAT:
        raise ValueError(f'expected a document with "format": "{FORMAT}", as `holdfast invocations export` writes it')
    if document.get("version") != VERSION:
        raise ValueError(
            f"the journal has version {document.get('version')} of the format, this kit reads {VERSION}; use one that is as new"
        )
    if not document.get("complete", True):
        raise ValueError("the journal was exported without all of its entries, so it cannot be replayed")
    try:
        about = document["invocation"]
        return Recording(
            invocation_id=about["id"],
            service=about["target_service_name"],
            handler=about["target_handler_name"],
            key=about.get("target_service_key") or "",
            version=about.get("pinned_service_protocol_version") or MAX_VERSION,
            seed=_seed(about),
            entries=tuple((MessageType(entry["type_code"]), base64.b64decode(entry["raw"])) for entry in document["entries"]),
        )
    except (KeyError, TypeError, ValueError, ProtocolError) as error:
        raise ValueError(f"the exported journal cannot be read: {type(error).__name__}: {error}") from error


def exported(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the coordinator tells of an invocation, as a document for `read`. The command line adds more, for readers."""
    about = (
        "id",
        "target",
        "target_service_name",
        "target_handler_name",
        "target_service_key",
        "status",
        "pinned_service_protocol_version",
        "random_seed",
    )
    return {
        "format": FORMAT,
        "version": VERSION,
        "invocation": {name: row.get(name) for name in about},
        "complete": len(row["journal"]) == row.get("journal_size", len(row["journal"])),
        "entries": [
            {"index": entry["index"], "type": entry["type"], "type_code": int(MessageType[entry["type"]]), "raw": entry["raw"]}
            for entry in row["journal"]
        ],
    }


def _seed(about: Mapping[str, Any]) -> int:
    """Journals exported before the seed stood in them are of the ids that the coordinator draws it from."""
    if about.get("random_seed") is not None:
        return int(about["random_seed"])
    import xxhash

    return xxhash.xxh3_64_intdigest(InvocationId.parse(about["id"]).raw)


def _load(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read the journal: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds a JSON {type(document).__name__}, expected the object that `holdfast invocations export` writes")
    return document
