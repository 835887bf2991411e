"""The engine's process: one statement after the other from standard input, answers to standard output (see `frames`).

A statement is planned over empty tables; what the plan reads is asked from the server; then it runs over the rows that came. The process
has a limit on its memory, is killed when a statement takes too long, and ends when its input does.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext, SQLOptions

from holdfast_runtime.surfaces.introspection import arrow, encodings, frames
from holdfast_runtime.surfaces.introspection.catalogue import TABLES
from holdfast_runtime.surfaces.introspection.frames import Message
from holdfast_runtime.surfaces.introspection.pushdown import TableRead, reads_of

MAX_ROWS: Final = 200_000  # of one table in one statement
EXTRA_BYTES: Final = 1024 * 1024 * 1024  # of address space, at least, beyond what the process has when it is ready
KEPT_BYTES: Final = 512 * 1024 * 1024  # a process that once held more than this, and than twice its limit, is not used again

_READ_ONLY: Final = SQLOptions().with_allow_ddl(False).with_allow_dml(False).with_allow_statements(False)


class Refused(Exception):
    """status: of the HTTP answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def main() -> None:
    """Arguments: bytes that operators may hold; seconds after which a statement that nobody has killed ends the process."""
    pool_bytes, deadline_s = int(sys.argv[1]), float(sys.argv[2])
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the messages
    _limit_memory(max(EXTRA_BYTES, 4 * pool_bytes))
    while (question := _receive(source)) is not None:
        try:
            with _deadline(deadline_s):
                content = answer(question["query"], json=question["json"], pool_bytes=pool_bytes, source=source, sink=sink)
            for start in range(0, len(content), frames.CHUNK_BYTES):
                _send(sink, {"bytes": content[start : start + frames.CHUNK_BYTES]})
            _send(sink, {"end": True})
        except Refused as refused:
            _send(sink, {"error": [refused.status, str(refused)]})
        if _peak_bytes() > max(KEPT_BYTES, 2 * pool_bytes):
            return


def answer(statement: str, *, json: bool, pool_bytes: int, source: BinaryIO, sink: BinaryIO) -> bytes:
    """Raises Refused."""
    context = _context(pool_bytes)
    frame = _plan(context, statement)
    reads = reads_of(frame.optimized_logical_plan())
    tables: dict[str, list[Any]] = {}
    seen: dict[str, set[tuple[Any, ...]]] = {}
    for read in reads:
        several = sum(other.table.name == read.table.name for other in reads) > 1
        batches = tables.setdefault(read.table.name, [])
        batches += _rows(read, seen.setdefault(read.table.name, set()) if several else None, reads, source, sink)
    if any(tables.values()):
        for name, batches in tables.items():
            context.deregister_table(name)
            context.from_arrow(pa.Table.from_batches(batches, schema=arrow.schema(TABLES[name])), name=name)
        frame = _plan(context, statement)
    return _execute(frame, json=json)


def _context(pool_bytes: int) -> SessionContext:
    config = (
        SessionConfig()
        .with_create_default_catalog_and_schema(True)
        .with_default_catalog_and_schema("restate", "public")
        .with_information_schema(True)
        .with_target_partitions(1)
    )
    context = SessionContext(config, RuntimeEnvBuilder().with_disk_manager_disabled().with_greedy_memory_pool(pool_bytes))
    for name, table in TABLES.items():
        context.from_arrow(arrow.schema(table).empty_table(), name=name)
    return context


def _plan(context: SessionContext, statement: str) -> Any:
    try:
        return context.sql_with_options(statement, _READ_ONLY)
    except Exception as error:  # the engine has no types of its own for what is wrong
        raise _refusal(error) from error


def _refusal(error: Exception) -> Refused:
    """Syntax, and what is not allowed: 400. Names that do not exist and everything later: 500 (http-api §2.9)."""
    text = str(error).removeprefix("DataFusion error: ")
    client = text.startswith("SQL error") or (text.startswith("Error during planning") and not text.endswith("not found"))
    return Refused(400 if client else 500, f"Datafusion error: {text}")


def _execute(frame: Any, *, json: bool) -> bytes:
    encode = encodings.encode_json if json else encodings.encode_arrow
    try:
        return encode(frame.schema(), (batch.to_pyarrow() for batch in frame.execute_stream()))
    except Exception as error:
        text = str(error).removeprefix("DataFusion error: ")
        raise Refused(500, f"Datafusion error: {text}") from error


def _rows(read: TableRead, seen: set[tuple[Any, ...]] | None, reads: list[TableRead], source: BinaryIO, sink: BinaryIO) -> Iterator[Any]:
    """Batches of what the server has. seen: rows of the same table that are there already, None when nobody else reads it."""
    table = read.table
    if table.source is None or any(not values for values in read.where.values()):
        return
    columns = read.columns
    if seen is not None:  # rows of several reads share one table, so all must have what any of them needs
        columns = frozenset().union(*(other.columns for other in reads if other.table.name == table.name))
    wanted = arrow.source_columns(table, columns)
    names = sorted({*wanted, *(table.identity if seen is not None else ())})
    limit = MAX_ROWS if read.limit is None else min(read.limit, MAX_ROWS)
    where = {name: sorted(values) for name, values in read.where.items()}
    either = [{name: sorted(values) for name, values in group.items()} for group in read.either]
    bounds = {"since_ms": read.since_ms, "until_ms": read.until_ms, "order": read.order, "either": either}
    _send(sink, {"read": {"source": table.source, "columns": names, "where": where, "limit": limit, **bounds}})
    while (part := _receive(source)) is not None and "rows" in part:
        rows = part["rows"]
        if seen is not None:
            rows = _new(rows, [names.index(name) for name in table.identity], seen)
        yield arrow.batch(table, columns, names, rows)
    if part is None:
        raise SystemExit
    if part["more"] == "bytes" or (part["more"] == "rows" and (read.limit is None or read.limit > MAX_ROWS)):
        raise _too_much(read, part["more"])


def _new(rows: list[list[Any]], identity: list[int], seen: set[tuple[Any, ...]]) -> list[list[Any]]:
    found = []
    for row in rows:
        name = tuple(row[position] for position in identity)
        if name not in seen:
            seen.add(name)
            found.append(row)
    return found


def _too_much(read: TableRead, limit: str) -> Refused:
    table = read.table
    narrowing = [name for name, column in table.columns.items() if column.of is None and column.reads and column.reads[0] in table.filters]
    how_much = f"{MAX_ROWS} rows" if limit == "rows" else "32 MB"
    advice = f"add a condition on {', '.join(narrowing)}" if narrowing else "add a condition"
    return Refused(500, f"the statement needs more than {how_much} of {table.name}; {advice}, with = or IN, or a LIMIT")


# ---- Pipes and limits


def _limit_memory(extra_bytes: int) -> None:
    """Where the system tells how much the process has (Linux); elsewhere only operators are limited."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + extra_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _peak_bytes() -> int:
    """The most memory this process ever held.

    Where the system tells it of this program alone (Linux, VmHWM): what getrusage tells is inherited from the program that started it
    (getrusage(2), ru_maxrss, is kept across execve).
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def _deadline(deadline_s: float) -> Iterator[None]:
    """The server kills what takes too long. If the server is gone itself, nobody else would."""
    timer = threading.Timer(deadline_s, os._exit, (1,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _send(sink: BinaryIO, message: Message) -> None:
    sink.write(frames.encode(message))
    sink.flush()


def _receive(source: BinaryIO) -> Message | None:
    """None: the server is gone."""
    head = source.read(frames.LENGTH.size)
    if len(head) < frames.LENGTH.size:
        return None
    body = source.read(frames.LENGTH.unpack(head)[0])
    return frames.decode(body)


if __name__ == "__main__":
    main()
