"""The store in one DynamoDB table (storage design §2): log, pages, leases, registry; blobs here or in a bucket.

1. Operations used, nothing else: conditional PutItem and UpdateItem, GetItem, BatchGetItem, Query, and DeleteItem for
   members and blobs. Every read is strongly consistent. No transactions, no index.
2. Every write recognises its own first try, because a lost answer is tried again: log items by their nonce, pages by
   their LSN, epochs by their owner, registry documents by their bytes.
3. Log items expire by time, behind the checkpoint or not (`dynamodb_items.LOG_S`), so a free position may be one whose
   item is gone. Nobody writes there: an append happens only within `SEEN_S` of a reading of the shards' records,
   measured on the service's clock and checked before every try; the service refuses what was signed minutes ago; and a
   writer whose epoch this process has seen raised is told that its position is deleted. So a process that stood still
   for weeks, with all its clocks, first learns that it has been overtaken (invariants 7 and 14).
4. A shard whose owner died so long ago that its log may have begun to expire is not taken: StoreUnavailable says so.
   Its record says at least once a day that its owner lives. Nothing is ever lost silently.
5. Expired items that the service has not deleted yet are answered as they are: what is over is the engine's to say.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Final

from holdfast_runtime.adapters import dynamodb_items as items
from holdfast_runtime.adapters.aws_access import AwsAccess
from holdfast_runtime.adapters.dynamodb_client import DynamoDbClient, LostRace, Meter, Patience, Refused
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.s3_blobs import S3Blobs
from holdfast_runtime.adapters.system import SystemClock, SystemEntropy
from holdfast_runtime.ports.store import (
    MAX_ITEM_BYTES,
    Blobs,
    LogItem,
    Member,
    ShardRecord,
    Store,
    StoreBroken,
    StoredPage,
    StoreUnavailable,
    refuse_oversize,
)
from holdfast_runtime.ports.system import Clock, Entropy

SEEN_S: Final = 600.0  # how old the last reading of the shards may be at an append; the owner's own limit is 10 s
KEYS_PER_READ: Final = 100  # BatchGetItem
READS_AT_ONCE: Final = 8
UNPROCESSED_DELAY_S: Final = 0.02
MAX_UNPROCESSED_DELAY_S: Final = 1.0

_ABSENT: Final = "attribute_not_exists(pk)"
_OLD: Final = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}


async def open_dynamodb_store(
    table: DynamoDbTable,
    *,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
    meter: Meter | None = None,
    patience: Patience | None = None,
    access: AwsAccess | None = None,
) -> DynamoDbStore:
    """Open a table that `holdfast store init` has set up. Close it on the same event loop. access: shared with others, if given.

    Raises StoreBroken: no such table, not set up, of another version, no permission, no credentials; StoreUnavailable.
    """
    clock = clock or SystemClock()
    access = access or AwsAccess(clock)
    region = table.region or await access.region()
    if not region:
        raise StoreBroken(f"no AWS region is known for table {table.name}; set AWS_REGION, or name it: dynamodb://{table.name}?region=...")
    entropy = entropy or SystemEntropy()
    client = DynamoDbClient(table.name, clock=clock, entropy=entropy, access=access, region=region, meter=meter, patience=patience)
    try:
        found = await _query(client, "lease", items.SHARDS_KEY)
        return DynamoDbStore(client, *_setup_of(table.name, found))
    except Refused as refused:
        await client.close()
        raise StoreBroken(str(refused)) from refused
    except BaseException:
        await client.close()
        raise


def _setup_of(table: str, found: Sequence[items.Item]) -> tuple[int, str | None]:
    """(shards, bucket). Raises StoreBroken."""
    setup = next((item for item in found if item["sk"]["S"] == items.SETUP), None)
    shards = items.int_of(setup, "n") if setup is not None else 0
    if setup is None or {item["sk"]["S"] for item in found} != {items.SETUP, *(f"{shard:03d}" for shard in range(shards))}:
        raise StoreBroken(f"table {table} is not set up for Holdfast, or not completely; run `holdfast store init dynamodb://{table}`")
    version = items.int_of(setup, "v")
    if version != items.SCHEMA_VERSION:
        raise StoreBroken(
            f"table {table} has schema version {version}, this program knows {items.SCHEMA_VERSION}; "
            "use the program that set it up, or a newer one"
        )
    return shards, items.text_of(setup, "bucket") or None


class DynamoDbStore:
    """An open table; `store` is what the coordinator gets."""

    def __init__(self, client: DynamoDbClient, shards: int, bucket: str | None) -> None:
        self._closing = AsyncExitStack()
        self._closing.push_async_callback(client.close)
        seen = _Seen(client)
        in_table = TableBlobs(client)
        blobs: Blobs = in_table
        if bucket is not None:
            in_bucket = S3Blobs(bucket, client.region)
            self._closing.push_async_callback(in_bucket.close)
            blobs = BucketThenTable(in_bucket, in_table)
        self.store = Store(
            DynamoDbLog(client, seen), DynamoDbPages(client), DynamoDbLeases(client, seen), DynamoDbRegistry(client), blobs, shards
        )

    async def close(self) -> None:
        """May be called twice."""
        await self._closing.aclose()


class _Seen:
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


class DynamoDbLog:
    def __init__(self, client: DynamoDbClient, seen: _Seen) -> None:
        self._client = client
        self._seen = seen

    async def put(self, shard: int, item: LogItem) -> LogItem | None:
        refuse_oversize(item.operations)
        if item.epoch < self._seen.epoch(shard):
            return LogItem(item.position, self._seen.epoch(shard), b"", item.position, 0, 1, b"")
        request = {
            "TableName": self._client.table,
            "Item": items.log_item(shard, item, now_s=self._client.now_ms() // 1000),
            "ConditionExpression": _ABSENT,
            **_OLD,
        }
        answer = await self._client.attempt("PutItem", "log", request, before_each=self._seen.check)
        if not isinstance(answer, LostRace):
            return None
        if answer.item is None:
            raise StoreUnavailable(f"position {item.position} of shard {shard} is taken, but the service did not say by what")
        return items.log_item_of(answer.item)

    async def read(self, shard: int, first: int, limit: int) -> Sequence[LogItem]:
        run: list[LogItem] = []
        while len(run) < limit:
            start = first + len(run)
            starts = _partition_starts(start, limit - len(run))
            pieces = await asyncio.gather(*(self._read_partition(shard, one, start + limit - len(run) - one) for one in starts))
            for piece_first, piece in zip(starts, pieces, strict=True):
                run += piece
                if len(piece) < min(_partition_end(piece_first), first + limit) - piece_first:
                    return run
        return run

    async def _read_partition(self, shard: int, first: int, limit: int) -> list[LogItem]:
        """From `first` to the end of its partition, to a free position, or to the limit."""
        run: list[LogItem] = []
        limit = min(limit, _partition_end(first) - first)
        while len(run) < limit:
            answer = await self._client.call(
                "Query",
                "log",
                {
                    "TableName": self._client.table,
                    "ConsistentRead": True,
                    "KeyConditionExpression": "pk = :p AND sk >= :s",
                    "ExpressionAttributeValues": {
                        ":p": items.text(items.log_partition(shard, first)),
                        ":s": items.text(items.log_sort_key(first + len(run))),
                    },
                    "Limit": limit - len(run),
                },
            )
            for found in map(items.log_item_of, answer["Items"]):
                if found.position != first + len(run):
                    return run
                run.append(found)
            if "LastEvaluatedKey" not in answer:
                return run
        return run


def _partition_end(position: int) -> int:
    return (position // items.POSITIONS_PER_KEY + 1) * items.POSITIONS_PER_KEY


def _partition_starts(first: int, limit: int) -> list[int]:
    """Where to begin reading in each of the next partitions, so many as are read at once."""
    starts = [first]
    while len(starts) < READS_AT_ONCE and _partition_end(starts[-1]) < first + limit:
        starts.append(_partition_end(starts[-1]))
    return starts


class DynamoDbPages:
    def __init__(self, client: DynamoDbClient) -> None:
        self._client = client

    async def get(self, page_ids: Sequence[str]) -> Mapping[str, StoredPage]:
        if len(page_ids) == 1:
            return await self._get_one(page_ids[0])
        wanted = list(dict.fromkeys(page_ids))
        found: dict[str, StoredPage] = {}
        chunks = [wanted[start : start + KEYS_PER_READ] for start in range(0, len(wanted), KEYS_PER_READ)]
        for start in range(0, len(chunks), READS_AT_ONCE):
            for some in await asyncio.gather(*map(self._get_some, chunks[start : start + READS_AT_ONCE])):
                found |= some
        return found

    async def _get_one(self, page_id: str) -> dict[str, StoredPage]:
        request = {"TableName": self._client.table, "Key": items.page_key(page_id), "ConsistentRead": True}
        item = (await self._client.call("GetItem", "page", request)).get("Item")
        return {page_id: items.page_of(item)} if item is not None else {}

    async def _get_some(self, page_ids: Sequence[str]) -> dict[str, StoredPage]:
        """At most 100. The service answers as many as fit into 16 MB or its capacity, and names the rest: asked again."""
        by_key = {items.page_key(page_id)["pk"]["S"]: page_id for page_id in page_ids}
        found: dict[str, StoredPage] = {}
        keys = [items.page_key(page_id) for page_id in page_ids]
        delay = UNPROCESSED_DELAY_S
        while keys:
            table = self._client.table
            request = {"RequestItems": {table: {"Keys": keys, "ConsistentRead": True}}}
            answer = await self._client.call("BatchGetItem", "page", request)
            responses = answer.get("Responses", {}).get(table, [])
            for item in responses:
                found[by_key[item["pk"]["S"]]] = items.page_of(item)
            keys = answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])
            if keys and not responses:  # throttled, not merely large
                if delay > MAX_UNPROCESSED_DELAY_S:
                    raise StoreUnavailable(f"table {table} is throttled: {len(keys)} keys were not read")
                await self._client.sleep(delay)
                delay *= 2
        return found

    async def put(self, page_id: str, page: StoredPage, *, expires_at_ms: int | None = None) -> bool:
        refuse_oversize(page.document)
        request = {
            "TableName": self._client.table,
            "Item": items.page_item(page_id, page, now_s=self._client.now_ms() // 1000, expires_at_ms=expires_at_ms),
            "ConditionExpression": f"{_ABSENT} OR l < :l",
            "ExpressionAttributeValues": {":l": items.number(page.lsn)},
        }
        return not isinstance(await self._client.attempt("PutItem", f"page {page_id.partition('/')[0]}", request), LostRace)


class DynamoDbLeases:
    def __init__(self, client: DynamoDbClient, seen: _Seen) -> None:
        self._client = client
        self._seen = seen
        self._acquired: dict[int, int] = {}  # shard -> epoch, of those that this process has taken

    async def read(self) -> tuple[Mapping[int, ShardRecord], Mapping[str, Member]]:
        asked_at_ms = self._client.now_ms()
        shards, members = await asyncio.gather(
            _query(self._client, "lease", items.SHARDS_KEY), _query(self._client, "member", items.MEMBERS_KEY)
        )
        records = {record.shard: record for record in (items.shard_of(item) for item in shards if item["sk"]["S"] != items.SETUP)}
        self._seen.saw(records, asked_at_ms)
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
            **_OLD,
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


class DynamoDbRegistry:
    def __init__(self, client: DynamoDbClient) -> None:
        self._client = client

    async def load(self, name: str) -> tuple[int, bytes]:
        request = {"TableName": self._client.table, "Key": items.registry_key(name), "ConsistentRead": True}
        item = (await self._client.call("GetItem", "registry", request, patience_s=self._client.patience.call_s)).get("Item")
        return (items.int_of(item, "v"), items.content_of(item)) if item is not None else (0, b"")

    async def store(self, name: str, document: bytes, *, expected_version: int) -> bool:
        item = items.registry_item(name, expected_version + 1, document)
        if items.size_of(item) > MAX_ITEM_BYTES:
            raise ValueError(
                f"document '{name}' has {items.size_of(item)} bytes compressed, an item holds {MAX_ITEM_BYTES}; "
                "remove deployments that are not used any more"
            )
        request: dict[str, Any] = {"TableName": self._client.table, "Item": item, **_OLD}
        if expected_version == 0:
            request["ConditionExpression"] = _ABSENT
        else:
            request |= {"ConditionExpression": "v = :v", "ExpressionAttributeValues": {":v": items.number(expected_version)}}
        answer = await self._client.attempt("PutItem", "registry", request, patience_s=self._client.patience.call_s)
        if not isinstance(answer, LostRace):
            return True
        there = answer.item if answer.repeated else None  # then it may be our own first try, whose answer was lost
        return there is not None and items.int_of(there, "v") == expected_version + 1 and items.content_of(there) == document


class TableBlobs:
    """Parts of at most 350 KB; the first one is written last and removed first, so that nobody finds half a blob."""

    def __init__(self, client: DynamoDbClient) -> None:
        self._client = client

    async def put(self, blob_id: str, content: bytes) -> None:
        first, *others = items.blob_items(blob_id, content)
        for start in range(0, len(others), READS_AT_ONCE):
            await asyncio.gather(*map(self._put_part, others[start : start + READS_AT_ONCE]))
        await self._put_part(first)

    async def _put_part(self, item: items.Item) -> None:
        await self._client.call("PutItem", "blob", {"TableName": self._client.table, "Item": item}, patience_s=self._client.patience.call_s)

    async def get(self, blob_id: str) -> bytes:
        content = items.blob_of(await _query(self._client, "blob", items.blob_partition(blob_id)))
        if content is None:
            raise KeyError(blob_id)
        return content

    async def delete(self, blob_ids: Sequence[str]) -> None:
        for blob_id in blob_ids:
            for key in await _query(self._client, "blob", items.blob_partition(blob_id), keys_only=True):
                request = {"TableName": self._client.table, "Key": {"pk": key["pk"], "sk": key["sk"]}}
                await self._client.call("DeleteItem", "blob", request, patience_s=self._client.patience.call_s)


class BucketThenTable:
    """New blobs go to the bucket; what was stored in the table before there was one is found there."""

    def __init__(self, bucket: Blobs, table: Blobs) -> None:
        self._bucket = bucket
        self._table = table

    async def put(self, blob_id: str, content: bytes) -> None:
        await self._bucket.put(blob_id, content)

    async def get(self, blob_id: str) -> bytes:
        try:
            return await self._bucket.get(blob_id)
        except (KeyError, StoreUnavailable) as failed:  # who may not list a bucket is refused what is not there
            try:
                return await self._table.get(blob_id)
            except KeyError:
                raise failed from None

    async def delete(self, blob_ids: Sequence[str]) -> None:
        await self._bucket.delete(blob_ids)
        await self._table.delete(blob_ids)


async def _query(client: DynamoDbClient, kind: str, partition: str, *, keys_only: bool = False) -> list[items.Item]:
    """Every item of a partition, in the order of `sk`."""
    request: dict[str, Any] = {
        "TableName": client.table,
        "ConsistentRead": True,
        "KeyConditionExpression": "pk = :p",
        "ExpressionAttributeValues": {":p": items.text(partition)},
    }
    if keys_only:
        request["ProjectionExpression"] = "pk, sk"
    found: list[items.Item] = []
    while True:
        answer = await client.call("Query", kind, request, patience_s=client.patience.call_s)
        found += answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return found
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
