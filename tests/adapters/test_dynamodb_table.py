"""The table itself: one description for two serialisers, what expires, what is compressed, setup and its check."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_runtime.adapters import dynamodb_items as items
from holdfast_runtime.adapters import dynamodb_models as models
from holdfast_runtime.adapters.dynamodb import open_dynamodb_store
from holdfast_runtime.adapters.dynamodb_setup import Finding, Level, Setup
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.ports.store import MAX_ITEM_BYTES, LogItem, Member, ShardRecord, StoreBroken, StoredPage, StoreUnavailable
from tests.support.dynamodb import (
    PATIENCE,
    aws_at,
    dynoxide,
    free_port,
    maintenance,
    new_table_name,
    set_up,
    sweep_expired,
)

NOW_S = 1_800_000_000
NOISE = random.Random(1).randbytes(MAX_ITEM_BYTES)  # does not compress
LOG_ITEM = LogItem(70, 3, b"nonce", 69, 1, 2, b"operations")


# Items


@given(st.integers(1, 10**15), st.integers(0, 2**40), st.binary(min_size=1, max_size=16), st.integers(0, 9), st.binary(max_size=5_000))
def test_log_items_are_read_as_they_were_written(position: int, epoch: int, nonce: bytes, part: int, operations: bytes) -> None:
    item = LogItem(position, epoch, nonce, position - part, part, part + 1, operations)
    assert items.log_item_of(items.log_item(3, item, now_s=NOW_S)) == item


@given(st.integers(0, 2**50), st.none() | st.binary(max_size=5_000), st.none() | st.integers(0, 2**45))
def test_pages_are_read_as_they_were_written(lsn: int, document: bytes | None, expires_at_ms: int | None) -> None:
    page = StoredPage(lsn, document)
    assert items.page_of(items.page_item("I/inv_1", page, now_s=NOW_S, expires_at_ms=expires_at_ms)) == page


@given(st.binary(max_size=3_000).map(lambda content: content * 500))
def test_blobs_are_read_as_they_were_written(content: bytes) -> None:
    assert items.blob_of(items.blob_items("inv_1/digest", content, now_s=1)) == content


def test_half_a_blob_and_parts_of_another_stream_are_no_blob() -> None:
    content, other = random.Random(2).randbytes(1_000_000), random.Random(3).randbytes(1_000_000)
    parts, others = items.blob_items("inv_1/digest", content, now_s=1), items.blob_items("inv_1/digest", other, now_s=1)
    assert len(parts) == 3
    assert items.blob_of(parts[1:]) is None
    assert items.blob_of(parts[:-1]) is None
    assert items.blob_of(sorted([*parts, *others[1:]], key=lambda part: str(part["sk"]["S"]))) == content
    assert items.blob_of(sorted([*parts[:-1], *others[1:]], key=lambda part: str(part["sk"]["S"]))) is None


def test_an_item_of_one_kilobyte_holds_a_thousand_bytes_less_a_few() -> None:
    """What a record may have so that it costs one write unit: the keys and the rest take less than 80 bytes."""
    longest = max(n for n in range(800, 1024) if items.size_of(items.log_item(255, _alone(NOISE[:n]), now_s=NOW_S)) <= 1024)
    assert longest > 1024 - 80


def _alone(operations: bytes) -> LogItem:
    return LogItem(10**9, 10**4, b"8 bytes.", 10**9, 0, 1, operations)


def test_what_saves_a_unit_is_compressed_and_nothing_else() -> None:
    for content, packed in ((b"a" * 900, False), (b"a" * 1_100, True), (NOISE[:1_100], False), (b"a" * 100_000, True), (b"", False)):
        item = items.page_item("I/inv_1", StoredPage(1, content), now_s=NOW_S, expires_at_ms=None)
        assert ("z" in item) is packed
        assert ("b" in item) is not packed


def test_long_ids_become_keys_that_the_service_takes_and_differ() -> None:
    ids = ["K/" + "x" * 3_000, "K/" + "x" * 3_001, "K/" + "🔑" * 700]
    keys = [items.page_key(page_id)["pk"]["S"] for page_id in ids]
    assert len(set(keys)) == 3
    assert all(len(key.encode()) <= 2048 for key in keys)
    assert items.page_key("K/short")["pk"]["S"] == "P#K/short"


def test_pages_and_tombstones_outlive_the_log_that_may_be_redone_onto_them() -> None:
    tombstone = items.page_item("I/a", StoredPage(5, None), now_s=NOW_S, expires_at_ms=NOW_S * 1000)
    expiring = items.page_item("I/a", StoredPage(5, b"done"), now_s=NOW_S, expires_at_ms=NOW_S * 1000 + 1)
    kept = items.page_item("I/a", StoredPage(5, b"live"), now_s=NOW_S, expires_at_ms=None)
    log = items.log_item(0, LOG_ITEM, now_s=NOW_S)
    assert items.int_of(tombstone, "ttl") > items.int_of(log, "ttl")
    assert items.int_of(expiring, "ttl") > items.int_of(log, "ttl")
    assert "ttl" not in kept
    late = items.page_item("I/a", StoredPage(5, b"done"), now_s=NOW_S, expires_at_ms=(NOW_S + 100 * 86_400) * 1000)
    assert items.int_of(late, "ttl") == NOW_S + 100 * 86_400


# The models


def as_boto3(item: items.Item) -> dict[str, Any]:
    """With bytes instead of their base64, as boto3 and PynamoDB have them."""
    return {name: {"B": items.bytes_of(value)} if "B" in value else value for name, value in item.items()}


def as_ours(item: dict[str, Any]) -> items.Item:
    return {name: items.binary(value["B"]) if "B" in value else value for name, value in item.items()}


def test_the_models_read_every_item_the_store_writes() -> None:
    log: Any = models.LogEntry.from_raw_data(as_boto3(items.log_item(3, LOG_ITEM, now_s=NOW_S)))
    assert (log.pk, log.sk, log.epoch, log.nonce, log.first, log.part, log.parts) == ("L#3#1", "0" * 14 + "70", 3, b"nonce", 69, 1, 2)
    assert log.plain == b"operations"
    assert log.ttl == NOW_S + items.LOG_S
    page: Any = models.PageItem.from_raw_data(as_boto3(items.page_item("I/a", StoredPage(5, NOISE[:9]), now_s=NOW_S, expires_at_ms=7)))
    assert (page.pk, page.sk, page.lsn, page.plain, page.expires_at_ms, page.is_tombstone) == ("P#I/a", "-", 5, NOISE[:9], 7, None)
    gone: Any = models.PageItem.from_raw_data(as_boto3(items.page_item("I/a", StoredPage(6, None), now_s=NOW_S, expires_at_ms=None)))
    assert gone.is_tombstone is True
    member: Any = models.MemberItem.from_raw_data(as_boto3(items.member_item(Member("p1", 4, "host:1"), now_s=NOW_S)))
    assert (member.sk, member.counter, member.address) == ("p1", 4, "host:1")
    entry: Any = models.RegistryItem.from_raw_data(as_boto3(items.registry_item("deployments", 2, b"a" * 5_000)))
    assert (entry.version, entry.plain) == (2, None)
    part: Any = models.BlobPart.from_raw_data(as_boto3(items.blob_items("inv_1/d", b"value", now_s=1)[0]))
    assert (part.sk, part.parts, part.plain) == ("00000", 1, b"value")
    setup: Any = models.SetupItem.from_raw_data(as_boto3(items.setup_item(8, "values")))
    assert (setup.shards, setup.bucket) == (8, "values")


def test_what_the_models_write_the_store_reads() -> None:
    shard = models.ShardItem("M", "003", epoch=4, owner="p1", checkpoint=7, tip=9, alive_at=1)
    record = items.shard_of(shard.serialize())
    assert (record.shard, record.epoch, record.owner, record.checkpoint, record.tip) == (3, 4, "p1", 7, 9)
    page = models.PageItem("P#I/a", "-", lsn=5, plain=b"document")
    assert items.page_of(as_ours(page.serialize())) == StoredPage(5, b"document")


def test_the_models_read_the_table_of_a_running_store(aws: None) -> None:
    name = new_table_name()
    set_up(name, 3)
    shards: list[Any] = list(models.bound(models.ShardItem, name).query("M", models.ShardItem.sk < "9"))
    assert [(shard.sk, shard.epoch, shard.checkpoint) for shard in shards] == [("000", 0, 1), ("001", 0, 1), ("002", 0, 1)]


# Expiry


async def test_expired_log_items_are_gone_and_nobody_writes_in_their_place() -> None:
    """The process that stood still since before they expired; its successor has checkpointed past them."""
    port = free_port()
    with dynoxide(more=maintenance(port)) as url, aws_at(dynamodb=url):
        name = new_table_name()
        set_up(name, 1)
        old = await open_dynamodb_store(DynamoDbTable(name), patience=PATIENCE)
        taken = await old.store.leases.acquire(0, seen_epoch=0, owner="old")
        assert taken is not None
        for position in (1, 2):
            await old.store.log.put(0, LogItem(position, 1, b"old", position, 0, 1, b"ops"))
        new = await open_dynamodb_store(DynamoDbTable(name), patience=PATIENCE)
        await new.store.leases.acquire(0, seen_epoch=1, owner="new")
        for position in (3, 4):
            await new.store.log.put(0, LogItem(position, 2, b"new", position, 0, 1, b"ops"))
        await new.store.leases.checkpoint(0, epoch=2, checkpoint=5, tip=5)
        _expire(name, range(1, 5))
        sweep_expired(f"http://127.0.0.1:{port}/mcp")
        assert list(await new.store.log.read(0, 1, 10)) == []
        await old.store.leases.read()  # its heartbeat, the first thing that works again
        answer = await old.store.log.put(0, LogItem(3, 1, b"old", 3, 0, 1, b"lost?"))
        assert answer is not None
        assert (answer.nonce, answer.operations) == (b"", b"")
        assert list(await new.store.log.read(0, 3, 10)) == []
        await old.close()
        await new.close()


def _expire(table: str, positions: range) -> None:
    client = boto3.client("dynamodb")
    for position in positions:
        client.update_item(
            TableName=table,
            Key={"pk": items.text(items.log_partition(0, position)), "sk": items.text(items.log_sort_key(position))},
            UpdateExpression="SET #t = :t",
            ExpressionAttributeNames={"#t": "ttl"},
            ExpressionAttributeValues={":t": items.number(SystemClock().now_ms() // 1000 - 3_600)},
        )


class LaterClock(SystemClock):
    ahead_s = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_s * 1000


async def test_a_shard_whose_log_may_have_expired_is_not_taken_before_an_operator_accepts_it(aws: None) -> None:
    name, clock = new_table_name(), LaterClock()
    set_up(name, 3)
    dead = await open_dynamodb_store(DynamoDbTable(name), clock=clock, patience=PATIENCE)
    for shard in range(3):
        await dead.store.leases.acquire(shard, seen_epoch=0, owner="dead")
    await dead.store.leases.release(1, epoch=1)
    for position in (1, 2, 3):
        await dead.store.log.put(0, LogItem(position, 1, b"dead", position, 0, 1, b"x"))
    await dead.store.leases.checkpoint(0, epoch=1, checkpoint=2, tip=4)
    await dead.close()
    held = await open_dynamodb_store(DynamoDbTable(name), clock=clock, patience=PATIENCE)
    leases = held.store.leases
    clock.ahead_s = items.SURE_S - 60
    assert await leases.acquire(2, seen_epoch=1, owner="next") is not None
    clock.ahead_s = items.SURE_S + 60
    with pytest.raises(StoreUnavailable, match=r"shard 0 was last owned on 20.* may have expired since.*--accept-lost-log"):
        await leases.acquire(0, seen_epoch=1, owner="next")
    assert (await leases.read())[0][0].epoch == 1
    assert await leases.acquire(1, seen_epoch=2, owner="next") is not None  # handed over: nothing was needed of its log
    setup = Setup(DynamoDbTable(name), clock)
    (found_error,) = [finding for finding in setup.check() if finding.subject == "owners"]
    assert (found_error.level, "[0]" in found_error.detail) == (Level.ERROR, True)
    assert list(setup.init(None, None, accept_lost_log=True))[-1] == "shards [0] may be taken with what is left of their logs"
    assert await leases.acquire(0, seen_epoch=1, owner="next") == ShardRecord(0, 2, "next", checkpoint=2, tip=4)
    await held.close()


async def test_a_log_with_a_gap_ends_there_when_an_operator_accepts_it_and_its_numbers_are_not_given_again(aws: None) -> None:
    name, clock = new_table_name(), LaterClock()
    set_up(name, 2)
    held = await open_dynamodb_store(DynamoDbTable(name), clock=clock, patience=PATIENCE)
    store = held.store
    for shard in range(2):
        await store.leases.acquire(shard, seen_epoch=0, owner="dead")
        for position in (1, 2, 4, 70):  # the third has expired
            await store.log.put(shard, LogItem(position, 1, b"dead", position, 0, 1, b"x"))
    await store.leases.checkpoint(0, epoch=1, checkpoint=2, tip=5)
    await store.leases.checkpoint(1, epoch=1, checkpoint=2, tip=3)
    done = list(Setup(DynamoDbTable(name), clock).init(None, None, accept_lost_log=True))[-1]
    assert done == "shards [0] may be taken with what is left of their logs; of [0] that is nothing, their last minutes are lost"
    taken = await store.leases.acquire(0, seen_epoch=1, owner="next")
    assert taken is not None
    assert taken.checkpoint == taken.tip > 10**9
    assert await store.log.read(0, taken.checkpoint, 10) == []
    await held.close()


async def test_an_idle_owner_is_not_taken_for_one_that_died(aws: None) -> None:
    name, clock = new_table_name(), LaterClock()
    set_up(name, 1)
    held = await open_dynamodb_store(DynamoDbTable(name), clock=clock, patience=PATIENCE)
    leases = held.store.leases
    await leases.acquire(0, seen_epoch=0, owner="idle")
    for day in range(1, 30):
        clock.ahead_s = day * 86_400 + 60
        await leases.read()
    assert await leases.acquire(0, seen_epoch=1, owner="next") is not None
    await held.close()


async def test_an_expired_page_that_is_still_there_is_answered_as_it_is(aws: None) -> None:
    name = new_table_name()
    set_up(name, 1)
    held = await open_dynamodb_store(DynamoDbTable(name), patience=PATIENCE)
    await held.store.pages.put("I/a", StoredPage(1, b"done"), expires_at_ms=1)
    assert await held.store.pages.get(["I/a"]) == {"I/a": StoredPage(1, b"done")}
    await held.close()


# Setting up


@contextmanager
def found(table: str) -> Iterator[dict[str, Finding]]:
    yield {finding.subject: finding for finding in Setup(DynamoDbTable(table), SystemClock()).check()}


def test_setting_up_twice_changes_nothing_and_the_shards_are_fixed(aws: None) -> None:
    name = new_table_name()
    setup = Setup(DynamoDbTable(name), SystemClock())
    assert list(setup.init(5, None))[-1] == "5 shard records added"
    boto3.client("dynamodb").update_item(
        TableName=name, Key=items.shard_key(2), UpdateExpression="SET e = :e", ExpressionAttributeValues={":e": items.number(7)}
    )
    assert list(setup.init(None, "values"))[-2:] == ["5 shards; large values now go to bucket values", "every shard record is there"]
    assert list(setup.init(5, None))[-2] == "5 shards; large values go to values"
    with pytest.raises(StoreBroken, match="has 5 shards, fixed when it was set up"):
        list(setup.init(6, None))
    shards: list[Any] = list(models.bound(models.ShardItem, name).query("M", models.ShardItem.sk < "9"))
    assert [shard.epoch for shard in shards] == [0, 0, 7, 0, 0]


async def test_an_interrupted_setup_is_told_and_completed(aws: None) -> None:
    name = new_table_name()
    set_up(name, 4)
    boto3.client("dynamodb").delete_item(TableName=name, Key=items.shard_key(3))
    with pytest.raises(StoreBroken, match=r"not completely; run `holdfast store init"):
        await open_dynamodb_store(DynamoDbTable(name))
    with found(name) as findings:
        assert findings["setup"] == Finding("setup", Level.ERROR, "shard records are missing: [3]; run `holdfast store init`")
    set_up(name, 4)
    held = await open_dynamodb_store(DynamoDbTable(name), patience=PATIENCE)
    assert held.store.shards == 4
    await held.close()


async def test_a_newer_schema_is_refused(aws: None) -> None:
    name = new_table_name()
    set_up(name, 1)
    key = {"pk": items.text("M"), "sk": items.text(items.SETUP)}
    boto3.client("dynamodb").update_item(
        TableName=name, Key=key, UpdateExpression="SET v = :v", ExpressionAttributeValues={":v": items.number(9)}
    )
    with pytest.raises(StoreBroken, match="schema version 9, this program knows 1"):
        await open_dynamodb_store(DynamoDbTable(name))


async def test_check_says_until_when_a_store_that_died_must_be_started(aws: None) -> None:
    name = new_table_name()
    set_up(name, 2)
    held = await open_dynamodb_store(DynamoDbTable(name), patience=PATIENCE)
    await held.store.leases.acquire(1, seen_epoch=0, owner="gone")
    await held.store.log.put(1, LogItem(1, 1, b"n", 1, 0, 1, b"ops"))
    await held.close()
    with found(name) as findings:
        assert findings["owners"].level is Level.WARNING
        assert "shards [1] were not handed over; start a coordinator before 20" in findings["owners"].detail


def test_other_keys_are_an_error(aws: None) -> None:
    name = new_table_name()
    boto3.client("dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
    )
    with found(name) as findings:
        assert findings["table"].level is Level.ERROR
        assert "expected are the strings pk (HASH) and sk (RANGE)" in findings["table"].detail
    with pytest.raises(StoreBroken, match="choose another table name"):
        set_up(name, 1)


def test_backups_are_turned_on_where_they_exist(moto_url: str) -> None:
    name = new_table_name()
    with aws_at(dynamodb=moto_url):
        steps = list(Setup(DynamoDbTable(name), SystemClock()).init(1, None))
        assert "point-in-time recovery turned on" in steps
        with found(name) as findings:
            assert findings["point-in-time recovery"].level is Level.OK


def test_the_bucket_is_checked(dynamodb_url: str, moto_url: str) -> None:
    name = new_table_name()
    with aws_at(dynamodb=dynamodb_url, s3=moto_url):
        set_up(name, 1, "no-such-bucket")
        with found(name) as findings:
            assert findings["bucket"].level is Level.ERROR
            assert "NoSuchBucket" in findings["bucket"].detail
        boto3.client("s3").create_bucket(Bucket="no-such-bucket")
        with found(name) as findings:
            assert findings["bucket"].level is Level.OK


@pytest.mark.parametrize(
    ("url", "table"),
    [
        ("dynamodb://holdfast", DynamoDbTable("holdfast")),
        ("dynamodb://a_b.c-1/", DynamoDbTable("a_b.c-1")),
        ("dynamodb://Store?region=eu-central-1", DynamoDbTable("Store", "eu-central-1")),
    ],
)
def test_table_urls(url: str, table: DynamoDbTable) -> None:
    assert DynamoDbTable.parse(url) == table
    assert DynamoDbTable.parse(str(table)) == table


@pytest.mark.parametrize(
    "url", ["dynamodb://", "dynamodb://ab", "dynamodb://a/b", "dynamodb://abc?zone=1", "dynamodb://abc?region=", "abc", "s3://abc"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected dynamodb://TABLE"):
        DynamoDbTable.parse(url)
