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
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from holdfast_runtime.adapters import dynamodb_items as items
from holdfast_runtime.adapters.aws_access import AccessFailed, AwsAccess
from holdfast_runtime.adapters.dynamodb_blob_sweep import UNITS_PER_S, SweptTable
from holdfast_runtime.adapters.dynamodb_blobs import BucketThenTable, TableBlobs
from holdfast_runtime.adapters.dynamodb_client import OLD_ITEM, DynamoDbClient, LostRace, Meter, Patience, Refused, read_partition
from holdfast_runtime.adapters.dynamodb_leases import DynamoDbLeases, Seen
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.s3_blobs import S3Blobs
from holdfast_runtime.adapters.system import SystemClock, SystemEntropy
from holdfast_runtime.ports.metrics import Metrics
from holdfast_runtime.ports.store import (
    MAX_ITEM_BYTES,
    Blobs,
    LogItem,
    Store,
    StoreBroken,
    StoredPage,
    StoreUnavailable,
    refuse_oversize,
)
from holdfast_runtime.ports.system import Clock, Entropy

KEYS_PER_READ: Final = 100  # BatchGetItem
READS_AT_ONCE: Final = 8
UNPROCESSED_DELAY_S: Final = 0.02
MAX_UNPROCESSED_DELAY_S: Final = 1.0

_ABSENT: Final = "attribute_not_exists(pk)"


async def open_dynamodb_store(
    table: DynamoDbTable,
    *,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
    meter: Meter | None = None,
    patience: Patience | None = None,
    access: AwsAccess | None = None,
    metrics: Metrics | None = None,
) -> DynamoDbStore:
    """Open a table that `holdfast store init` has set up. Close it on the same event loop. access: shared with others, if given.

    Raises StoreBroken: no such table, not set up, of another version, no permission, no credentials; StoreUnavailable.
    """
    clock = clock or SystemClock()
    access = access or AwsAccess(clock)
    try:
        region = table.region or await access.region()
    except AccessFailed as failed:
        raise StoreBroken(str(failed)) from failed
    if not region:
        raise StoreBroken(f"no AWS region is known for table {table.name}; set AWS_REGION, or name it: dynamodb://{table.name}?region=...")
    entropy = entropy or SystemEntropy()
    client = DynamoDbClient(
        table.name, clock=clock, entropy=entropy, access=access, region=region, meter=meter, patience=patience, metrics=metrics
    )
    try:
        found = await read_partition(client, "lease", items.SHARDS_KEY)
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
        seen = Seen(client)
        in_table = TableBlobs(client)
        blobs: Blobs = in_table
        in_bucket: S3Blobs | None = None
        if bucket is not None:
            in_bucket = S3Blobs(bucket, client.region)
            self._closing.push_async_callback(in_bucket.close)
            blobs = BucketThenTable(in_bucket, in_table)
        self.store = Store(
            DynamoDbLog(client, seen), DynamoDbPages(client), DynamoDbLeases(client, seen), DynamoDbRegistry(client), blobs, shards
        )

        self._client, self._in_bucket = client, in_bucket

    def swept(self, *, units_per_s: float = UNITS_PER_S) -> SweptTable:
        """For a sweep of large values."""
        return SweptTable(self._client, self._in_bucket, units_per_s=units_per_s)

    async def close(self) -> None:
        """May be called twice."""
        await self._closing.aclose()


class DynamoDbLog:
    def __init__(self, client: DynamoDbClient, seen: Seen) -> None:
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
            **OLD_ITEM,
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
        request: dict[str, Any] = {"TableName": self._client.table, "Item": item, **OLD_ITEM}
        if expected_version == 0:
            request["ConditionExpression"] = _ABSENT
        else:
            request |= {"ConditionExpression": "v = :v", "ExpressionAttributeValues": {":v": items.number(expected_version)}}
        answer = await self._client.attempt("PutItem", "registry", request, patience_s=self._client.patience.call_s)
        if not isinstance(answer, LostRace):
            return True
        there = answer.item if answer.repeated else None  # then it may be our own first try, whose answer was lost
        return there is not None and items.int_of(there, "v") == expected_version + 1 and items.content_of(there) == document
