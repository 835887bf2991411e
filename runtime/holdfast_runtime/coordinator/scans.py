"""Rows for SQL introspection: one shard's part of one table, as data.

Rules: what the packed indexes know is read from them alone (`listed`); an invocation's own pages are read only for rows that pass every
filter the index can judge, of an ordered scan only for the rows that come first, and never enter the shard's memory; the loop gets a turn
after every page; what a scan holds is bounded in rows and bytes, and says so when there is more. Columns have the names of http-api §4.3;
`raw_status` is the status as the engine has it, and the sources `journal`, `state` and `promises` give stored bytes, which the reader
decodes.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from holdfast.protocol import ids, messages
from holdfast.protocol.messages import MessageType
from holdfast_runtime.coordinator import invocation_columns as columns_of
from holdfast_runtime.coordinator import listed
from holdfast_runtime.coordinator.front import Scan
from holdfast_runtime.coordinator.invocation_columns import Invocation
from holdfast_runtime.coordinator.listed import PAGES, peek
from holdfast_runtime.engine import journal, key_state, listing, model
from holdfast_runtime.engine.accept import is_over
from holdfast_runtime.engine.commands import promise
from holdfast_runtime.engine.commands.promise import LISTENING
from holdfast_runtime.engine.finish import child_of
from holdfast_runtime.engine.model import Document
from holdfast_runtime.engine.payload import BlobRef, Entry, entry_size, entry_type, materialize, size_of
from holdfast_runtime.engine.registry import retention_of

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.shard import Shard

Row = Sequence[Any]
Where = Mapping[str, Sequence[str]]  # column -> the values it may have
Reply = dict[str, Any]

MAX_BYTES: Final = 32 * 1024 * 1024  # of journal entries, state, promises or invocations in one answer
VALUE_BYTES: Final = 24  # of one column of an invocation, about: most are short, shared or empty
_CALLS: Final = frozenset({MessageType.CALL_COMMAND, MessageType.ONE_WAY_CALL_COMMAND})
ROWS, BYTES = "rows", "bytes"  # why an answer is not all there is
_FIELDS: Final = [field.name for field in dataclasses.fields(Scan)]


class _Full(Exception):
    """The answer has reached a limit."""

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit


class _Found:
    """Collects rows until there are `limit` of them or MAX_BYTES of content."""

    def __init__(self, limit: int) -> None:
        self.rows: list[Row] = []
        self._limit = limit
        self._bytes = 0

    def add(self, row: Row) -> None:
        if len(self.rows) >= self._limit:
            raise _Full(ROWS)
        self.rows.append(row)

    def add_all(self, rows: list[Row]) -> None:
        self.weigh(len(rows) * len(rows[0]) * VALUE_BYTES if rows else 0)
        room = self._limit - len(self.rows)
        self.rows += rows[:room]
        if len(rows) > room:
            raise _Full(ROWS)

    def weigh(self, size: int) -> None:
        """Before content is read: may it be?"""
        self._bytes += size
        if self._bytes > MAX_BYTES:
            raise _Full(BYTES)


async def scan(shard: Shard, wanted: Scan) -> Reply:
    """{"rows": one list per row in the order of the columns, "more": None | "rows" | "bytes"}: why it is not all, if it is not."""
    found = _Found(wanted.limit)
    more = None
    try:
        await _SOURCES[wanted.source](shard, wanted, found)
    except _Full as full:
        more = full.limit
    await shard.until_durable(shard.barrier())
    shard.check_lease()
    return {"rows": found.rows, "more": more}


def ask(wanted: Scan) -> dict[str, Any]:
    """The request to the owner of a shard."""
    return {"ask": "scan", **{name: getattr(wanted, name) for name in _FIELDS}}


def parse(request: Mapping[str, Any]) -> Scan:
    return Scan(**{name: request[name] for name in _FIELDS if name in request})


def spread(where: Where, shards: int) -> list[tuple[int, dict[str, list[str]]]]:
    """Which shards may have rows, each with the filter it is to apply: those of the ids or keys that are named, else all."""
    plain = {name: list(values) for name, values in where.items()}
    for name in ("id", "invocation_id", "service_key", "target_service_key"):
        if name in plain:
            parts: dict[int, list[str]] = {}
            for value in plain[name]:
                shard = model.shard_of_key(ids.keyed_partition_key(value), shards) if "key" in name else model.shard_of(value, shards)
                parts.setdefault(shard, []).append(value)
            return [(shard, {**plain, name: values}) for shard, values in sorted(parts.items())]
    return [(shard, plain) for shard in range(shards)]


# ---- Reading


async def _bytes_of(shard: Shard, stored: Any) -> bytes:
    """Content of a payload or a journal entry."""
    chunks = [stored] if isinstance(stored, BlobRef) else stored if isinstance(stored, list) else []
    contents = {chunk.id: await listed.blob(shard, chunk.id) for chunk in chunks if isinstance(chunk, BlobRef)}
    return materialize(stored, contents)


# ---- Invocations

_Needed = Callable[[Document], bool]
_Conditions = list[Mapping[str, frozenset[str]]]  # of each, one column must have one of its values


async def _invocations(shard: Shard, wanted: Scan, needed: _Needed) -> AsyncIterator[list[Invocation]]:
    """Those that pass all conditions, in batches; with their own page where `needed` says so."""
    async for batch in _passing(shard, wanted):
        yield await _with_pages(shard, batch, needed)


async def _passing(shard: Shard, wanted: Scan, worth: listed.Worth = lambda *_: True) -> AsyncIterator[list[Invocation]]:
    if "id" in wanted.where:
        async for batch in _named(shard, wanted):
            yield _sifted(shard, batch, _conditions(wanted, frozenset({"id"})))
        return
    conditions = _conditions(wanted, listed.judged(wanted.where))
    async for items in listed.rows(shard, wanted, worth):
        yield await _judged(shard, items, conditions)


def _conditions(wanted: Scan, judged: frozenset[str]) -> _Conditions:
    """judged: those of `where` that the source of the rows has seen to."""
    all_of = [{name: frozenset(allowed)} for name, allowed in wanted.where.items() if name not in judged]
    return [*all_of, *({name: frozenset(allowed) for name, allowed in group.items()} for group in wanted.either)]


async def _judged(shard: Shard, items: list[listed.Item], conditions: _Conditions) -> list[Invocation]:
    """Conditions on what stands in the rows go before those that need pages."""
    of_rows = [group for group in conditions if columns_of.OF_ROW.keys() >= group.keys()]
    batch = [Invocation(shard, *item) for item in items]
    batch = _sifted(shard, await _with_pages(shard, batch, _needed_for(of_rows)), of_rows)
    return _sifted(shard, await _with_pages(shard, batch, _needed_for(conditions)), conditions)


def _needed_for(conditions: _Conditions) -> _Needed:
    return columns_of.page_needed({name for group in conditions for name in group})


def _sifted(shard: Shard, batch: list[Invocation], conditions: _Conditions) -> list[Invocation]:
    for group in conditions:
        columns = [(columns_of.values(shard, name, batch), allowed) for name, allowed in group.items()]
        batch = [found for found, passes in zip(batch, _passes(columns, len(batch)), strict=True) if passes]
    return batch


def _passes(columns: list[tuple[list[Any], frozenset[str]]], count: int) -> list[bool]:
    """Which rows have an allowed value in one of the columns."""
    found = [False] * count
    for values, allowed in columns:
        found = [before or value in allowed for before, value in zip(found, values, strict=True)]
    return found


async def _named(shard: Shard, wanted: Scan) -> AsyncIterator[list[Invocation]]:
    now = shard.environment.clock.now_ms()
    since, until = wanted.since_ms or 0, wanted.until_ms if wanted.until_ms is not None else listed.EVER_MS
    named = wanted.where["id"]
    for start in range(0, len(named), PAGES):
        chunk = named[start : start + PAGES]
        documents = await peek(shard, [model.invocation_page(invocation) for invocation in chunk])
        batch = []
        for invocation in chunk:
            document = documents[model.invocation_page(invocation)]
            if document is not None and not is_over(document, now) and since <= document[model.CREATED_AT] <= until:
                batch.append(Invocation(shard, invocation, listing.row_of(document), document))
        yield batch


async def _with_pages(shard: Shard, batch: list[Invocation], needed: _Needed) -> list[Invocation]:
    """Without those whose page is gone: they ended and left nothing while we were looking."""
    wanted = {model.invocation_page(found.id): found for found in batch if found.document is None and needed(found.row)}
    if not wanted:
        return batch
    documents = await peek(shard, wanted)
    gone: set[str] = set()
    for page_id, found in wanted.items():
        document = documents[page_id]
        if document is None:
            gone.add(found.id)
        else:
            found.read(document)
    return [found for found in batch if found.id not in gone]


async def _scan_invocations(shard: Shard, wanted: Scan, found: _Found) -> None:
    needed = columns_of.page_needed(wanted.columns)
    if wanted.order is not None:
        best = listed.Best(wanted)
        async for batch in _passing(shard, wanted, best.worth):
            for invocation in batch:
                best.add(invocation.row["c"], invocation.id, invocation)
        found.add_all(await _columns(shard, wanted, await _with_pages(shard, best.items(), needed)))
    elif "id" in wanted.where:
        async for batch in _invocations(shard, wanted, needed):
            found.add_all(await _columns(shard, wanted, batch))
    else:
        conditions = _conditions(wanted, listed.judged(wanted.where))
        async for items in listed.rows(shard, wanted):
            lines = _quick_lines(shard, items, conditions, wanted.columns, needed)
            if lines is None:
                batch = await _with_pages(shard, await _judged(shard, items, conditions), needed)
                lines = await _columns(shard, wanted, batch)
            found.add_all(lines)
    found.rows.reverse()  # what is over first: of the rows of a key the official CLI shows the last one as the holder of its lock


def _quick_lines(
    shard: Shard, items: list[listed.Item], conditions: _Conditions, columns: Sequence[str], needed: _Needed
) -> list[Row] | None:
    """All of it from the rows, a column of a page at a time; None when some of it does not stand there."""
    of_rows = columns_of.OF_ROW
    if not all(of_rows.keys() >= group.keys() for group in conditions) or columns_of.has_old(items):
        return None
    for group in conditions:
        judged = [(of_rows[name](shard, items), allowed) for name, allowed in group.items()]
        items = [item for item, passes in zip(items, _passes(judged, len(items)), strict=True) if passes]
    if not all(name in of_rows for name in columns) and any(needed(row) for _, row in items):
        return None
    none = [None] * len(items)
    return _lines([of_rows[name](shard, items) if name in of_rows else none for name in columns], len(items))


async def _columns(shard: Shard, wanted: Scan, batch: list[Invocation]) -> list[Row]:
    if "journal_commands_size" in wanted.columns:
        await _with_journals(shard, batch)
    return _lines([columns_of.values(shard, name, batch) for name in wanted.columns], len(batch))


def _lines(columns: list[list[Any]], count: int) -> list[Row]:
    return list(zip(*columns, strict=True)) if columns else [()] * count


async def _with_journals(shard: Shard, batch: list[Invocation]) -> None:
    for invocation in batch:
        assert invocation.document is not None
        page_ids = journal.page_ids(invocation.id, invocation.document)
        if page_ids:
            invocation.further = [document or {} for document in (await peek(shard, page_ids)).values()]


async def _scan_journal(shard: Shard, wanted: Scan, found: _Found) -> None:
    """Columns: id, partition_key, index, type (number of the frame), raw (its body), raw_length, appended_at where it is known, and
    call: of Call and OneWayCall [invocation, service type, handler kind, completion retention ms, journal retention ms]."""
    async for batch in _invocations(shard, wanted, lambda _: True):
        for invocation in batch:
            await _with_journals(shard, [invocation])
            entries = dict(invocation.entries())
            for index in entries:
                found.add([await _journal_column(shard, invocation, entries, index, name, found) for name in wanted.columns])
            await asyncio.sleep(0)


async def _journal_column(shard: Shard, invocation: Invocation, entries: dict[int, Entry], index: int, name: str, found: _Found) -> Any:
    document, entry = invocation.document, entries[index]
    assert document is not None
    match name:
        case "id":
            return invocation.id
        case "partition_key":
            return model.partition_key_of(invocation.id)
        case "index":
            return index
        case "call":
            return await _call(shard, entry, entries.get(index + 1)) if entry_type(entry) in _CALLS else None
        case "type":
            return entry_type(entry)
        case "raw":
            found.weigh(entry_size(entry))
            return (await _bytes_of(shard, entry))[8:]
        case "raw_length":
            return entry_size(entry) - 8
        case "appended_at":
            return appended_at(document, index)
    raise AssertionError(f"unknown column {name!r} of a journal")


def appended_at(document: Document, index: int) -> int | None:
    """Only these two are kept, of a restarted invocation's copied entries neither but the input's."""
    if index == 0:
        return int(document[model.CREATED_AT])
    return document.get(model.APPENDED_AT) if index == document[model.LENGTH] - 1 else None


async def _call(shard: Shard, entry: Entry, following: Entry | None) -> list[Any] | None:
    """Whom it called; the id stands in the entry right behind."""
    command: Any = messages.parse(entry_type(entry), (await _bytes_of(shard, entry))[8:])
    registry = shard.environment.registry()
    handler = registry.handler(command.service_name, command.handler_name)
    if handler is None or following is None or entry_type(following) != MessageType.CALL_INVOCATION_ID_COMPLETION:
        return None
    key = command.idempotency_key if command.HasField("idempotency_key") else None
    type_ = registry.services[command.service_name].type.value
    return [child_of(following), type_, handler.kind.value, *retention_of(handler, key)]


async def _scan_inbox(shard: Shard, wanted: Scan, found: _Found) -> None:
    """Columns: service_name, service_key, id, sequence_number, created_at."""
    places: dict[tuple[str, str], dict[str, int]] = {}
    waiting = Scan("invocations", [], {**_of_key(wanted.where), "raw_status": ["inboxed"]})
    async for batch in _passing(shard, waiting):
        for invocation in batch:
            service, _, key, _ = invocation.row["t"]
            if "sequence_number" in wanted.columns and (service, key) not in places:
                places[service, key] = await _places(shard, service, key)
            values = {
                "service_name": service,
                "service_key": key,
                "id": invocation.id,
                "sequence_number": places.get((service, key), {}).get(invocation.id),
                "created_at": invocation.row["c"],
            }
            found.add([values[name] for name in wanted.columns])


async def _places(shard: Shard, service: str, key: str) -> dict[str, int]:
    """invocation -> its number in the queue of the key."""
    page_id = model.key_page(service, key)
    document = (await peek(shard, [page_id]))[page_id] or {}
    waiting = dict(document.get(model.QUEUE, {}))
    head, tail = document.get(model.HEAD, 0), document.get(model.TAIL, 0)
    numbers = range(head // model.QUEUE_PAGE, tail // model.QUEUE_PAGE + 1)
    for page in (await peek(shard, [model.queue_page(service, key, number) for number in numbers])).values():
        waiting |= page or {}
    return {entry: number for number, entry in waiting.items() if isinstance(entry, str)}


async def _scan_locks(shard: Shard, wanted: Scan, found: _Found) -> None:
    """Columns: service_name, service_key, invocation_id, acquired_at. Whatever exclusive invocation has started and not ended holds its
    key, from its start on."""
    holding = {**_of_key(wanted.where), "raw_status": ["invoked", "suspended", "paused"], "kind": ["exclusive"]}
    needed = columns_of.page_needed(["running_at"] if "acquired_at" in wanted.columns else [])
    async for batch in _invocations(shard, Scan("invocations", [], holding), needed):
        for invocation in batch:
            service, _, key, _ = invocation.row["t"]
            started_at = (invocation.document or {}).get(model.STARTED_AT)
            values = {"service_name": service, "service_key": key, "invocation_id": invocation.id, "acquired_at": started_at}
            found.add([values[name] for name in wanted.columns])


async def _scan_events(shard: Shard, wanted: Scan, found: _Found) -> None:
    """Columns: id, partition_key, after_journal_entry_index where it is known, appended_at, event_type, failure (engine/attempts.py).

    Of the failures of a series only the last is kept, until the invocation makes progress; of pauses the one that lasts.
    """
    async for batch in _invocations(shard, wanted, lambda row: listed.status_of(row) in columns_of.TRIED):
        for invocation in batch:
            for values in _events(invocation):
                found.add([values[name] for name in wanted.columns])


def _events(invocation: Invocation) -> list[dict[str, Any]]:
    document, failure = invocation.document, invocation.retry[3]
    if document is None:
        return []
    of_all = {"id": invocation.id, "partition_key": model.partition_key_of(invocation.id)}
    events = []
    if failure:
        events.append({"event_type": "TransientError", "appended_at": failure[7]})
    if invocation.status is model.Status.PAUSED:
        events.append({"event_type": "Paused", "appended_at": document[model.MODIFIED_AT]})
    for event in events:
        came_before = document[model.APPENDED_AT] <= event["appended_at"]  # then the journal is as long as it was
        event |= {**of_all, "failure": failure, "after_journal_entry_index": document[model.LENGTH] - 1 if came_before else None}
    return events


def _of_key(where: Where) -> dict[str, Sequence[str]]:
    names = {"service_name": "target_service_name", "service_key": "target_service_key", "id": "id", "invocation_id": "id"}
    return {names[name]: allowed for name, allowed in where.items()}


async def _scan_state(shard: Shard, wanted: Scan, found: _Found) -> None:
    """Columns: service_name, service_key, key, value, value_length."""
    async for service, key, document in _keys(shard, wanted.where):
        sizes = {name: size_of(value) for name, value in document[model.STATE].items()} | document[model.SPILLED]
        names = [name for name in sorted(sizes) if "key" not in wanted.where or name in wanted.where["key"]]
        spilled = (
            [model.state_page(service, key, name) for name in names if name in document[model.SPILLED]] if "value" in wanted.columns else []
        )
        pages = await peek(shard, spilled)
        for name in names:
            value = document[model.STATE].get(name)
            if value is None and "value" in wanted.columns:
                value = (pages.get(model.state_page(service, key, name)) or {}).get(key_state.VALUE)
                if value is None:
                    continue  # cleared while we were looking
            if "value" in wanted.columns:
                found.weigh(size_of(value))
                value = await _bytes_of(shard, value)
            values = {"service_name": service, "service_key": key, "key": name, "value": value, "value_length": sizes[name]}
            found.add([values[column] for column in wanted.columns])


async def _scan_promises(shard: Shard, wanted: Scan, found: _Found) -> None:
    """Columns: service_name, service_key, key, completed, completion_success_value, completion_failure."""
    async for service, key, document in _keys(shard, wanted.where):
        names = sorted(name for name in [*document[model.PROMISES], *document[model.PROMISES_SPILLED]])
        pages = await peek(shard, [model.promise_page(service, key, name) for name in document[model.PROMISES_SPILLED]])
        for name in names:
            result = document[model.PROMISES].get(name)
            if result is None:
                result = (pages.get(model.promise_page(service, key, name)) or {}).get(promise.VALUE)
            if result is None or ("key" in wanted.where and name not in wanted.where["key"]):
                continue
            value = None
            if result[0] == "v" and "completion_success_value" in wanted.columns:
                found.weigh(size_of(result[1]))
                value = await _bytes_of(shard, result[1])
            values = {
                "service_name": service,
                "service_key": key,
                "key": name,
                "completed": result[0] != LISTENING,
                "completion_success_value": value,
                "completion_failure": f"[{result[1]}] {result[2]}" if result[0] == "f" else None,
            }
            found.add([values[column] for column in wanted.columns])


async def _keys(shard: Shard, where: Where) -> AsyncIterator[tuple[str, str, Document]]:
    """(service, key, page) of the keys that may pass `where`; only those with state or promises have to be found."""
    if "service_name" in where and "service_key" in where:
        pairs = [(service, key) for service in where["service_name"] for key in where["service_key"]]
        async for found in _existing(shard, pairs):
            yield found
        return
    index = shard.pages[model.listing_index(shard.number)].document or {}
    pages = [model.keys_page(shard.number, number) for number in index.get("kp", {})]
    async for document in listed.index_pages(shard, pages):
        services = where.get("service_name", list(document))
        pairs = [(service, key) for service in services for key in document.get(service, ())]
        pairs = [(service, key) for service, key in pairs if key in where.get("service_key", [key])]
        async for found in _existing(shard, pairs):
            yield found


async def _existing(shard: Shard, pairs: list[tuple[str, str]]) -> AsyncIterator[tuple[str, str, Document]]:
    for start in range(0, len(pairs), PAGES):
        chunk = pairs[start : start + PAGES]
        documents = await peek(shard, [model.key_page(service, key) for service, key in chunk])
        for service, key in chunk:
            document = documents[model.key_page(service, key)]
            if document is not None:
                yield service, key, document
        await asyncio.sleep(0)


_SOURCES: Final[Mapping[str, Callable[[Shard, Scan, _Found], Coroutine[Any, Any, None]]]] = {
    "invocations": _scan_invocations,
    "journal": _scan_journal,
    "events": _scan_events,
    "inbox": _scan_inbox,
    "locks": _scan_locks,
    "state": _scan_state,
    "promises": _scan_promises,
}
