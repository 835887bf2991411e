"""Large values in a bucket: one object each, `blob/<blob id>` (storage design §2).

Ids contain a digest of the content, so a repeated put writes the same bytes again: the client's own retries are
harmless and stay on. What a sweep has condemned lies below `blob/.condemned/` until a rule of the bucket deletes
it; whoever asks for it puts it back. Nobody else deletes there: another sweep may rely on the copy. Endpoint,
region and credentials as for every AWS client (`AWS_ENDPOINT_URL[_S3]`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from holdfast_runtime.ports.blob_sweep import Candidate
from holdfast_runtime.ports.store import StoreUnavailable

CONDEMNED: Final = "blob/.condemned/"
_PREFIX: Final = "blob/"
_LONGEST_KEY: Final = 1000  # bytes; the service takes 1024
_PARALLEL: Final = 16
_GONE: Final = ("NoSuchKey", "404")
_LOST: Final = (*_GONE, "PreconditionFailed", "412", "ConditionalRequestConflict", "409")


class S3Blobs:
    """Opens its client at the first use; `close` when done."""

    def __init__(self, bucket: str, region: str | None = None) -> None:
        self.bucket = bucket
        self._region = region
        self._client: Any = None
        self._opened = AsyncExitStack()
        self._opening = asyncio.Lock()

    async def put(self, blob_id: str, content: bytes) -> None:
        await self._call("put_object", object_key(blob_id), Body=content)

    async def get(self, blob_id: str) -> bytes:
        """Raises KeyError when it does not exist."""
        key = object_key(blob_id)
        try:
            return await self._content(key)
        except (KeyError, StoreUnavailable) as failed:  # who may not list a bucket is refused what is not there
            try:
                content = await self._content(condemned_key(key))
            except (KeyError, StoreUnavailable):
                raise failed from None
        await self.put(blob_id, content)
        return content

    async def _content(self, key: str) -> bytes:
        """Raises KeyError when it does not exist."""
        content: bytes = (await self._call("get_object", key))["content"]
        return content

    async def delete(self, blob_ids: Sequence[str]) -> None:
        for start in range(0, len(blob_ids), _PARALLEL):
            await asyncio.gather(*(self._call("delete_object", object_key(blob_id)) for blob_id in blob_ids[start : start + _PARALLEL]))

    # What a sweep asks (port `SweptBlobs`). Keys here are whole, `blob/...`.

    async def stored(self, put_before_ms: int) -> AsyncIterator[Candidate]:
        """What is condemned and was not put again, then what was put before that instant."""
        async for copy, _, _ in self._list(CONDEMNED):
            key = _PREFIX + copy.removeprefix(CONDEMNED)
            if await self._call("head_object", key, lost=True) is None:
                yield Candidate(key, "", condemned=True)
        async for key, tag, put_ms in self._list(_PREFIX):
            if not key.startswith(CONDEMNED) and put_ms < put_before_ms:
                yield Candidate(key, tag)

    async def condemn(self, key: str, tag: str) -> bool:
        """False: it was put again, or is gone."""
        source = {"Bucket": self.bucket, "Key": key}
        if await self._call("copy_object", condemned_key(key), CopySource=source, CopySourceIfMatch=tag, lost=True) is None:
            return False
        return await self._call("delete_object", key, IfMatch=tag, lost=True) is not None

    async def reprieve(self, key: str) -> None:
        await self._call("copy_object", key, CopySource={"Bucket": self.bucket, "Key": condemned_key(key)})

    async def _list(self, prefix: str) -> AsyncIterator[tuple[str, str, int]]:
        """Key, tag, and when it was put in ms of the service's clock; of every object."""
        more: dict[str, Any] = {}
        while True:
            answer = await self._call("list_objects_v2", None, Prefix=prefix, **more)
            for found in answer.get("Contents", ()):
                yield found["Key"], found["ETag"], int(found["LastModified"].timestamp() * 1000)
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    async def close(self) -> None:
        await self._opened.aclose()

    async def _call(self, operation: str, key: str | None, *, lost: bool = False, **more: Any) -> Any:
        """The answer. lost: None when a condition does not hold, or the object is not there."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = await self._opened_client()
        try:
            if key is not None:
                more["Key"] = key
            answer: dict[str, Any] = await getattr(client, operation)(Bucket=self.bucket, **more)
            if "Body" in answer:
                async with answer["Body"] as body:
                    answer["content"] = await body.read()
        except ClientError as failed:
            code = failed.response["Error"]["Code"]
            if operation == "get_object" and code in _GONE:
                raise KeyError(key) from None
            if lost and code in _LOST:
                return None
            raise StoreUnavailable(f"{operation} in bucket {self.bucket}: {failed}{_advice(code)}") from failed
        except (BotoCoreError, OSError, TimeoutError) as failed:
            raise StoreUnavailable(f"{operation} in bucket {self.bucket}: {failed}") from failed
        return answer

    async def _opened_client(self) -> Any:
        async with self._opening:
            if self._client is None:
                import aioboto3
                from botocore.config import Config

                config = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=10)
                session = aioboto3.Session()
                self._client = await self._opened.enter_async_context(session.client("s3", region_name=self._region, config=config))
        return self._client


def object_key(blob_id: str) -> str:
    key = f"{_PREFIX}{blob_id}"
    return key if len(key.encode()) <= _LONGEST_KEY else f"{_PREFIX}~{hashlib.sha256(key.encode()).hexdigest()}"


def condemned_key(key: str) -> str:
    """Where the object is after a sweep."""
    return CONDEMNED + key.removeprefix(_PREFIX)


def _advice(code: str) -> str:
    if code in ("NoSuchBucket", "404"):
        return "; create the bucket, or correct the name with `holdfast store init --bucket`"
    if code in ("AccessDenied", "403"):
        return "; allow s3:GetObject, s3:PutObject and s3:DeleteObject below blob/ to the coordinator's role"
    return ""
