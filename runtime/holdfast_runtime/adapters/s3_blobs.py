"""Large values in a bucket: one object each, `blob/<blob id>` (storage design §2).

Ids contain a digest of the content, so a repeated put writes the same bytes again: the client's own retries are
harmless and stay on. Endpoint, region and credentials as for every AWS client (`AWS_ENDPOINT_URL[_S3]`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from holdfast_runtime.ports.store import StoreUnavailable

_LONGEST_KEY: Final = 1000  # bytes; the service takes 1024
_PARALLEL: Final = 16
_GONE: Final = ("NoSuchKey", "404")


class S3Blobs:
    """Opens its client at the first use; `close` when done."""

    def __init__(self, bucket: str, region: str | None = None) -> None:
        self.bucket = bucket
        self._region = region
        self._client: Any = None
        self._opened = AsyncExitStack()
        self._opening = asyncio.Lock()

    async def put(self, blob_id: str, content: bytes) -> None:
        await self._call("put_object", blob_id, Body=content)

    async def get(self, blob_id: str) -> bytes:
        """Raises KeyError when it does not exist."""
        answer = await self._call("get_object", blob_id)
        content: bytes = answer["content"]
        return content

    async def delete(self, blob_ids: Sequence[str]) -> None:
        for start in range(0, len(blob_ids), _PARALLEL):
            await asyncio.gather(*(self._call("delete_object", blob_id) for blob_id in blob_ids[start : start + _PARALLEL]))

    async def close(self) -> None:
        await self._opened.aclose()

    async def _call(self, operation: str, blob_id: str, **more: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        client = await self._opened_client()
        try:
            answer: dict[str, Any] = await getattr(client, operation)(Bucket=self.bucket, Key=object_key(blob_id), **more)
            if "Body" in answer:
                async with answer["Body"] as body:
                    answer["content"] = await body.read()
        except ClientError as failed:
            code = failed.response["Error"]["Code"]
            if operation == "get_object" and code in _GONE:
                raise KeyError(blob_id) from None
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
    key = f"blob/{blob_id}"
    return key if len(key.encode()) <= _LONGEST_KEY else f"blob/~{hashlib.sha256(key.encode()).hexdigest()}"


def _advice(code: str) -> str:
    if code in ("NoSuchBucket", "404"):
        return "; create the bucket, or correct the name with `holdfast store init --bucket`"
    if code in ("AccessDenied", "403"):
        return "; allow s3:GetObject, s3:PutObject and s3:DeleteObject below blob/ to the coordinator's role"
    return ""
