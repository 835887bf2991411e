"""The coordinators' table as the front door reads it: by the PynamoDB models that set it up, strongly consistent, nothing written."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.exceptions import DoesNotExist, PynamoDBException

from holdfast_runtime.adapters import dynamodb_items as items
from holdfast_runtime.adapters.dynamodb_models import BlobPart, PageItem, RegistryItem, SetupItem, TableItem, bound
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.s3_blobs import condemned_key, object_key
from holdfast_runtime.edge.front import TableUnavailable
from holdfast_runtime.engine import packs

M = TypeVar("M", bound=TableItem)


class TableReader:
    """Methods raise TableUnavailable."""

    def __init__(self, table: DynamoDbTable) -> None:
        self._table = table

    @cached_property
    def _setup(self) -> SetupItem:
        found = self._get(SetupItem, items.SHARDS_KEY, items.SETUP)
        if found is None:
            raise TableUnavailable(f"table {self._table.name} is not set up; run `holdfast store init`")
        return found

    @property
    def shards(self) -> int:
        return int(self._setup.shards)

    def registry(self, name: str) -> tuple[int, bytes]:
        found = self._get(RegistryItem, items.REGISTRY_KEY, name)
        return (0, b"") if found is None else (int(found.version), _content(found))

    def page(self, page_id: str) -> bytes | None:
        """As last stored: in an item of its own, else in one of the packs that its id names (engine/packs.py)."""
        own = self._page(page_id)
        if own is not None:
            return None if own.is_tombstone else _content(own)
        found = [entry for pack_id in packs.places(page_id, self.shards) if (entry := self._entry(pack_id, page_id)) is not None]
        return max(found).document if found else None

    def _page(self, page_id: str) -> PageItem | None:
        key = items.page_key(page_id)
        return self._get(PageItem, key["pk"]["S"], key["sk"]["S"])

    def _entry(self, pack_id: str, page_id: str) -> packs.Entry | None:
        pack = self._page(pack_id)
        return None if pack is None or pack.is_tombstone else packs.entries_of(_content(pack)).get(packs.key_of(page_id))

    def blob(self, blob_id: str) -> bytes:
        """Raises TableUnavailable also when it is gone: its page was read a moment ago."""
        bucket = self._setup.bucket
        try:
            if bucket is not None:
                return _object(bucket, object_key(blob_id))
            model = bound(BlobPart, self._table.name, self._table.region)
            parts = [_raw(part) for part in model.query(items.blob_partition(blob_id), consistent_read=True)]
        except (PynamoDBException, BotoCoreError, ClientError) as problem:
            raise TableUnavailable(f"value {blob_id} cannot be read: {problem}") from problem
        content = items.blob_of(parts)
        if content is None:
            raise TableUnavailable(f"value {blob_id} is not there")
        return content

    def _get(self, model: type[M], pk: str, sk: str) -> M | None:
        try:
            return bound(model, self._table.name, self._table.region).get(pk, sk, consistent_read=True)
        except DoesNotExist:
            return None
        except (PynamoDBException, BotoCoreError, ClientError) as problem:
            raise TableUnavailable(f"table {self._table.name}: {problem}") from problem


def _object(bucket: str, key: str) -> bytes:
    client: Any = boto3.client("s3")
    try:
        return bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())
    except ClientError as problem:
        try:  # swept by mistake: a coordinator will put it back
            return bytes(client.get_object(Bucket=bucket, Key=condemned_key(key))["Body"].read())
        except ClientError:
            raise problem from None


def _content(item: RegistryItem | PageItem) -> bytes:
    return items.content_of(_bytes(item))


def _raw(part: BlobPart) -> items.Item:
    return {"sk": items.text(part.sk), "h": items.text(part.stream), "n": items.number(int(part.parts)), **_bytes(part)}


def _bytes(item: RegistryItem | PageItem | BlobPart) -> items.Item:
    return {"b": items.binary(bytes(item.plain))} if item.packed is None else {"z": items.binary(bytes(item.packed))}
