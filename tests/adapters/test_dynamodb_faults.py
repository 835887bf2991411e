"""The DynamoDB store when calls are throttled, refused, lost, late or signed at a wrong time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from bench.services import own

from holdfast.endpoint import Endpoint
from holdfast_runtime.adapters.dynamodb import open_dynamodb_store
from holdfast_runtime.adapters.dynamodb_client import Patience
from holdfast_runtime.adapters.dynamodb_leases import SEEN_S
from holdfast_runtime.adapters.dynamodb_setup import Setup
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.ports.store import LogItem, Member, Store, StoreBroken, StoredPage, StoreUnavailable
from tests.support.dynamodb import PATIENCE, aws_at, dynoxide, free_port, new_table_name, set_up
from tests.support.dynamodb_process import started
from tests.support.fault_proxy import FaultProxy

T = TypeVar("T")


class SetClock(SystemClock):
    """A wall clock that jumps; the monotonic one stands still meanwhile, as in a paused machine."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


@asynccontextmanager
async def faulty(url: str, clock: SetClock | None = None, patience: Patience = PATIENCE) -> AsyncIterator[tuple[FaultProxy, Store]]:
    """A store of 3 shards behind a proxy that does no harm yet."""
    table = new_table_name()
    with aws_at(dynamodb=url):
        set_up(table, 3)
    async with FaultProxy(url) as proxy:
        with aws_at(dynamodb=proxy.url):
            opened = await open_dynamodb_store(DynamoDbTable(table), clock=clock, patience=patience)
            proxy.calls.clear()
            try:
                yield proxy, opened.store
            finally:
                await opened.close()


def item(position: int, operations: bytes = b"ops", *, epoch: int = 1, nonce: bytes = b"writer-1") -> LogItem:
    return LogItem(position, epoch, nonce, position, 0, 1, operations)


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """What the coordinator does: again, until there is an answer."""
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(0)


# One call


@pytest.mark.parametrize("kind", ["throttle", "internal"])
async def test_a_refused_append_is_unavailable_at_once_and_written_by_the_next_try(dynamodb_url: str, kind: str) -> None:
    async with faulty(dynamodb_url) as (proxy, store):
        proxy.next("PutItem", kind)
        with pytest.raises(StoreUnavailable, match=r"PutItem on table t-.*(Throughput|Internal)"):
            await store.log.put(0, item(1))
        assert [name for name, _ in proxy.calls] == ["PutItem"]  # the coordinator tries again, so the store does not
        assert await store.log.put(0, item(1)) is None


async def test_an_append_whose_answer_was_lost_meets_its_own_first_try(dynamodb_url: str) -> None:
    async with faulty(dynamodb_url) as (proxy, store):
        proxy.next("PutItem", "drop_after")
        assert await store.log.put(0, item(1)) == item(1)
        proxy.next("PutItem", "drop_after", 3)
        with pytest.raises(StoreUnavailable, match="connection"):
            await store.log.put(0, item(2))
        assert await store.log.put(0, item(2)) == item(2)
        assert list(await store.log.read(0, 1, 10)) == [item(1), item(2)]


async def test_a_connection_that_breaks_before_the_request_arrived_costs_nothing(dynamodb_url: str) -> None:
    async with faulty(dynamodb_url) as (proxy, store):
        proxy.next("PutItem", "drop_before")
        assert await store.log.put(0, item(1)) is None


async def test_an_append_that_lands_late_finds_the_seal(dynamodb_url: str) -> None:
    async with faulty(dynamodb_url) as (proxy, store):
        proxy.next("PutItem", "late", 3)
        with pytest.raises(StoreUnavailable):
            await store.log.put(0, item(1, b"late"))
        assert await store.log.put(0, item(1, b"", epoch=2, nonce=b"next")) is None
        proxy.landed.set()
        await asyncio.gather(*proxy._late)
        assert list(await store.log.read(0, 1, 10)) == [item(1, b"", epoch=2, nonce=b"next")]


async def test_no_answer_in_time_is_unavailable(dynamodb_url: str) -> None:
    async with faulty(dynamodb_url) as (proxy, store):
        proxy.next("PutItem", "held")
        log: Any = store.log
        log._client.patience = Patience(try_s=0.1)
        with pytest.raises(StoreUnavailable, match=r"no answer within 0\.1 s"):
            await store.log.put(0, item(1))
        proxy.landed.set()


@pytest.mark.parametrize("kind", ["throttle", "internal", "drop_before", "drop_after"])
async def test_leases_and_registry_try_again_by_themselves_and_act_once(dynamodb_url: str, kind: str) -> None:
    lost = 1 if kind.startswith("drop") else 2
    async with faulty(dynamodb_url) as (proxy, store):
        for operation in ("UpdateItem", "PutItem", "Query", "DeleteItem", "GetItem"):
            proxy.next(operation, kind, lost)
        taken = await store.leases.acquire(0, seen_epoch=0, owner="me")
        assert taken is not None
        assert (taken.epoch, taken.owner) == (1, "me")
        assert (await store.leases.read())[0][0] == taken
        await store.leases.heartbeat(Member("me", 1, "here"))
        proxy.next("PutItem", kind, lost)
        assert await store.registry.store("deployments", b"one", expected_version=0) is True
        assert await store.registry.load("deployments") == (1, b"one")
        proxy.next("UpdateItem", kind, lost)
        assert await store.leases.checkpoint(0, epoch=1, checkpoint=5, tip=6) is True
        proxy.next("UpdateItem", kind, lost)
        assert await store.leases.release(0, epoch=1) is True
        assert (await store.leases.read())[0][0].epoch == 2
        await store.leases.leave("me")
        assert (await store.leases.read())[1] == {}


async def test_another_owners_success_is_not_taken_for_our_own(dynamodb_url: str) -> None:
    async with faulty(dynamodb_url) as (proxy, store):
        await store.leases.acquire(0, seen_epoch=0, owner="you")
        proxy.next("UpdateItem", "throttle")
        assert await store.leases.acquire(0, seen_epoch=0, owner="me") is None
        await store.registry.store("deployments", b"yours", expected_version=0)
        proxy.next("PutItem", "throttle")
        assert await store.registry.store("deployments", b"mine", expected_version=0) is False


async def test_a_page_whose_answer_was_lost_is_stored_once(dynamodb_url: str) -> None:
    async with faulty(dynamodb_url) as (proxy, store):
        proxy.next("PutItem", "drop_after")
        assert await store.pages.put("a", StoredPage(3, b"three")) is False  # the same is there
        assert await store.pages.get(["a"]) == {"a": StoredPage(3, b"three")}


async def test_keys_that_were_not_processed_are_asked_for_again(dynamodb_url: str) -> None:
    async with faulty(dynamodb_url) as (proxy, store):
        page_ids = [f"I/{number}" for number in range(30)]
        for page_id in page_ids:
            await store.pages.put(page_id, StoredPage(1, page_id.encode()))
        proxy.next("BatchGetItem", "unprocessed", 10)
        assert await store.pages.get(page_ids) == {page_id: StoredPage(1, page_id.encode()) for page_id in page_ids}
        assert [name for name, _ in proxy.calls].count("BatchGetItem") == 5


async def test_requests_are_signed_as_botocore_signs_them(dynamodb_url: str) -> None:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    async with faulty(dynamodb_url) as (proxy, store):
        await store.log.put(0, item(1, "zäh".encode()))
        headers, body = proxy.last
    signed = re.search(r"SignedHeaders=([^,]+)", headers["authorization"])
    assert signed is not None
    assert {"host", "x-amz-date", "x-amz-target"} <= set(signed.group(1).split(";"))
    request = AWSRequest("POST", proxy.url + "/", {name: headers[name] for name in signed.group(1).split(";")}, body)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials("test", "test"), "dynamodb", "us-east-1")
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    assert headers["authorization"].endswith(f"Signature={signature}")


# Clocks


async def test_a_wrong_clock_is_corrected_from_the_answer(dynamodb_url: str) -> None:
    clock = SetClock()
    async with faulty(dynamodb_url, clock) as (proxy, store):
        clock.ahead_ms = -400_000  # a little: the shards were read recently enough
        proxy.next("Query", "skewed")
        await store.leases.read()
        proxy.calls.clear()
        await store.registry.load("deployments")
        ((_, signed_for),) = proxy.calls
        assert abs(_seconds(signed_for) - SystemClock().now_ms() / 1000) < 60


def _seconds(moment: str) -> float:
    from datetime import UTC, datetime

    return datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


async def test_who_stood_still_for_weeks_appends_only_after_it_has_looked_at_the_shards(dynamodb_url: str) -> None:
    clock = SetClock()
    async with faulty(dynamodb_url, clock) as (proxy, store):
        assert await store.log.put(0, item(1)) is None
        clock.ahead_ms = int(SEEN_S * 1000) + 60_000
        proxy.calls.clear()
        with pytest.raises(StoreUnavailable, match="may have been overtaken"):
            await store.log.put(0, item(2))
        assert proxy.calls == []
        await store.leases.read()
        assert await store.log.put(0, item(2)) is None


async def test_who_has_its_clocks_from_before_the_pause_is_told_by_the_service(dynamodb_url: str) -> None:
    async with faulty(dynamodb_url, SetClock()) as (proxy, store):
        proxy.skew_s = 14 * 86_400
        proxy.next("PutItem", "skewed")
        for expected in ("Signature|clock", "may have been overtaken", "may have been overtaken"):
            with pytest.raises(StoreUnavailable, match=expected):
                await store.log.put(0, item(1))
        assert [name for name, _ in proxy.calls] == ["PutItem"]


async def test_a_writer_whose_epoch_was_seen_raised_is_told_that_its_position_is_gone(dynamodb_url: str) -> None:
    async with faulty(dynamodb_url) as (proxy, store):
        await store.leases.acquire(0, seen_epoch=0, owner="you")
        await store.leases.acquire(0, seen_epoch=1, owner="he")
        await store.leases.read()
        proxy.calls.clear()
        answer = await store.log.put(0, item(1, epoch=1))
        assert answer is not None
        assert answer.nonce == b""
        assert proxy.calls == []
        assert await store.log.put(0, item(1, epoch=2)) is None


# What an operator must mend


async def test_a_missing_table_is_broken_and_says_what_to_do(dynamodb_url: str) -> None:
    with aws_at(dynamodb=dynamodb_url), pytest.raises(StoreBroken, match="holdfast store init"):
        await open_dynamodb_store(DynamoDbTable("nowhere"))


async def test_a_table_that_is_not_set_up_is_broken(dynamodb_url: str) -> None:
    from holdfast_runtime.adapters.dynamodb_models import TableItem, bound

    name = new_table_name()
    with aws_at(dynamodb=dynamodb_url):
        bound(TableItem, name).create_table(wait=True)
        with pytest.raises(StoreBroken, match="is not set up"):
            await open_dynamodb_store(DynamoDbTable(name))


async def test_a_table_with_other_keys_is_broken(dynamodb_url: str) -> None:
    import boto3

    name = new_table_name()
    with aws_at(dynamodb=dynamodb_url):
        boto3.client("dynamodb").create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )
        with pytest.raises(StoreBroken, match="holdfast store check"):
            await open_dynamodb_store(DynamoDbTable(name))


async def test_a_refused_permission_is_broken_when_opening_and_unavailable_later(dynamodb_url: str) -> None:
    async with faulty(dynamodb_url) as (proxy, store):
        proxy.next("*", "denied", 2)
        with pytest.raises(StoreUnavailable, match="allow the operation on the table"):
            await store.log.put(0, item(1))
        with pytest.raises(StoreBroken, match="allow the operation on the table"):
            await open_dynamodb_store(DynamoDbTable("any-table"))
        assert await store.log.put(0, item(1)) is None  # healed


async def test_no_region_and_no_credentials_are_said(dynamodb_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with aws_at(dynamodb=dynamodb_url):
        monkeypatch.delenv("AWS_REGION")
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        with pytest.raises(StoreBroken, match="set AWS_REGION"):
            await open_dynamodb_store(DynamoDbTable("any-table"))
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(StoreBroken, match="no AWS credentials found"):
            await open_dynamodb_store(DynamoDbTable("any-table", "eu-central-1"))


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"AWS_PROFILE": "nobody"}, "nobody.*correct AWS_PROFILE"),
        ({"AWS_PROFILE": "nobody", "AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, "nobody.*correct AWS_PROFILE"),
        ({"AWS_ENDPOINT_URL_DYNAMODB": "127.0.0.1:8000"}, "expected a URL such as .* in AWS_ENDPOINT_URL_DYNAMODB.*127.0.0.1:8000"),
    ],
)
async def test_what_leads_nowhere_in_the_environment_is_said(
    dynamodb_url: str, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    with aws_at(dynamodb=dynamodb_url):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(StoreBroken, match=words):
            await open_dynamodb_store(DynamoDbTable("any-table"))
        with pytest.raises(StoreBroken, match=words):
            Setup(DynamoDbTable("any-table"), SystemClock())


# Many calls


@pytest.mark.parametrize("seed", range(5))
async def test_of_racing_writers_exactly_one_has_each_position_whatever_is_lost(dynamodb_url: str, seed: int) -> None:
    """Each writer goes on while it wins, and stops at the first position that is another's: as owners do."""
    random = Random(seed)
    async with faulty(dynamodb_url) as (proxy, store):
        proxy.chaos(random, 0.3)

        async def write(writer: int) -> list[LogItem]:
            mine: list[LogItem] = []
            for position in range(1, 41):
                wanted = item(position, b"%d by %d" % (position, writer), nonce=b"writer %d" % writer)
                there = await insist(lambda wanted=wanted: store.log.put(0, wanted))  # type: ignore[misc]
                if there is None or there == wanted:
                    mine.append(wanted)
                else:
                    assert there.nonce != wanted.nonce
                if random.random() < 0.2:
                    proxy.landed.set()
                    proxy.landed.clear()
            return mine

        written = await asyncio.gather(*map(write, range(3)))
        proxy.calm()
        await asyncio.gather(*proxy._late)
        stored = list(await store.log.read(0, 1, 100))
    assert sorted(one for mine in written for one in mine) == stored
    assert len(stored) == 40


async def test_a_coordinator_counts_every_call_once_under_faults(dynamodb_url: str) -> None:
    table = new_table_name()
    with aws_at(dynamodb=dynamodb_url):
        set_up(table, 2)
    async with FaultProxy(dynamodb_url) as proxy:
        proxy.landed.set()
        with aws_at(dynamodb=proxy.url):
            running = await started(table, {"bench": Endpoint(own.SERVICES).handle})
            proxy.chaos(Random(1), 0.15)
            totals = await asyncio.gather(*(running.call("Counter", "add", b"1", key=f"k{number % 3}") for number in range(60)))
            steps = await asyncio.gather(*(running.call("Bench", "steps", b"5") for _ in range(10)))
            proxy.calm()
            await running.stop()
    assert sorted(totals, key=int) == sorted((b"%d" % (n // 3 + 1) for n in range(60)), key=int)
    assert steps == [b"5"] * 10


async def test_an_outage_of_the_service_is_waited_out(tmp_path: Path) -> None:
    """Its process is killed and started again; what it had acknowledged is there, and a call that came meanwhile is done."""
    port, table = free_port(), new_table_name()
    with ExitStack() as first:
        url = first.enter_context(dynoxide(tmp_path / "dynamodb.sqlite", port=port))
        with aws_at(dynamodb=url):
            set_up(table, 1)
            running = await started(table, {"bench": Endpoint(own.SERVICES).handle}, patience=Patience())
        assert await running.call("Counter", "add", b"1", key="k") == b"1"
        first.close()
        meanwhile = asyncio.create_task(running.call("Counter", "add", b"1", key="k"))
        await asyncio.sleep(0)
    with dynoxide(tmp_path / "dynamodb.sqlite", port=port):
        assert await meanwhile == b"2"
        assert await running.call("Counter", "add", b"1", key="k") == b"3"
        await running.stop()
