"""What operators see of a shard: lists from the packed indexes, single invocations and state from their pages."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from holdfast.protocol import messages
from holdfast.protocol.messages import MessageType
from holdfast_runtime.coordinator import invocation_columns as columns_of
from holdfast_runtime.coordinator import scans
from holdfast_runtime.coordinator.front import NEWEST, Scan
from holdfast_runtime.coordinator.invocation_columns import Invocation
from holdfast_runtime.coordinator.scans import appended_at
from holdfast_runtime.engine import journal, key_state, listing, model
from holdfast_runtime.engine.accept import is_over
from holdfast_runtime.engine.model import Document
from holdfast_runtime.engine.payload import Entry, Payload, entry_size, entry_type, materialize
from holdfast_runtime.engine.snapshot import random_seed
from holdfast_runtime.engine.transaction import NeedPages, Transaction

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.shard import Shard

_LISTED: Final = {
    "id": "id",
    "target": "target",
    "target_service_name": "target_service_name",
    "target_service_key": "target_service_key",
    "target_handler_name": "target_handler_name",
    "target_service_ty": "target_service_ty",
    "created_at_ms": "created_at",
    "status": "status",
    "completed_at_ms": "completed_at",
    "completion_result": "completion_result",
}
_FILTERS: Final = {
    "service": "target_service_name",
    "handler": "target_handler_name",
    "key": "target_service_key",
    "status": "status",
}


async def rows(shard: Shard, where: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of `where` = {service, handler, key, status, limit}, newest first."""
    conditions = {column: [where[name]] for name, column in _FILTERS.items() if where[name] is not None}
    wanted = Scan("invocations", list(_LISTED.values()), conditions, where["limit"], order=NEWEST)
    found = (await scans.scan(shard, wanted))["rows"]
    listed = [dict(zip(_LISTED, row, strict=True)) for row in found]
    for row in listed:
        if row["status"] != "completed":
            del row["completed_at_ms"], row["completion_result"]
    return sorted(listed, key=lambda row: (-row["created_at_ms"], row["id"]))


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
        found = [{**await _journal_row(shard, index, entry), **times} for index, entry, times in described["journal"]]
        described["journal"] = found
    await shard.until_durable(shard.barrier())
    shard.check_lease()
    return described


def _describe(shard: Shard, tx: Transaction, invocation: str) -> dict[str, Any] | None:
    document = tx.get(model.invocation_page(invocation))
    if document is None or is_over(document, tx.now):
        return None
    found = Invocation(shard, invocation, listing.row_of(document), document)
    described = {name: columns_of.values(shard, column, [found])[0] for name, column in _LISTED.items()}
    result = document.get(model.RESULT)
    described |= {
        "modified_at_ms": document[model.MODIFIED_AT],
        "trace_id": columns_of.values(shard, "trace_id", [found])[0],
        "running_at_ms": document.get(model.STARTED_AT),
        "scheduled_start_at_ms": document.get(model.EXECUTE_AT),
        "idempotency_key": document.get(model.IDEMPOTENCY_KEY),
        "invoked_by": _invoked_by(document),
        "restarted_from": document.get(model.RESTARTED_FROM),
        "invoked_by_id": document[model.SOURCE][0] if document[model.SOURCE] else None,
        "pinned_deployment_id": document.get(model.DEPLOYMENT),
        "pinned_service_protocol_version": document.get(model.VERSION),
        "random_seed": str(random_seed(invocation, document)),  # text: JSON readers elsewhere keep 53 bits of a number
        "journal_size": document[model.LENGTH],
        "completion_retention_ms": document[model.RETENTION],
        "journal_retention_ms": document[model.JOURNAL_RETENTION],
        "awaiting": document.get(model.AWAITING),
        "journal": [(index, entry, _times(document, index)) for index, entry in journal.entries(tx, invocation, document)],
    }
    if any(found.retry):
        described |= _retry_columns(found.retry)
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


def _times(document: Document, index: int) -> dict[str, int]:
    """When the entry was appended, where that is known: of the first and of the last one (docs/sql.md says what more would cost)."""
    at = appended_at(document, index)
    return {"appended_at_ms": at} if at is not None else {}


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
