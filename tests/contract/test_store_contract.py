"""The rules of `ports/store.py`, kept by every store. A new store adds one entry to STORES.

The DynamoDB store runs against two emulators, and once more with large values in a bucket. What moto answers about
capacity and sizes is not true, but its conditions are: it must agree here, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path

import boto3
import pytest
from tests.support.dynamodb import PATIENCE, aws_at, new_table_name, set_up

from holdfast_runtime.adapters.aws_access import AwsAccess
from holdfast_runtime.adapters.dynamodb import open_dynamodb_store
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.adapters.sqlite import open_sqlite_store
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.ports.store import (
    MAX_ITEM_BYTES,
    Blobs,
    LogItem,
    Member,
    ShardRecord,
    Store,
    StoredPage,
)

SHARDS = 3
BUCKET = "holdfast-values"
FAR_MS = 4_000_000_000_000  # in the year 2096


@asynccontextmanager
async def in_memory(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    yield memory_store(SHARDS)


@asynccontextmanager
async def in_sqlite(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    folder: Path = request.getfixturevalue("tmp_path")
    held = await open_sqlite_store(folder / "store.sqlite", shards=SHARDS)
    try:
        yield held.store
    finally:
        await held.close()


@cache
def access_to(url: str) -> AwsAccess:
    """One for all tests: a session of the AWS library takes longer than most of them."""
    return AwsAccess(SystemClock())


@asynccontextmanager
async def in_dynamodb(url: str, bucket: str | None = None) -> AsyncIterator[Store]:
    table = new_table_name()
    set_up(table, SHARDS, bucket)
    held = await open_dynamodb_store(DynamoDbTable(table), patience=PATIENCE, access=access_to(url))
    try:
        yield held.store
    finally:
        await held.close()


@asynccontextmanager
async def in_dynoxide(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    url = request.getfixturevalue("dynamodb_url")
    with aws_at(dynamodb=url):
        async with in_dynamodb(url) as opened:
            yield opened


@asynccontextmanager
async def in_moto(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    url = request.getfixturevalue("moto_url")
    with aws_at(dynamodb=url):
        async with in_dynamodb(url) as opened:
            yield opened


@asynccontextmanager
async def in_dynoxide_and_bucket(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    url = request.getfixturevalue("dynamodb_url")
    with aws_at(dynamodb=url, s3=request.getfixturevalue("moto_url")):
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        async with in_dynamodb(url, BUCKET) as opened:
            yield opened


STORES: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Store]]] = {
    "memory": in_memory,
    "sqlite": in_sqlite,
    "dynoxide": in_dynoxide,
    "moto": in_moto,
}
BLOB_STORES = {**STORES, "dynoxide and a bucket": in_dynoxide_and_bucket}


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "moto" and "_concurrent_" in request.node.name:
        pytest.skip("moto's conditions are not atomic among concurrent requests (docs/dynamodb.md)")
    async with STORES[request.param](request) as opened:
        yield opened


@pytest.fixture(params=BLOB_STORES)
async def blobs(request: pytest.FixtureRequest) -> AsyncIterator[Blobs]:
    async with BLOB_STORES[request.param](request) as opened:
        yield opened.blobs


def item(position: int, operations: bytes = b"ops", *, epoch: int = 1, nonce: bytes = b"writer-1") -> LogItem:
    return LogItem(position, epoch, nonce, position, 0, 1, operations)


# Log


async def test_a_put_at_a_free_position_is_written(store: Store) -> None:
    written = LogItem(8, 7, b"\x00nonce\xff", 7, 1, 3, b"\x00\xffoperations")
    assert await store.log.put(1, written) is None
    assert list(await store.log.read(1, 8, 10)) == [written]


async def test_a_put_at_a_taken_position_answers_with_what_is_there_and_changes_nothing(store: Store) -> None:
    await store.log.put(0, item(1, b"old", nonce=b"a"))
    assert await store.log.put(0, item(1, b"new", nonce=b"b", epoch=2)) == item(1, b"old", nonce=b"a")
    assert list(await store.log.read(0, 1, 10)) == [item(1, b"old", nonce=b"a")]


async def test_a_repeated_put_meets_its_own_first_try(store: Store) -> None:
    await store.log.put(0, item(1))
    assert await store.log.put(0, item(1)) == item(1)


async def test_a_seal_is_an_item_without_operations(store: Store) -> None:
    assert await store.log.put(0, item(1, b"")) is None
    assert await store.log.put(0, item(1, b"late")) == item(1, b"")


async def test_of_concurrent_puts_at_one_position_exactly_one_wins(store: Store) -> None:
    tries = [item(1, b"%d" % n, nonce=b"writer-%d" % n) for n in range(20)]
    answers = await asyncio.gather(*(store.log.put(0, one) for one in tries))
    winners = [one for one, answer in zip(tries, answers, strict=True) if answer is None]
    assert len(winners) == 1
    assert [answer for answer in answers if answer is not None] == winners * 19
    assert list(await store.log.read(0, 1, 10)) == winners


async def test_a_lost_put_does_not_harm_the_puts_beside_it(store: Store) -> None:
    await store.log.put(1, item(1, b"there"))
    answers = await asyncio.gather(*(store.log.put(shard, item(1)) for shard in range(SHARDS)))
    assert answers == [None, item(1, b"there"), None]


async def test_shards_have_separate_logs(store: Store) -> None:
    for shard in range(SHARDS):
        assert await store.log.put(shard, item(1, b"%d" % shard)) is None
    for shard in range(SHARDS):
        assert list(await store.log.read(shard, 1, 10)) == [item(1, b"%d" % shard)]


async def test_read_ends_before_the_first_free_position(store: Store) -> None:
    for position in (1, 2, 3, 5, 6):
        await store.log.put(0, item(position))
    assert [one.position for one in await store.log.read(0, 1, 10)] == [1, 2, 3]
    assert [one.position for one in await store.log.read(0, 3, 10)] == [3]
    assert list(await store.log.read(0, 4, 10)) == []
    assert [one.position for one in await store.log.read(0, 5, 10)] == [5, 6]
    assert list(await store.log.read(0, 7, 10)) == []


async def test_read_of_an_empty_log_answers_nothing(store: Store) -> None:
    assert list(await store.log.read(2, 1, 10)) == []


async def test_many_positions_come_in_order_and_within_the_limit(store: Store) -> None:
    # Keys change every 64 positions, and 9 < 10 < 100 must hold for whatever the store compares.
    positions = range(1, 300)
    await asyncio.gather(*(store.log.put(0, item(position)) for position in reversed(positions)))
    await store.log.put(1, item(1))
    assert [one.position for one in await store.log.read(0, 1, 1_000)] == list(positions)
    for first, limit in ((60, 10), (64, 64), (63, 1), (64, 1), (65, 1), (1, 64), (1, 65), (2, 128), (128, 129)):
        run = [one.position for one in await store.log.read(0, first, limit)]
        assert run == list(range(first, first + limit))


async def test_positions_far_into_a_log_work_as_the_first_ones_do(store: Store) -> None:
    first = 10**12
    for position in range(first, first + 130):
        assert await store.log.put(2, item(position)) is None
    assert len(await store.log.read(2, first, 500)) == 130


async def test_an_item_of_350_kb_is_held(store: Store) -> None:
    operations = bytes(range(256)) * (MAX_ITEM_BYTES // 256)
    assert await store.log.put(0, item(1, operations)) is None
    assert await store.log.put(0, item(1, b"late")) == item(1, operations)
    assert list(await store.log.read(0, 1, 1)) == [item(1, operations)]


async def test_what_is_too_large_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match=r"at most 350000 bytes, this one has 350001"):
        await store.log.put(0, item(1, bytes(MAX_ITEM_BYTES + 1)))
    with pytest.raises(ValueError, match=r"at most 350000 bytes"):
        await store.pages.put("p", StoredPage(1, bytes(MAX_ITEM_BYTES + 1)))
    assert list(await store.log.read(0, 1, 1)) == []


# Pages


async def test_pages_are_read_back_and_absent_ones_are_missing(store: Store) -> None:
    assert await store.pages.put("a", StoredPage(3, b"\x00document")) is True
    assert await store.pages.put("b", StoredPage(0, b"")) is True
    assert await store.pages.get(["a", "nowhere", "b"]) == {
        "a": StoredPage(3, b"\x00document"),
        "b": StoredPage(0, b""),
    }
    assert await store.pages.get([]) == {}


async def test_a_page_is_replaced_by_a_larger_lsn_only(store: Store) -> None:
    await store.pages.put("a", StoredPage(5, b"five"))
    assert await store.pages.put("a", StoredPage(5, b"again")) is False
    assert await store.pages.put("a", StoredPage(4, b"four")) is False
    assert await store.pages.get(["a"]) == {"a": StoredPage(5, b"five")}
    assert await store.pages.put("a", StoredPage(6, b"six")) is True
    assert await store.pages.get(["a"]) == {"a": StoredPage(6, b"six")}


async def test_a_tombstone_is_visible_and_obeys_the_lsn(store: Store) -> None:
    await store.pages.put("a", StoredPage(5, b"five"))
    assert await store.pages.put("a", StoredPage(5, None)) is False
    assert await store.pages.put("a", StoredPage(6, None), expires_at_ms=FAR_MS) is True
    assert await store.pages.get(["a"]) == {"a": StoredPage(6, None)}
    assert await store.pages.put("a", StoredPage(6, b"late")) is False
    assert await store.pages.put("a", StoredPage(7, b"born again")) is True
    assert await store.pages.put("never stored", StoredPage(1, None)) is True
    assert await store.pages.get(["a", "never stored"]) == {
        "a": StoredPage(7, b"born again"),
        "never stored": StoredPage(1, None),
    }


async def test_an_expiry_in_the_future_changes_nothing_today(store: Store) -> None:
    await store.pages.put("a", StoredPage(1, b"kept"), expires_at_ms=FAR_MS)
    assert await store.pages.get(["a"]) == {"a": StoredPage(1, b"kept")}


async def test_of_concurrent_puts_the_largest_lsn_stays(store: Store) -> None:
    lsns = [3, 9, 1, 7, 9, 2]
    answers = await asyncio.gather(*(store.pages.put("a", StoredPage(lsn, b"%d" % index)) for index, lsn in enumerate(lsns)))
    assert [answers[1], answers[4]].count(True) == 1
    assert (await store.pages.get(["a"]))["a"].lsn == 9


@pytest.mark.parametrize(
    "page_id",
    ["K/Zähler/ключ/鍵/🔑", "a b", "a'b\"c%_", "K/nul\x00inside", "K/" + "x" * 900, "É", "E\u0301", "\uffff", "-"],
)
async def test_any_text_is_a_page_id(store: Store, page_id: str) -> None:
    assert await store.pages.put(page_id, StoredPage(1, b"here")) is True
    assert await store.pages.get([page_id, page_id + "2"]) == {page_id: StoredPage(1, b"here")}


async def test_page_ids_differ_in_case_accent_form_and_prefix(store: Store) -> None:
    page_ids = ["a", "A", "é", "e\u0301", "a\x00", "a ", "a/b", "1", "01"]
    for lsn, page_id in enumerate(page_ids):
        assert await store.pages.put(page_id, StoredPage(lsn, page_id.encode())) is True
    found = await store.pages.get(page_ids)
    assert found == {page_id: StoredPage(lsn, page_id.encode()) for lsn, page_id in enumerate(page_ids)}


async def test_many_pages_come_in_one_get(store: Store) -> None:
    page_ids = [f"I/{number}" for number in range(700)]
    await asyncio.gather(*(store.pages.put(one, StoredPage(1, one.encode())) for one in page_ids[::2]))
    found = await store.pages.get(page_ids)
    assert found == {one: StoredPage(1, one.encode()) for one in page_ids[::2]}
    assert await store.pages.get([page_ids[0]] * 300) == {"I/0": StoredPage(1, b"I/0")}


async def test_a_page_of_350_kb_is_held(store: Store) -> None:
    page = StoredPage(1, b"\xfe" * MAX_ITEM_BYTES)
    assert await store.pages.put("large", page) is True
    assert await store.pages.get(["large"]) == {"large": page}


# Leases


async def test_a_new_store_has_every_shard_unowned(store: Store) -> None:
    assert store.shards == SHARDS
    shards, members = await store.leases.read()
    assert shards == {n: ShardRecord(n, epoch=0, owner="", checkpoint=1, tip=1) for n in range(SHARDS)}
    assert members == {}


async def test_acquire_raises_the_epoch_seen(store: Store) -> None:
    taken = await store.leases.acquire(1, seen_epoch=0, owner="me")
    assert taken == ShardRecord(1, epoch=1, owner="me", checkpoint=1, tip=1)
    shards, _ = await store.leases.read()
    assert shards[1] == taken
    assert shards[0].epoch == shards[2].epoch == 0


async def test_acquire_fails_when_the_epoch_has_moved(store: Store) -> None:
    await store.leases.acquire(0, seen_epoch=0, owner="me")
    assert await store.leases.acquire(0, seen_epoch=0, owner="you") is None
    assert await store.leases.acquire(0, seen_epoch=2, owner="you") is None
    assert (await store.leases.read())[0][0].owner == "me"
    assert (await store.leases.acquire(0, seen_epoch=1, owner="you")) is not None


async def test_of_concurrent_acquires_exactly_one_wins(store: Store) -> None:
    answers = await asyncio.gather(*(store.leases.acquire(0, seen_epoch=0, owner=f"p{n}") for n in range(10)))
    (won,) = [answer for answer in answers if answer is not None]
    assert (await store.leases.read())[0][0] == won


async def test_acquire_answers_with_the_checkpoint_of_the_owner_before(store: Store) -> None:
    await store.leases.acquire(0, seen_epoch=0, owner="me")
    assert await store.leases.checkpoint(0, epoch=1, checkpoint=40, tip=50) is True
    assert await store.leases.acquire(0, seen_epoch=1, owner="you") == ShardRecord(0, 2, "you", 40, 50)


async def test_the_checkpoint_advances_within_the_epoch_and_never_goes_back(store: Store) -> None:
    await store.leases.acquire(0, seen_epoch=0, owner="me")
    assert await store.leases.checkpoint(0, epoch=1, checkpoint=40, tip=50) is True
    assert await store.leases.checkpoint(0, epoch=1, checkpoint=40, tip=55) is True
    assert await store.leases.checkpoint(0, epoch=1, checkpoint=39, tip=60) is False
    assert await store.leases.checkpoint(0, epoch=0, checkpoint=41, tip=60) is False
    assert await store.leases.checkpoint(0, epoch=2, checkpoint=41, tip=60) is False
    assert (await store.leases.read())[0][0] == ShardRecord(0, 1, "me", 40, 55)


async def test_release_raises_the_epoch_and_leaves_no_owner(store: Store) -> None:
    await store.leases.acquire(0, seen_epoch=0, owner="me")
    await store.leases.checkpoint(0, epoch=1, checkpoint=7, tip=9)
    assert await store.leases.release(0, epoch=1) is True
    assert (await store.leases.read())[0][0] == ShardRecord(0, 2, "", 7, 9)
    assert await store.leases.release(0, epoch=1) is False
    assert await store.leases.checkpoint(0, epoch=1, checkpoint=8, tip=9) is False
    assert (await store.leases.read())[0][0] == ShardRecord(0, 2, "", 7, 9)


async def test_a_member_lives_from_its_first_heartbeat_until_it_leaves(store: Store) -> None:
    await store.leases.heartbeat(Member("p1", 1, "127.0.0.1:1"))
    await store.leases.heartbeat(Member("p2", 1, "127.0.0.1:2"))
    await store.leases.heartbeat(Member("p1", 2, "127.0.0.1:9"))
    _, members = await store.leases.read()
    assert members == {"p1": Member("p1", 2, "127.0.0.1:9"), "p2": Member("p2", 1, "127.0.0.1:2")}
    await store.leases.leave("p1")
    await store.leases.leave("p1")
    assert set((await store.leases.read())[1]) == {"p2"}


async def test_an_answer_is_not_changed_by_what_happens_later(store: Store) -> None:
    shards, members = await store.leases.read()
    await store.leases.acquire(0, seen_epoch=0, owner="me")
    await store.leases.heartbeat(Member("p1", 1, ""))
    assert shards[0].epoch == 0
    assert members == {}


# Registry


async def test_an_absent_document_has_version_0(store: Store) -> None:
    assert await store.registry.load("deployments") == (0, b"")


async def test_a_document_is_stored_against_the_version_that_was_read(store: Store) -> None:
    assert await store.registry.store("deployments", b"one", expected_version=0) is True
    assert await store.registry.load("deployments") == (1, b"one")
    assert await store.registry.store("deployments", b"other", expected_version=0) is False
    assert await store.registry.store("deployments", b"other", expected_version=2) is False
    assert await store.registry.store("deployments", b"two", expected_version=1) is True
    assert await store.registry.load("deployments") == (2, b"two")
    assert await store.registry.store("absent", b"x", expected_version=3) is False
    assert await store.registry.load("absent") == (0, b"")


async def test_of_concurrent_stores_exactly_one_wins(store: Store) -> None:
    for version in (0, 1):
        answers = await asyncio.gather(*(store.registry.store("s", b"%d" % n, expected_version=version) for n in range(10)))
        assert answers.count(True) == 1
        assert await store.registry.load("s") == (version + 1, b"%d" % answers.index(True))


# Blobs


async def test_a_blob_is_read_back_and_put_twice_without_harm(blobs: Blobs) -> None:
    content = bytes(range(256)) * 8_192  # 2 MB: more than one item holds
    await blobs.put("inv_1/digest", content)
    await blobs.put("inv_1/digest", content)
    await blobs.put("empty", b"")
    assert await blobs.get("inv_1/digest") == content
    assert await blobs.get("empty") == b""


async def test_deleted_blobs_and_unknown_ones_raise_key_error(blobs: Blobs) -> None:
    await blobs.put("a", b"1")
    await blobs.put("b", b"2")
    await blobs.put("c", b"3")
    await blobs.delete(["a", "b", "unknown"])
    await blobs.delete([])
    for gone in ("a", "b", "unknown"):
        with pytest.raises(KeyError):
            await blobs.get(gone)
    assert await blobs.get("c") == b"3"
