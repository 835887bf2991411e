"""AWS in the steps of handlers, pretended by moto: in this process, and as a server that asynchronous clients speak to."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import aioboto3
import boto3
import pytest
from moto import mock_aws
from moto.server import ThreadedMotoServer

from holdfast import Context, Service, sync
from holdfast.testing import Crash, TestRuntime
from holdfast.testing.sync import TestRuntime as SyncTestRuntime

BUCKET = "reports"
archive = Service("archive")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")


def s3() -> Any:
    return boto3.client("s3")


def make_bucket(client: Any) -> None:
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})


def put(name: str) -> str:
    found: str = s3().put_object(Bucket=BUCKET, Key=name, Body=name.encode())["ETag"]
    return found


@archive.handler
async def keep_for_a_year(ctx: Context, name: str) -> str:
    etag = await ctx.run(put, name)
    await ctx.sleep(timedelta(days=365))
    await ctx.run(lambda: s3().delete_object(Bucket=BUCKET, Key=name) and None, name="delete")
    return etag


@archive.handler
def keep_many(ctx: sync.Context, names: list[str]) -> int:
    return len(ctx.map(put, names, concurrency=4))


def names() -> list[str]:
    return [found["Key"] for found in s3().list_objects_v2(Bucket=BUCKET).get("Contents", [])]


@pytest.mark.parametrize("always_replay", [False, True])
async def test_boto3_in_steps_under_mock_aws(always_replay: bool) -> None:
    with mock_aws():
        make_bucket(s3())
        async with TestRuntime(archive, always_replay=always_replay) as runtime:
            kept = await runtime.send(keep_for_a_year, "a.txt")
            await runtime.settle()
            assert names() == ["a.txt"]
            assert await kept.result()
            assert names() == []
            assert await runtime.call(keep_many, ["b", "c", "d"]) == 3
            assert names() == ["b", "c", "d"]


def test_boto3_in_steps_of_a_plain_test() -> None:
    with mock_aws():
        make_bucket(s3())
        with SyncTestRuntime(archive) as runtime:
            assert runtime.call(keep_many, [str(number) for number in range(12)]) == 12
        assert len(names()) == 12


@pytest.fixture(scope="module")
def moto_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.parametrize("crash", [None, Crash(2, stored=False)], ids=str)
async def test_aioboto3_in_steps_over_a_moto_server(moto_server: str, crash: Crash | None) -> None:
    service = Service("uploads")
    uploads = 0

    async def upload(name: str) -> int:
        nonlocal uploads
        uploads += 1
        async with aioboto3.Session().client("s3", endpoint_url=moto_server) as client:
            await client.put_object(Bucket=BUCKET, Key=name, Body=b"content")
            found = await client.get_object(Bucket=BUCKET, Key=name)
            return len(await found["Body"].read())

    @service.handler
    async def run(ctx: Context, name: str) -> int:
        size = await ctx.run(upload, name)
        await ctx.sleep(timedelta(days=30))
        return size

    client = boto3.client("s3", endpoint_url=moto_server)
    if not client.list_buckets()["Buckets"]:
        make_bucket(client)
    async with TestRuntime(service, naps_elsewhere(), crash_at=crash) as runtime:
        assert await runtime.call(run, "a.txt") == len(b"content")
    assert uploads == (1 if crash is None else 2)


def naps_elsewhere() -> Service:
    """A service with timers of its own, so that there is always one that time could jump to."""
    other = Service("other")

    @other.handler
    async def nap(ctx: Context) -> None:
        await ctx.sleep(timedelta(seconds=1))

    return other
