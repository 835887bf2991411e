"""What operators see of a shard: lists from the packed indexes, single invocations and state from their pages."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from holdfast.protocol import messages
from holdfast.protocol.messages import MessageType
from holdfast_runtime.coordinator.scans import peek
from holdfast_runtime.engine import journal, key_state, model
from holdfast_runtime.engine.accept import is_over
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.payload import Entry, Payload, entry_size, entry_type, materialize
from holdfast_runtime.engine.transaction import NeedPages, Transaction

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.shard import Shard

_NAMES: Final = {
    Status.SCHEDULED: "scheduled",
    Status.QUEUED: "pending",
    Status.SUSPENDED: "suspended",
    Status.PAUSED: "paused",
    Status.DONE: "completed",
}
_KINDS: Final = {"service": "service", "exclusive": "virtual_object", "shared": "virtual_object", "run": "workflow"}
_LIST_PAGES: Final = 64  # index pages loaded together


async def rows(shard: Shard, where: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of `where` = {service, handler, key, status, limit}, newest first. Reads the index pages only.

    Live ones first: one that ends meanwhile is then found among the finished, whose pages are looked up after that.
    """
    found: dict[str, dict[str, Any]] = {}
    for page_ids in (_live_pages, _finished_pages):
        wanted = page_ids(shard)
        for start in range(0, len(wanted), _LIST_PAGES):
            for page in (await peek(shard, wanted[start : start + _LIST_PAGES])).values():
                for invocation, row in (page or {}).items():
                    listed = _row(shard, invocation, row)
                    if listed is not None:
                        found[invocation] = listed
    chosen = [row for row in found.values() if _matches(row, where)]
    chosen.sort(key=lambda row: (row["created_at_ms"], row["id"]), reverse=True)
    await shard.until_durable(shard.barrier())
    shard.check_lease()
    return chosen[: where["limit"]]


def _live_pages(shard: Shard) -> list[str]:
    index = shard.pages[model.listing_index(shard.number)].document or {}
    return [model.live_page(shard.number, number) for number in index.get("p", {})]


def _finished_pages(shard: Shard) -> list[str]:
    index = shard.pages[model.listing_index(shard.number)].document or {}
    buckets = index.get("a", {}).items()
    return [model.finished_page(shard.number, bucket, number) for bucket, (last, _) in buckets for number in range(last + 1)]


def _row(shard: Shard, invocation: str, row: Document) -> dict[str, Any] | None:
    service, handler, key, kind = row["t"]
    listed = {
        "id": invocation,
        "target": "/".join([service, *([key] if key is not None else []), handler]),
        "target_service_name": service,
        "target_service_key": key,
        "target_handler_name": handler,
        "target_service_ty": _KINDS[kind],
        "created_at_ms": row["c"],
    }
    if "x" in row:
        if row["x"] <= shard.environment.clock.now_ms():
            return None
        outcome = "failure" if row["f"] else "success"
        return listed | {"status": "completed", "completed_at_ms": row["e"], "completion_result": outcome}
    return listed | {"status": _status(shard, invocation, Status(row["s"]))}


def _status(shard: Shard, invocation: str, status: Status, retry: Any = None) -> str:
    if status is not Status.RUNNING:
        return _NAMES[status]
    if shard.attempts.in_flight(invocation):
        return "running"
    page = shard.pages.get(model.invocation_page(invocation))
    retry = retry if retry is not None or page is None or page.document is None else page.document.get(model.RETRY)
    return "backing-off" if retry and retry[2] is not None else "ready"


def _matches(row: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    pairs = (
        ("service", "target_service_name"),
        ("handler", "target_handler_name"),
        ("key", "target_service_key"),
        ("status", "status"),
    )
    return all(where[name] is None or row[column] == where[name] for name, column in pairs)


async def describe(shard: Shard, invocation: str) -> dict[str, Any] | None:
    """One row with all that is known, and "journal". None: unknown or past its retention."""
    while True:
        shard.check()
        tx = shard.transaction()
        try:
            described = _describe(shard, tx, invocation)
            break
        except NeedPages as needed:
            await shard.load(needed.page_ids)
    if described is not None:
        described["journal"] = [await _journal_row(shard, index, entry) for index, entry in described["journal"]]
    await shard.until_durable(shard.barrier())
    shard.check_lease()
    return described


def _describe(shard: Shard, tx: Transaction, invocation: str) -> dict[str, Any] | None:
    document = tx.get(model.invocation_page(invocation))
    if document is None or is_over(document, tx.now):
        return None
    retry = document.get(model.RETRY)
    row = {"t": document[model.TARGET], "c": document[model.CREATED_AT], "s": document[model.STATUS]}
    described = _row(shard, invocation, row)
    assert described is not None
    result = document.get(model.RESULT)
    described |= {
        "status": _status(shard, invocation, Status(document[model.STATUS]), retry),
        "modified_at_ms": document[model.MODIFIED_AT],
        "running_at_ms": document.get(model.STARTED_AT),
        "scheduled_start_at_ms": document.get(model.EXECUTE_AT),
        "idempotency_key": document.get(model.IDEMPOTENCY_KEY),
        "invoked_by": _invoked_by(document),
        "restarted_from": document.get(model.RESTARTED_FROM),
        "invoked_by_id": document[model.SOURCE][0] if document[model.SOURCE] else None,
        "pinned_deployment_id": document.get(model.DEPLOYMENT),
        "pinned_service_protocol_version": document.get(model.VERSION),
        "journal_size": document[model.LENGTH],
        "completion_retention_ms": document[model.RETENTION],
        "journal_retention_ms": document[model.JOURNAL_RETENTION],
        "awaiting": document.get(model.AWAITING),
        "journal": list(journal.entries(tx, invocation, document)),
    }
    if retry:
        described |= _retry_columns(retry)
    if result is not None:
        described |= {"completed_at_ms": document[model.COMPLETED_AT], "expires_at_ms": document.get(model.EXPIRES_AT)}
        failed = result[0] == "f"
        described["completion_result"] = "failure" if failed else "success"
        if failed:
            described["completion_failure"] = f"[{result[1]}] {result[2]}"
    return described


def _invoked_by(document: Document) -> str:
    if document.get(model.RESTARTED_FROM) is not None:
        return "restart_as_new"
    return "service" if document[model.SOURCE] else "ingress"


def _retry_columns(retry: list[Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {"retry_count": retry[0], "next_retry_at_ms": retry[2]}
    if len(retry) > 3 and retry[3]:
        code, text, error_code, index, name, type_, _, at_ms, deployment = retry[3]
        columns |= {
            "last_failure": f"[{code}] {text}",
            "last_failure_error_code": error_code,
            "last_failure_related_command_index": index,
            "last_failure_related_command_name": name,
            "last_failure_related_command_type": MessageType(type_).name if type_ in set(MessageType) else None,
            "last_failure_at_ms": at_ms,
            "last_attempt_deployment_id": deployment or None,
        }
    return columns


async def _journal_row(shard: Shard, index: int, entry: Entry) -> dict[str, Any]:
    type_ = entry_type(entry)
    row: dict[str, Any] = {"index": index, "type": MessageType(type_).name, "bytes": entry_size(entry)}
    if isinstance(entry, list):
        contents = {chunk.id: await shard.environment.store.blobs.get(chunk.id) for chunk in entry if not isinstance(chunk, bytes)}
        entry = materialize(entry, contents)
    message = messages.parse(type_, entry[8:])
    fields = {field.name for field, _ in message.ListFields()}
    named = "entry_name" if "entry_name" in fields else "name" if "name" in fields else None
    row["name"] = str(getattr(message, named)) if named is not None else None
    for name in ("result_completion_id", "completion_id", "idx", "wake_up_time", "invocation_id", "service_name", "handler_name"):
        if name in fields:
            row[name] = getattr(message, name)
    row["raw"] = base64.b64encode(entry[8:]).decode()
    return row


async def payloads(shard: Shard, service: str, key: str) -> list[tuple[str, Payload]]:
    """The state of a key, large values as references."""
    while True:
        shard.check()
        tx = shard.transaction()
        try:
            return key_state.read_all(tx, service, key)[0]
        except NeedPages as needed:
            await shard.load(needed.page_ids)


async def contents_of(shard: Shard, values: list[tuple[str, Payload]]) -> dict[str, bytes]:
    """`values` with large ones read, durable."""
    contents = {value.id: await shard.environment.store.blobs.get(value.id) for _, value in values if not isinstance(value, bytes)}
    await shard.until_durable(shard.barrier())
    shard.check_lease()
    return {name: materialize(value, contents) for name, value in values}


async def state_of(shard: Shard, service: str, key: str) -> dict[str, bytes]:
    """The state of a key as of now, durable."""
    return await contents_of(shard, await payloads(shard, service, key))
