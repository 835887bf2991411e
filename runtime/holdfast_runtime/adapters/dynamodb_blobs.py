"""Large values: as parts in the table, or in a bucket with the table behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from holdfast_runtime.adapters import dynamodb_items as items
from holdfast_runtime.adapters.dynamodb_client import DynamoDbClient, read_partition
from holdfast_runtime.ports.store import Blobs, StoreUnavailable

PARTS_AT_ONCE: Final = 8


class TableBlobs:
    """Parts of at most 350 KB; the first one is written last and removed first, so that nobody finds half a blob."""

    def __init__(self, client: DynamoDbClient) -> None:
        self._client = client

    async def put(self, blob_id: str, content: bytes) -> None:
        first, *others = items.blob_items(blob_id, content, now_s=self._client.now_ms() // 1000)
        for start in range(0, len(others), PARTS_AT_ONCE):
            await asyncio.gather(*map(self._put_part, others[start : start + PARTS_AT_ONCE]))
        await self._put_part(first)

    async def _put_part(self, item: items.Item) -> None:
        await self._client.call("PutItem", "blob", {"TableName": self._client.table, "Item": item}, patience_s=self._client.patience.call_s)

    async def get(self, blob_id: str) -> bytes:
        content = items.blob_of(await read_partition(self._client, "blob", items.blob_partition(blob_id)))
        if content is None:
            raise KeyError(blob_id)
        return content

    async def delete(self, blob_ids: Sequence[str]) -> None:
        for blob_id in blob_ids:
            for key in await read_partition(self._client, "blob", items.blob_partition(blob_id), keys_only=True):
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
