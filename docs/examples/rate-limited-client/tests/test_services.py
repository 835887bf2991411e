"""Many callers on the real engine: who goes when, to the millisecond of virtual time."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from holdfast import TerminalError
from holdfast.testing import TestRuntime

from rate_limited_client import gateways
from rate_limited_client.limiter import LIMITS, limiter, show
from rate_limited_client.services import document, translations, word

ALLOWED = LIMITS["translator"]


class Provider:
    """Writes down when it was asked for what. A document takes ten seconds."""

    def __init__(self, runtime: TestRuntime) -> None:
        self.runtime = runtime
        self.asked: list[tuple[datetime, str]] = []
        self.inside: dict[str, datetime] = {}
        self.most = 0

    def translate(self, text: str) -> str:
        self.asked.append((self.runtime.now(), text))
        return text.upper()

    def submit(self, name: str, request_id: str) -> str:
        self.asked.append((self.runtime.now(), name))
        self.inside[name] = self.runtime.now()
        self.most = max(self.most, len(self.inside))
        return name

    def is_done(self, id: str) -> bool:
        return self.runtime.now() - self.inside[id] >= timedelta(seconds=10)

    def fetch(self, id: str) -> str:
        del self.inside[id]
        return f"translated {id}"

    def names(self) -> list[str]:
        return [name for _, name in self.asked]


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(translations, limiter, always_replay=True) as runtime:
        yield runtime


@pytest.fixture
def provider(runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch) -> Provider:
    provider = Provider(runtime)
    for name in ("translate", "submit", "is_done", "fetch"):
        monkeypatch.setattr(gateways, name, getattr(provider, name))
    return provider


def names(count: int) -> list[str]:
    return [f"n{number:03}" for number in range(count)]


async def test_first_come_first_served_at_the_allowed_rate(runtime: TestRuntime, provider: Provider) -> None:
    began = runtime.now()
    sent = [await runtime.send(word, name) for name in names(20)]
    await runtime.settle()
    assert provider.names() == names(20)[: ALLOWED.burst], "the burst goes at once"
    assert [await one.result() for one in sent] == [name.upper() for name in names(20)]
    assert provider.names() == names(20), "in the order in which they came"
    assert runtime.now() - began < timedelta(seconds=(20 - ALLOWED.burst) / ALLOWED.per_second + 0.1), "and no slower than allowed"


async def test_in_no_stretch_of_time_more_than_is_allowed(runtime: TestRuntime, provider: Provider) -> None:
    for wave in range(2):  # with a pause, after which the burst is there again
        for name in names(12):
            await runtime.send(word, f"{wave} {name}")
        await runtime.advance(timedelta(seconds=1.5))
    await runtime.advance(timedelta(seconds=10))
    assert len(provider.asked) == 24
    times = [at for at, _ in provider.asked]
    for first, start in enumerate(times):
        for last, end in enumerate(times[first:], start=first):
            assert last - first + 1 <= ALLOWED.burst + (end - start).total_seconds() * ALLOWED.per_second + 1e-9


async def test_no_more_at_once_than_is_allowed(runtime: TestRuntime, provider: Provider) -> None:
    began = runtime.now()
    sent = [await runtime.send(document, name) for name in names(12)]
    await runtime.advance(timedelta(seconds=5))
    assert await runtime.call(show, key="translator") == "5 inside, 7 waiting"
    assert [await one.result() for one in sent] == [f"translated {name}" for name in names(12)]
    assert provider.most == ALLOWED.at_once
    assert provider.names() == names(12)
    assert timedelta(seconds=30) <= runtime.now() - began < timedelta(seconds=34)
    await runtime.settle()
    assert await runtime.call(show, key="translator") == "0 inside, 0 waiting"


async def test_a_caller_that_is_killed_holds_its_place_no_longer_than_its_lease(runtime: TestRuntime, provider: Provider) -> None:
    lost = [await runtime.send(document, name) for name in names(ALLOWED.at_once)]
    await runtime.advance(timedelta(seconds=5))
    for one in lost:
        await one.kill()  # no clean-up, as after a bug
    last = await runtime.send(word, "hello")
    await runtime.settle()
    assert "hello" not in provider.names()
    assert await last.result() == "HELLO"
    assert timedelta(milliseconds=ALLOWED.lease_ms) <= provider.asked[-1][0] - provider.asked[0][0]


async def test_who_is_cancelled_leaves_at_once(runtime: TestRuntime, provider: Provider) -> None:
    inside = [await runtime.send(document, name) for name in names(ALLOWED.at_once)]
    await runtime.advance(timedelta(seconds=5))
    waiting = [await runtime.send(word, name) for name in ("first", "second")]
    await runtime.settle()
    assert await runtime.call(show, key="translator") == "5 inside, 2 waiting"
    await waiting[0].cancel()
    await inside[0].cancel()
    await runtime.settle()
    assert provider.names()[ALLOWED.at_once :] == ["second"]


async def test_a_failure_for_good_gives_the_place_back(runtime: TestRuntime, provider: Provider) -> None:
    runtime.fail_step("translate", TerminalError("no such language", code=422))
    with pytest.raises(TerminalError, match="no such language"):
        await runtime.call(word, "hello")
    await runtime.settle()
    assert await runtime.call(show, key="translator") == "0 inside, 0 waiting"


async def test_a_bad_minute_keeps_the_place(runtime: TestRuntime, provider: Provider) -> None:
    runtime.fail_step("translate", gateways.throttled(40))
    began = runtime.now()
    assert await runtime.call(word, "hello") == "HELLO"
    assert runtime.now() - began >= timedelta(seconds=40)


async def test_a_queue_that_is_too_long_is_refused(runtime: TestRuntime, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "translator", replace(ALLOWED, queue=3))
    sent = [await runtime.send(word, name) for name in names(9)]
    with pytest.raises(TerminalError, match="3 are waiting already") as refused:
        await sent[-1].result()
    assert refused.value.code == 503
    assert await sent[-2].result() == "N007"


async def test_an_api_without_limits_is_refused_at_once(runtime: TestRuntime, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(LIMITS, "translator")
    monkeypatch.setitem(LIMITS, "maps", ALLOWED)
    with pytest.raises(TerminalError, match="no limits are known for 'translator', only for maps"):
        await runtime.call(word, "hello")
    with pytest.raises(TerminalError, match="no limits are known for 'nonsense'"):
        await runtime.call(show, key="nonsense")


async def test_a_dead_coordinator_keeps_the_order(runtime: TestRuntime, provider: Provider) -> None:
    sent = [await runtime.send(word, name) for name in names(20)]
    for _ in range(3):
        await runtime.advance(timedelta(milliseconds=700))
        await runtime.crash_coordinator()
    assert [await one.result() for one in sent] == [name.upper() for name in names(20)]
    assert provider.names() == names(20)
