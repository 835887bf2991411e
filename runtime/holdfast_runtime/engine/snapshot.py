"""What one attempt is given: Start, the journal so far, and where it goes (service protocol §4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import xxhash

from holdfast.protocol import frames, versions
from holdfast.protocol.ids import InvocationId
from holdfast.protocol.messages import MessageType, Start
from holdfast_runtime.engine import journal, key_state, model
from holdfast_runtime.engine.payload import BlobRef, Entry, Payload, blob_refs, materialize
from holdfast_runtime.engine.registry import Deployment, HandlerKind, HandlerRevision, RegistryView
from holdfast_runtime.engine.retry import handler_of
from holdfast_runtime.engine.transaction import Transaction

EAGER_STATE_BYTES = 256 * 1024  # the map is sent with every attempt; service protocol §4.3 leaves the limit to us


@dataclass(slots=True)
class Snapshot:
    """lsn: the last batch that changed anything in it; the request may leave only when that is durable (storage design §6 Attempt)."""

    invocation: str
    deployment: Deployment
    version: int
    path: str
    headers: dict[str, str]
    known: int
    lsn: int
    abort_timeout_ms: int
    start: Start
    entries: list[Entry]
    state: list[tuple[str, Payload]]

    def blobs(self) -> list[BlobRef]:
        return blob_refs([*self.entries, *(value for _, value in self.state)])

    def body(self, contents: dict[str, bytes]) -> bytes:
        """The request body; `contents` holds every blob of `blobs()`."""
        for name, value in self.state:
            self.start.state_map.add(key=name.encode(), value=materialize(value, contents))
        head = frames.encode(MessageType.START, self.start.SerializeToString())
        return head + b"".join([entry if isinstance(entry, bytes) else materialize(entry, contents) for entry in self.entries])


class Unservable(Exception):
    """No deployment can take this attempt: unknown service, or the pinned deployment was removed. Retried like a failed attempt."""

    def __init__(self, message: str, error_code: str) -> None:
        super().__init__(message)
        self.error_code = error_code


def snapshot(tx: Transaction, invocation: str, *, eager_state_bytes: int = EAGER_STATE_BYTES) -> Snapshot | None:
    """What the next attempt of a running invocation is given; None when it is not running any more. Raises NeedPages, Unservable."""
    page_id = model.invocation_page(invocation)
    document = tx.get(page_id)
    if document is None or document[model.STATUS] != model.Status.RUNNING:
        return None
    service, handler, key, kind = document[model.TARGET]
    deployment = _deployment(tx, document, service)
    revision = handler_of(tx.registry, service, handler, deployment.id)
    entries = [entry for _, entry in journal.entries(tx, invocation, document)]
    values, complete = _state(tx, service, key, kind, revision, eager_state_bytes)
    read = [page_id, *journal.page_ids(invocation, document)]
    if key is not None:
        read += [model.key_page(service, key), *(model.state_page(service, key, name) for name, _ in values)]
    lsn = max(tx.pages[page].lsn for page in read if page in tx.pages)
    version = document.get(model.VERSION) or deployment.protocol_version
    return Snapshot(
        invocation=invocation,
        deployment=deployment,
        version=version,
        path=f"/invoke/{service}/{handler}",
        headers=_headers(invocation, version, key),
        known=len(entries),
        lsn=lsn,
        abort_timeout_ms=revision.abort_timeout_ms if revision is not None else 600_000,
        start=_start(tx, invocation, document, len(entries), partial=key is None or not complete),
        entries=entries,
        state=values,
    )


def destination(registry: RegistryView, document: dict[Any, Any]) -> str:
    """Id of the deployment that the next attempt of an invocation goes to as things stand; empty when nobody serves it."""
    pinned: str | None = document.get(model.DEPLOYMENT)
    if pinned is not None:
        return pinned
    latest = registry.deployment_of(document[model.TARGET][0])
    return latest.id if latest is not None else ""


def _deployment(tx: Transaction, document: dict[Any, Any], service: str) -> Deployment:
    pinned = document.get(model.DEPLOYMENT)
    if pinned is not None:
        found = tx.registry.deployments.get(pinned)
        if found is None:
            raise Unservable(
                f"the deployment {pinned} that this invocation is pinned to was removed; register its code, then pause and resume it there",
                "RT0011",
            )
        return found
    latest = tx.registry.deployment_of(service)
    if latest is None:
        raise Unservable(f"no deployment serves {service}; register one", "RT0011")
    return latest


def _state(
    tx: Transaction, service: str, key: str | None, kind: str, revision: HandlerRevision | None, limit: int
) -> tuple[list[tuple[str, Payload]], bool]:
    if key is None or kind == HandlerKind.SERVICE.value:
        return [], False
    if revision is not None and revision.lazy_state:
        return [], False
    return key_state.read_all(tx, service, key, limit=limit)


def _start(tx: Transaction, invocation: str, document: dict[Any, Any], known: int, *, partial: bool) -> Start:
    raw, _ = _identity(invocation)
    retry = document.get(model.RETRY) or (0, 0)
    return Start(
        id=raw,
        debug_id=invocation,
        known_entries=known,
        partial_state=partial,
        key=document[model.TARGET][2] or "",
        retry_count_since_last_stored_entry=retry[1],
        duration_since_last_stored_entry=max(0, tx.now - document[model.APPENDED_AT]),
        random_seed=random_seed(invocation, document),
    )


def random_seed(invocation: str, document: Mapping[Any, Any]) -> int:
    """Of `ctx.random` in every attempt; one that goes on with the journal of another goes on with its numbers, too."""
    return _identity(document.get(model.SEED_OF) or invocation)[1]


@lru_cache(maxsize=8192)
def _identity(invocation: str) -> tuple[bytes, int]:
    raw = InvocationId.parse(invocation).raw
    return raw, xxhash.xxh3_64_intdigest(raw)  # any number that is stable will do (service protocol §4.6); this one is cheap


def _headers(invocation: str, version: int, key: str | None) -> dict[str, str]:
    content_type = versions.content_type(version)
    headers = {"content-type": content_type, "accept": content_type, "x-restate-invocation-id": invocation}
    if key is not None:
        headers["x-restate-service-key"] = quote(key, safe="")
    return headers
