"""Ids of new invocations: a pure function of workflow or idempotency key where there is one, so that the id is the dedupe key
(service protocol §7.3); else random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdfast.protocol import ids
from holdfast.protocol.ids import InvocationId
from holdfast_runtime.coordinator.front import NewInvocation
from holdfast_runtime.engine import model
from holdfast_runtime.engine.registry import HandlerKind

RANDOM_BYTES: Final = 18


def mint(
    invocation: NewInvocation, kind: HandlerKind, random: bytes, *, now_ms: int, shards: int, preferred: Sequence[int]
) -> InvocationId:
    """`random`: RANDOM_BYTES of them. `preferred`: the shards that an invocation without a key may fall into; empty: any."""
    target = invocation.target
    if kind is HandlerKind.RUN:
        return ids.workflow_run_id(target.service, target.key or "")
    if invocation.idempotency_key is not None:
        return ids.idempotent_id(target.service, target.handler, invocation.idempotency_key, target.key)
    if target.key is not None:
        partition_key = ids.keyed_partition_key(target.key)
    else:
        offset = int.from_bytes(random[10:], "big")
        candidates = preferred or range(shards)
        partition_key = model.partition_key_in(candidates[offset % len(candidates)], shards, offset)
    return ids.random_invocation_id(partition_key, now_ms, random[:10])
