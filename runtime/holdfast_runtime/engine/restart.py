"""Restart as new: what is over runs once more under another id, from its input or from a prefix of its journal (http-api §2.8).

The new id has the partition key of the old one, so that both live in one shard and everything happens in one transition. It was minted
for this request alone: whoever finds its page, or its result, has met the same request again and does nothing. A request too old for
that to be told is refused.

A replayed journal must be what the handler produces again (service protocol §4.4, §4.5), hence of the prefix every entry is taken as it
stands, signals included, and behind it the completions of its commands that had come later, in their order. A command without its
completion cannot be taken: what it waits for was asked for in the name of the old invocation. Large values are referred to by both
journals; blobs are swept when nothing refers to them, so the old invocation may be purged at any time.

Invariants: the new journal is 0..upto of the old one and completions only; nothing in it is pending; at most one new invocation per
request, however often it is delivered; a keyed one waits in the queue of its key like any other.
"""

from __future__ import annotations

from typing import Any, Final

from holdfast.protocol import messages
from holdfast.protocol.ids import InvocationId
from holdfast.protocol.manifest import ServiceType
from holdfast_runtime.engine import accept, journal, model, pinning, recent
from holdfast_runtime.engine.events import Arrive, Operated, Restart
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.payload import BlobRef, Entry, entry_type, size_of, stored_size
from holdfast_runtime.engine.registry import Deployment, HandlerKind
from holdfast_runtime.engine.transaction import Transaction

COPY_BYTES: Final = 32 * 1024 * 1024  # of a prefix: it is copied in one log record, and every attempt is sent all of it
_ID_FIELDS: Final = ("result_completion_id", "invocation_id_notification_idx")


def restart(tx: Transaction, event: Restart) -> Operated:
    assert InvocationId.parse(event.new_invocation).partition_key == model.partition_key_of(event.invocation)
    old_page, new_page = model.invocation_page(event.invocation), model.invocation_page(event.new_invocation)
    tx.need(old_page, new_page)
    if tx.get(new_page) is not None or recent.recall(tx, event.new_invocation) is not None:
        return Operated.APPLIED
    if event.minted_at + model.STALE_REQUEST_MS < tx.now:
        return Operated.STALE
    document = tx.get(old_page)
    if document is None or accept.is_over(document, tx.now):
        return Operated.NOT_FOUND
    if document[model.STATUS] in (Status.SCHEDULED, Status.QUEUED):
        return Operated.NOT_STARTED
    if document[model.STATUS] != Status.DONE:
        return Operated.STILL_RUNNING
    if _is_of_workflow(tx, document):
        return Operated.UNSUPPORTED
    if journal.is_gone(document, tx.now):
        return Operated.NO_JOURNAL
    if not 0 <= event.upto < document[model.LENGTH]:
        return Operated.OUT_OF_RANGE
    return _create(tx, event, document)


def _create(tx: Transaction, event: Restart, document: Document) -> Operated:
    copied = _prefix(tx, event.invocation, document, event.upto)
    if copied is None:
        return Operated.UNFINISHED
    if sum(map(stored_size, copied)) > COPY_BYTES:
        return Operated.TOO_LARGE
    target = document[model.TARGET]
    pinned = document.get(model.DEPLOYMENT)
    wanted = event.deployment or pinned or pinning.LATEST
    version = document.get(model.VERSION) if event.upto else None  # the input alone is the same in every version
    deployment = pinning.choose(tx.registry, target, wanted, version)
    if isinstance(deployment, Operated):
        return deployment
    arrival = Arrive(
        invocation=event.new_invocation,
        target=target,
        entry=copied[0],
        retention_ms=document[model.RETENTION],
        journal_retention_ms=document[model.JOURNAL_RETENTION],
        source=[],
        request=event.request,
        minted_at=event.minted_at,
    )
    more = journal.lay_out(tx, event.new_invocation, copied)
    more |= {model.RESTARTED_FROM: event.invocation, model.SIGNALLED: _awakeables(copied)}
    more |= _pin(document, deployment, wanted, from_input=not event.upto)
    if event.upto:
        more[model.SEED_OF] = document.get(model.SEED_OF) or event.invocation
    accept.create(tx, arrival, more)
    return Operated.APPLIED


def _is_of_workflow(tx: Transaction, document: Document) -> bool:
    service, _, _, kind = document[model.TARGET]
    registered = tx.registry.services.get(service)
    return kind == HandlerKind.RUN.value or (registered is not None and registered.type is ServiceType.WORKFLOW)


def _pin(document: Document, deployment: Deployment, wanted: str, *, from_input: bool) -> Document:
    """With nothing but its input it is pinned when it makes progress, as any other; unless a deployment was asked for by its id."""
    if not from_input and document.get(model.DEPLOYMENT) is not None:
        return {model.DEPLOYMENT: deployment.id, model.VERSION: document[model.VERSION]}
    if wanted == pinning.LATEST:
        return {}
    return {model.DEPLOYMENT: deployment.id, model.VERSION: deployment.protocol_version}


def _prefix(tx: Transaction, invocation: str, document: Document, upto: int) -> list[Entry] | None:
    """Entries 0 to `upto` and the later completions of their commands; None when one of those is missing."""
    copied: list[Entry] = []
    missing: set[int] = set()
    for index, entry in journal.entries(tx, invocation, document):
        if index > upto and not missing:
            break
        if messages.is_command(entry_type(entry)):
            if index <= upto:
                copied.append(entry)
                missing |= completion_ids(entry)
            continue
        found = journal.notification_of(entry)
        assert found is not None
        (kind, name), _ = found
        if index <= upto or (kind == "c" and name in missing):
            copied.append(entry)
        if kind == "c":
            missing.discard(int(name))
    return copied if not missing else None


def _awakeables(copied: list[Entry]) -> dict[int, int]:
    """Those that are completed: another completion of them does not count."""
    keys = [found[0] for entry in copied[1:] if (found := journal.notification_of(entry)) is not None]
    return {int(name): 1 for kind, name in keys if kind == "s" and int(name) >= model.FIRST_AWAKEABLE}


# ---- Ids in commands


def completion_ids(entry: Entry) -> set[int]:
    """What completes a command. A value that is kept aside is skipped by its length, so the blob need not be read."""
    fields = messages.CLASSES[entry_type(entry)].DESCRIPTOR.fields_by_name
    wanted = {fields[name].number for name in _ID_FIELDS if name in fields}
    found: set[int] = set()
    if wanted:
        walk = _Walk(entry)
        while not walk.at_end():
            number, value = walk.field()
            if number in wanted and value is not None:
                found.add(value)
    return found


class _Walk:
    """Over the top-level fields of a protobuf message in a frame (https://protobuf.dev/programming-guides/encoding/)."""

    def __init__(self, entry: Entry) -> None:
        self._chunks: list[Any] = [entry] if isinstance(entry, bytes) else entry
        self._size = sum(map(size_of, self._chunks))
        self._position = 8  # behind the frame's header

    def at_end(self) -> bool:
        return self._position >= self._size

    def field(self) -> tuple[int, int | None]:
        """(number, value of a varint field or None), and on to the next field."""
        number, kind = divmod(self._varint(), 8)
        match kind:
            case 0:
                return number, self._varint()
            case 1:
                self._position += 8
            case 2:
                size = self._varint()  # first, because it moves the position itself
                self._position += size
            case 5:
                self._position += 4
            case _:
                raise AssertionError(f"a stored command has a field of kind {kind}")
        return number, None

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def _byte(self) -> int:
        position = self._position
        self._position += 1
        for chunk in self._chunks:
            if position < size_of(chunk):
                assert not isinstance(chunk, BlobRef)
                byte: int = chunk[position]
                return byte
            position -= size_of(chunk)
        raise AssertionError("a stored command ends within a field")
