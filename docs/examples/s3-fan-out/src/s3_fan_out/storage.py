"""The only place with side effects: what is done with S3, as far as it is needed here.

Rules: an object is known by its key and its ETag, which names its content. The result says from which content it was made, so work that
was done before a crash, but not recorded, is recognised and not done again.
"""

import functools
import gzip
import json
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import boto3  # pyright: ignore[reportMissingTypeStubs]
from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]
from botocore.exceptions import ClientError  # pyright: ignore[reportMissingTypeStubs]
from holdfast import TerminalError

CONNECTIONS = 100  # `holdfast dev` runs all children of a page in one process; a function on Lambda has one child


class S3(Protocol):
    """The calls of boto3's client that are made here."""

    def list_objects_v2(self, *, Bucket: str, Prefix: str, MaxKeys: int, StartAfter: str) -> dict[str, Any]: ...
    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]: ...
    def get_object(self, *, Bucket: str, Key: str, IfMatch: str) -> dict[str, Any]: ...
    def put_object(self, *, Bucket: str, Key: str, Body: bytes, Metadata: dict[str, str]) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Item:
    """An object as it was when it was listed."""

    key: str
    etag: str


@dataclass(frozen=True)
class Page:
    """Some objects in the order of their keys; `complete` if there are no more behind."""

    items: list[Item]
    complete: bool


@dataclass(frozen=True)
class Outcome:
    """What became of one object. `saved`: bytes that its copy is smaller."""

    how: Literal["done", "unchanged", "changed", "failed"]
    saved: int = 0
    reason: str = ""


@functools.cache
def s3() -> S3:
    """One client for all threads; made when it is first needed, so that tests can pretend before."""
    return cast(S3, cast(Any, boto3).client("s3", config=Config(max_pool_connections=CONNECTIONS)))


def list_page(bucket: str, prefix: str, after: str, size: int) -> Page:
    """The objects whose keys come next behind `after`. A key is a better place to go on than a token, because tokens run out."""
    try:
        answer = s3().list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=size, StartAfter=after)
    except ClientError as error:
        if status_of(error) in (403, 404):  # no retry makes it right
            raise TerminalError(f"bucket '{bucket}' cannot be listed: {error}", code=status_of(error)) from error
        raise
    items = [Item(found["Key"], found["ETag"]) for found in answer.get("Contents", [])]
    return Page(items, complete=not answer["IsTruncated"])


def compress(bucket: str, target: str, item: Item) -> Outcome:
    """Writes a compressed copy below `target`. Replace this by your own work; what matters is that a repetition does no harm."""
    copy = f"{target}{item.key}.gz"
    if made_from(bucket, copy) == item.etag:
        return Outcome("unchanged")
    try:
        content: bytes = s3().get_object(Bucket=bucket, Key=item.key, IfMatch=item.etag)["Body"].read()
    except ClientError as error:
        return refused(error)
    packed = gzip.compress(content, mtime=0)
    s3().put_object(Bucket=bucket, Key=copy, Body=packed, Metadata={"made-from": item.etag})
    return Outcome("done", saved=len(content) - len(packed))


def made_from(bucket: str, key: str) -> str | None:
    """The ETag of what a copy was made from; None if there is no copy."""
    try:
        metadata: dict[str, str] = s3().head_object(Bucket=bucket, Key=key)["Metadata"]
    except ClientError as error:
        if status_of(error) == 404:
            return None
        raise
    return metadata.get("made-from")


def refused(error: ClientError) -> Outcome:
    """What is this object's own fault is its outcome, so that the others go on. Anything else is raised, and retried."""
    match status_of(error):
        case 404 | 412:
            return Outcome("changed", reason="replaced or deleted after it was listed")
        case 403:
            return Outcome("failed", reason="access denied")
        case _:
            raise error


def status_of(error: ClientError) -> int:
    status: int = cast(Any, error).response["ResponseMetadata"]["HTTPStatusCode"]
    return status


def write_report(bucket: str, key: str, report: dict[str, Any]) -> None:
    s3().put_object(Bucket=bucket, Key=key, Body=json.dumps(report, indent=2).encode(), Metadata={})
