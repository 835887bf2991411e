"""What a sweep of large values asks of a table and its bucket (port `SweptBlobs`).

1. Pages and log are read by a strongly consistent Scan of the table, at most `units_per_s` read units a second. It costs a unit for each
   4 KB of the table, large values that are kept in it included; those are listed by a second Scan, because marks of them all would not fit
   into memory.
2. A value in the table carries in each part when it was put (`at`). Condemning sets the parts' time to live, on condition that `at` is
   still the same: a part that was put again has another one, and no time to live. DynamoDB deletes it at no cost; until then it is
   read. Values of versions that noted no `at` are never candidates.
3. A value in the bucket is condemned by copying it below `blob/.condemned/` and deleting it. Deleting is conditional on its tag, but
   the same content has the same tag: one that is put again between the two is gone, and then found among the condemned by whoever
   reads it, who puts it back (`S3Blobs.get`). A rule of the bucket deletes what was condemned `KEPT_DAYS` ago.
4. Where there is a bucket, values that came to the table before it are left there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from holdfast_runtime.adapters import dynamodb_items as items
from holdfast_runtime.adapters.dynamodb_client import DynamoDbClient, LostRace, read_partition
from holdfast_runtime.adapters.s3_blobs import S3Blobs, object_key
from holdfast_runtime.ports.blob_sweep import Candidate

KEPT_S: Final = 40 * 86_400  # of what is condemned (`coordinator.blob_sweep`)
UNITS_PER_S: Final = 500.0  # 2 MB a second; a table takes 12,000 from its first day


class SweptTable:
    """bucket: where large values are, None: in the table."""

    def __init__(self, client: DynamoDbClient, bucket: S3Blobs | None, *, units_per_s: float = UNITS_PER_S) -> None:
        self._client = client
        self._bucket = bucket
        self._units_per_s = units_per_s
        self.units = 0.0  # read so far

    def key_of(self, blob_id: str) -> str:
        return object_key(blob_id) if self._bucket is not None else items.blob_partition(blob_id)

    async def candidates(self, put_before_ms: int, limit: int) -> AsyncIterator[Candidate]:
        found = self._in_table(put_before_ms) if self._bucket is None else self._bucket.stored(put_before_ms)
        count = 0
        async for candidate in found:
            yield candidate
            count += 1
            if count >= limit:
                return

    async def encoded(self) -> AsyncIterator[tuple[bytes, bool]]:
        request = {
            "FilterExpression": "begins_with(pk, :page) OR begins_with(pk, :log)",
            "ExpressionAttributeValues": {":page": items.text("P"), ":log": items.text("L")},
            "ProjectionExpression": "pk, b, z",
        }
        async for item in self._scan(request):
            content = items.content_of(item)
            if content:  # else a tombstone or a seal
                yield content, item["pk"]["S"].startswith("P")

    async def condemn(self, candidate: Candidate) -> bool:
        if self._bucket is not None:
            return await self._bucket.condemn(candidate.key, candidate.version)
        until = {":until": items.number(self._client.now_ms() // 1000 + KEPT_S), ":at": items.number(int(candidate.version))}
        return await self._each_part(candidate.key, "SET #ttl = :until", "#at = :at", until)

    async def reprieve(self, candidate: Candidate) -> None:
        if self._bucket is not None:
            await self._bucket.reprieve(candidate.key)
            return
        await self._each_part(candidate.key, "REMOVE #ttl", "attribute_exists(#at)", {})

    async def _in_table(self, put_before_ms: int) -> AsyncIterator[Candidate]:
        request = {
            "FilterExpression": "begins_with(pk, :blob) AND sk = :first",
            "ExpressionAttributeValues": {":blob": items.text("B"), ":first": items.text(items.FIRST_BLOB_PART)},
            "ProjectionExpression": "pk, #at, #ttl",
            "ExpressionAttributeNames": {"#at": "at", "#ttl": "ttl"},
        }
        async for item in self._scan(request):
            at_s = items.int_of(item, "at")
            if at_s and at_s * 1000 < put_before_ms:
                yield Candidate(item["pk"]["S"], str(at_s), "ttl" in item)

    async def _scan(self, request: dict[str, Any]) -> AsyncIterator[items.Item]:
        client = self._client
        request = {**request, "TableName": client.table, "ConsistentRead": True, "ReturnConsumedCapacity": "TOTAL"}
        while True:
            answer = await client.call("Scan", "sweep", request, patience_s=client.patience.call_s)
            for item in answer["Items"]:
                yield item
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
            spent = float(answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0))
            self.units += spent
            await client.sleep(spent / self._units_per_s)

    async def _each_part(self, partition: str, update: str, condition: str, values: dict[str, Any]) -> bool:
        """The first part first, as it is put last. False: the condition did not hold."""
        client = self._client
        names = {name: name[1:] for name in ("#ttl", "#at") if name in f"{update} {condition}"}
        for key in await read_partition(client, "sweep", partition, keys_only=True):
            request = {
                "TableName": client.table,
                "Key": {"pk": key["pk"], "sk": key["sk"]},
                "UpdateExpression": update,
                "ConditionExpression": condition,
                "ExpressionAttributeNames": names,
                **({"ExpressionAttributeValues": values} if values else {}),
            }
            if isinstance(await client.attempt("UpdateItem", "sweep", request, patience_s=client.patience.call_s), LostRace):
                return False
        return True
