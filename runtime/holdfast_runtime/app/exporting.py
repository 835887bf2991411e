"""A journal as a document that can be replayed later (docs/cli.md, "Exported journals").

Rules: what the handler sent and received is kept byte for byte, as base64; everything else in the document is for readers.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from holdfast.protocol.messages import MessageType
from holdfast_runtime.app import ages, timeline
from holdfast_runtime.app.errors import CliError
from holdfast_runtime.app.http import Api

FORMAT: Final = "holdfast.journal"
VERSION: Final = 1
_ABOUT: Final = (
    "id",
    "target",
    "target_service_name",
    "target_service_ty",
    "target_service_key",
    "target_handler_name",
    "idempotency_key",
    "invoked_by",
    "invoked_by_id",
    "created_at_ms",
    "completed_at_ms",
    "status",
    "completion_result",
    "completion_failure",
    "pinned_deployment_id",
    "pinned_service_protocol_version",
    "random_seed",
)


def exported(api: Api, invocation_id: str) -> dict[str, Any]:
    """Raises CliError."""
    row = api.get(f"/holdfast/invocations/{invocation_id}")
    if not row["journal"]:
        when = "was purged or is not kept any more" if row["status"] == "completed" else "is still empty: it has not started"
        raise CliError(f"the journal of {invocation_id} {when}; there is nothing to export")
    readable = {step.index: step for step in timeline.steps(row["journal"])}
    return {
        "format": FORMAT,
        "version": VERSION,
        "exported_at_ms": ages.now_ms(),
        "invocation": {name: row.get(name) for name in _ABOUT},
        "complete": len(row["journal"]) == row["journal_size"],
        "input": _input(row["journal"]),
        "state": _state(api, row),
        "entries": [_entry(entry, readable.get(entry["index"])) for entry in row["journal"]],
    }


def _entry(entry: dict[str, Any], step: timeline.Step | None) -> dict[str, Any]:
    known = {"index": entry["index"], "type": entry["type"], "type_code": int(MessageType[entry["type"]]), "raw": entry["raw"]}
    return known | ({"reads": f"{step.title}: {step.outcome}" if step.outcome else step.title} if step is not None else {})


def _input(journal: list[dict[str, Any]]) -> dict[str, Any] | None:
    import base64

    if not journal or journal[0]["type"] != MessageType.INPUT_COMMAND.name:
        return None
    _, message = timeline.parse(journal[0])
    headers = [[header.key, header.value] for header in message.headers]
    return {"headers": headers, "body": base64.b64encode(message.value.content).decode()}


def _state(api: Api, row: dict[str, Any]) -> dict[str, Any] | None:
    """Of the key, at the time of the export: what the handler saw stands in its get-state entries. None for a plain service."""
    service, key = row["target_service_name"], row["target_service_key"]
    if key is None:
        return None
    found = api.get(f"/holdfast/state/{quote(service, safe='')}/{quote(key, safe='')}")["state"]
    return {"taken_at_ms": ages.now_ms(), "values": {name: value["base64"] for name, value in sorted(found.items())}}
