"""S3 by moto, time and crashes by Holdfast, both in the same test; and thousands of objects without S3."""

import gzip
import json
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from holdfast import TerminalError
from holdfast.testing import Crash
from holdfast.testing.sync import TestRuntime
from moto import mock_aws

from s3_fan_out import services, storage
from s3_fan_out.services import Report, Wish, compress, compress_some, fan_out
from s3_fan_out.storage import Item, Outcome, Page

LINE = b"hello\n" * 50
ITEMS = 9


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """S3 as moto pretends it; one client, because making one takes longer than a test."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield storage.s3()


@pytest.fixture
def wish(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Wish:
    """A bucket with objects to work on and one that is none of ours; pages and batches are small, so that there are several."""
    monkeypatch.setattr(services, "PAGE", 4)
    monkeypatch.setattr(services, "BATCH", 2)
    bucket = f"papers-{uuid.uuid4()}"
    s3.create_bucket(Bucket=bucket)
    for number in range(ITEMS):
        s3.put_object(Bucket=bucket, Key=f"logs/{number:02}.txt", Body=LINE)
    s3.put_object(Bucket=bucket, Key="private.txt", Body=b"...")
    return Wish(bucket, "logs/")


def keys(s3: Any, bucket: str, prefix: str) -> list[str]:
    return [found["Key"] for found in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]


def content(s3: Any, bucket: str, key: str) -> bytes:
    found: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return found


def test_every_object_is_done_and_reported(s3: Any, wish: Wish) -> None:
    with TestRuntime(fan_out, always_replay=True) as runtime:
        sent = runtime.send(compress, wish)
        report = sent.result()
        assert (report.done, report.left_out) == (ITEMS, 0)
        assert report.saved_bytes > 0
        assert keys(s3, wish.bucket, "compressed/") == [f"compressed/logs/{number:02}.txt.gz" for number in range(ITEMS)]
        assert gzip.decompress(content(s3, wish.bucket, "compressed/logs/07.txt.gz")) == LINE
        (written,) = keys(s3, wish.bucket, "reports/")
        assert json.loads(content(s3, wish.bucket, written))["done"] == ITEMS
        sent.journal().assert_ran("list_page", times=3)
        assert len(runtime.invocations(fan_out)) == 1 + 2 + 2 + 1, "the parent, and a child for each batch of each page"


def test_what_was_done_is_not_done_again(s3: Any, wish: Wish) -> None:
    with TestRuntime(fan_out) as runtime:
        runtime.call(compress, wish)
        s3.put_object(Bucket=wish.bucket, Key="logs/03.txt", Body=b"new content")
        again = runtime.call(compress, wish)
        assert (again.done, again.unchanged) == (1, ITEMS - 1)
        assert gzip.decompress(content(s3, wish.bucket, "compressed/logs/03.txt.gz")) == b"new content"


def test_an_object_that_is_replaced_meanwhile_stops_no_other(s3: Any, wish: Wish, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = storage.list_page

    def then_replaced(bucket: str, prefix: str, after: str, size: int) -> Page:
        page = listed(bucket, prefix, after, size)
        s3.put_object(Bucket=wish.bucket, Key="logs/03.txt", Body=b"new content")
        s3.delete_object(Bucket=wish.bucket, Key="logs/02.txt")
        return page

    monkeypatch.setattr(storage, "list_page", then_replaced)
    with TestRuntime(fan_out) as runtime:
        report = runtime.call(compress, wish)
    assert (report.done, report.left_out) == (ITEMS - 2, 2)
    assert report.reasons == dict.fromkeys(("logs/02.txt", "logs/03.txt"), "changed: replaced or deleted after it was listed")


def test_s3_with_a_bad_minute(wish: Wish) -> None:
    with TestRuntime(fan_out) as runtime:
        runtime.fail_step("compress", ConnectionError("slow down"), times=7)
        runtime.fail_endpoint(compress_some, times=2)
        assert runtime.call(compress, wish).done == ITEMS


@pytest.mark.parametrize("stored", [True, False])
def test_whatever_dies_each_object_is_written_once(wish: Wish, monkeypatch: pytest.MonkeyPatch, stored: bool) -> None:
    """Every child is lost once; what it had written and not recorded is recognised by the ETag."""
    written: Counter[str] = Counter()
    put = storage.s3().put_object

    def counted(**arguments: Any) -> Any:
        written[arguments["Key"]] += 1
        return put(**arguments)

    monkeypatch.setattr(storage.s3(), "put_object", counted)
    with TestRuntime(fan_out, crash_at=Crash(4, stored=stored, handler=compress_some)) as runtime:
        report = runtime.call(compress, wish)
    assert (report.done + report.unchanged, report.left_out) == (ITEMS, 0)
    assert (len(written), set(written.values())) == (ITEMS + 1, {1}), "a copy of each, and the report"


def test_an_empty_prefix_is_an_empty_report(wish: Wish) -> None:
    with TestRuntime(fan_out) as runtime:
        assert runtime.call(compress, replace(wish, prefix="nothing/")) == Report()


@pytest.mark.parametrize(
    ("bucket", "prefix", "why"), [("nobodys", "logs/", "bucket 'nobodys' cannot be listed"), ("papers", "comp", "is below prefix 'comp'")]
)
def test_a_wish_that_cannot_come_true(s3: Any, bucket: str, prefix: str, why: str) -> None:
    with TestRuntime(fan_out) as runtime, pytest.raises(TerminalError, match=why):
        runtime.call(compress, Wish(bucket, prefix))


def test_thousands(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as it pleases, without S3: what counts is how the work is spread."""
    items = [Item(f"logs/{number:06}", f'"{number}"') for number in range(2_000)]

    def list_page(bucket: str, prefix: str, after: str, size: int) -> Page:
        rest = [item for item in items if item.key > after]
        return Page(rest[:size], complete=len(rest) <= size)

    def compress_one(bucket: str, target: str, item: Item) -> Outcome:
        return Outcome("failed", reason="access denied") if item.key.endswith("7") else Outcome("done", saved=1)

    def write_report(bucket: str, key: str, report: dict[str, Any]) -> None:
        assert report["done"] == 1_800

    monkeypatch.setattr(storage, "list_page", list_page)
    monkeypatch.setattr(storage, "compress", compress_one)
    monkeypatch.setattr(storage, "write_report", write_report)
    with TestRuntime(fan_out) as runtime:
        sent = runtime.send(compress, Wish("papers", "logs/"))
        report = sent.result()
        assert (report.done, report.left_out, len(report.reasons)) == (1_800, 200, services.NAMED_FAILURES)
        assert len(runtime.invocations(fan_out)) == 1 + 20
        assert len(sent.journal().names) == 2 + 20 + 1 + 1, "the parent's journal grows by the batch, not by the object"
