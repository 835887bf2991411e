"""Who owns which shard, in the table: records of shards and of processes, and what this process knows of them.

Two rules of `dynamodb` are kept here: appends only within `SEEN_S` of a reading (3), and no shard whose log may have
begun to expire is taken (4).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from holdfast_runtime.adapters import dynamodb_items as items
from holdfast_runtime.adapters.dynamodb_client import OLD_ITEM, DynamoDbClient, LostRace, read_partition
from holdfast_runtime.ports.store import Member, ShardRecord, StoreUnavailable

SEEN_S: Final = 600.0  # how old the last reading of the shards may be at an append; the owner's own limit is 10 s


class Seen:
    """What this process knows of the shards' epochs, and since when by the service's clock (rule 3). Opening has read them."""

    def __init__(self, client: DynamoDbClient) -> None:
        self._client = client
        self._at_ms = client.now_ms()
        self._epochs: dict[int, int] = {}

    def saw(self, records: Mapping[int, ShardRecord], asked_at_ms: int) -> None:
        self._at_ms = asked_at_ms
        for record in records.values():
            self.raised(record)

    def raised(self, record: ShardRecord) -> None:
        self._epochs[record.shard] = max(record.epoch, self._epochs.get(record.shard, 0))

    def epoch(self, shard: int) -> int:
        return self._epochs.get(shard, 0)

    def check(self) -> None:
        age_s = (self._client.now_ms() - self._at_ms) / 1000
        if age_s > SEEN_S:
            raise StoreUnavailable(
                f"the shards were read {age_s:.0f} s ago, so this process may have been overtaken; it appends again when it has read them"
            )


class DynamoDbLeases:
    def __init__(self, client: DynamoDbClient, seen: Seen) -> None:
        self._client = client
        self._seen = seen
        self._acquired: dict[int, int] = {}  # shard -> epoch, of those that this process has taken

    async def read(self) -> tuple[Mapping[int, ShardRecord], Mapping[str, Member]]:
        asked_at_ms = self._client.now_ms()
        shards, members = await asyncio.gather(
            read_partition(self._client, "lease", items.SHARDS_KEY), read_partition(self._client, "member", items.MEMBERS_KEY)
        )
        records = {record.shard: record for record in (items.shard_of(item) for item in shards if item["sk"]["S"] != items.SETUP)}
        self._seen.saw(records, min(asked_at_ms, self._client.now_ms()))  # our clock may have been corrected meanwhile
        for item in shards:
            await self._say_alive(item)
        return records, {member.process_id: member for member in map(items.member_of, members)}

    async def _say_alive(self, item: items.Item) -> None:
        """Once a day, so that nobody takes an idle owner for one that died long ago. Tried again at the next reading."""
        now_s = self._client.now_ms() // 1000
        if item["sk"]["S"] == items.SETUP or now_s - items.int_of(item, "at") < items.ALIVE_EVERY_S:
            return
        record = items.shard_of(item)
        if self._acquired.get(record.shard) == record.epoch:
            with contextlib.suppress(StoreUnavailable):
                await self._update(record.shard, "SET #a = :a", "e = :e", {":e": record.epoch, ":a": now_s})

    async def acquire(self, shard: int, *, seen_epoch: int, owner: str) -> ShardRecord | None:
        now_s = self._client.now_ms() // 1000
        values: dict[str, int | str] = {":n": seen_epoch + 1, ":e": seen_epoch, ":o": owner, ":a": now_s}
        values |= {":none": "", ":sure": now_s - items.SURE_S}
        condition = "e = :e AND (#o = :none OR #a > :sure)"
        answer = await self._update(shard, "SET e = :n, #o = :o, #a = :a", condition, values)
        if isinstance(answer, LostRace):
            record = _own_first_try(answer, seen_epoch + 1, owner)
            if record is None and answer.item is not None and items.int_of(answer.item, "e") == seen_epoch:
                raise StoreUnavailable(_expired_log(shard, answer.item))
        else:
            record = items.shard_of({**items.shard_key(shard), **answer["Attributes"]})
        if record is not None:
            self._seen.raised(record)
            self._acquired[shard] = record.epoch
        return record

    async def checkpoint(self, shard: int, *, epoch: int, checkpoint: int, tip: int) -> bool:
        values = {":e": epoch, ":c": checkpoint, ":t": tip, ":a": self._client.now_ms() // 1000}
        return not isinstance(await self._update(shard, "SET cp = :c, tip = :t, #a = :a", "e = :e AND cp <= :c", values), LostRace)

    async def release(self, shard: int, *, epoch: int) -> bool:
        answer = await self._update(shard, "SET e = :n, #o = :o", "e = :e", {":n": epoch + 1, ":e": epoch, ":o": ""})
        return not isinstance(answer, LostRace) or _own_first_try(answer, epoch + 1, "") is not None

    async def _update(self, shard: int, update: str, condition: str, values: Mapping[str, int | str]) -> dict[str, Any] | LostRace:
        request: dict[str, Any] = {
            "TableName": self._client.table,
            "Key": items.shard_key(shard),
            "UpdateExpression": update,
            "ConditionExpression": condition,
            "ExpressionAttributeValues": {
                name: items.text(value) if isinstance(value, str) else items.number(value) for name, value in values.items()
            },
            "ReturnValues": "ALL_NEW",
            **OLD_ITEM,
        }
        names = {name: attribute for name, attribute in (("#o", "owner"), ("#a", "at")) if name in update}
        if names:
            request["ExpressionAttributeNames"] = names
        return await self._client.attempt("UpdateItem", "lease", request, patience_s=self._client.patience.call_s)

    async def heartbeat(self, member: Member) -> None:
        item = items.member_item(member, now_s=self._client.now_ms() // 1000)
        await self._client.call(
            "PutItem", "member", {"TableName": self._client.table, "Item": item}, patience_s=self._client.patience.call_s
        )

    async def leave(self, process_id: str) -> None:
        request = {"TableName": self._client.table, "Key": items.member_key(process_id)}
        await self._client.call("DeleteItem", "member", request, patience_s=self._client.patience.call_s)


def _expired_log(shard: int, item: items.Item) -> str:
    last = datetime.fromtimestamp(items.int_of(item, "at"), UTC).strftime("%Y-%m-%d")
    return (
        f"shard {shard} was last owned on {last} and not handed over; its log ahead of the checkpoint may have expired since. Restore "
        "the table to a moment before that, or accept that the last minutes before the crash may be lost: "
        "`holdfast store init --accept-lost-log`"
    )


def _own_first_try(lost: LostRace, epoch: int, owner: str) -> ShardRecord | None:
    """The record, when it is what an earlier try of the same call has written and its answer was lost."""
    if not lost.repeated or lost.item is None:
        return None
    there = items.shard_of(lost.item)
    return there if (there.epoch, there.owner) == (epoch, owner) else None
