"""Every code block of docs/sdk.md is a module that works. That it is typed and clean, tests/docs shows of every page."""

import base64
import importlib
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast import Client, TerminalError
from holdfast.protocol.manifest import parse_manifest
from holdfast.testing import TestRuntime
from tests.docs.blocks import blocks, files
from tests.testing import stack

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "sdk.md"
FILES = {name.removesuffix(".py"): text for name, text in files(GUIDE).items()}


@pytest.fixture
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The modules of the guide, by name."""
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "shop")
    for name in FILES:
        sys.modules.pop(name, None)
    modules: dict[str, ModuleType] = {name: importlib.import_module(name) for name in FILES}
    yield modules
    for name in FILES:
        sys.modules.pop(name, None)


def test_every_block_is_a_module() -> None:
    assert len(FILES) == len(list(blocks(GUIDE))) > 10


async def test_services(guide: dict[str, Any]) -> None:
    orders = guide["orders"]
    async with TestRuntime(orders.orders, orders.shipping) as runtime:
        order = orders.Order("o1", "cup", "4242", 690)
        assert await runtime.call(orders.checkout, order) == "payment-690, parcel of o1"
        await runtime.advance(timedelta(days=7))
        await runtime.call("orders/survey")
        assert orders.MAILS == ["How was o1?", "How was your last one?"]
        with pytest.raises(TerminalError, match="declined"):
            await runtime.call(orders.checkout, orders.Order("o2", "cup", "0", 1))


async def test_objects(guide: dict[str, Any]) -> None:
    carts = guide["carts"]
    async with TestRuntime(carts.carts) as runtime:
        assert [await runtime.call(carts.add, item, key="ann") for item in ("cup", "pot")] == [1, 2]
        assert await runtime.call(carts.count, key="ann") == "ann has 2"
        assert await runtime.call(carts.empty, key="ann") == ["items"]
        assert await runtime.call(carts.count, key="ann") == "ann has 0"


async def test_workflows(guide: dict[str, Any]) -> None:
    signup = guide["signup"]
    async with TestRuntime(signup.signup) as runtime:
        runs = {name: await runtime.send(signup.run, f"{name}@example.com", key=name) for name in ("ann", "bob", "eve")}
        await runtime.settle()
        assert await runtime.call(signup.status, key="ann") == "waiting"
        await runtime.call(signup.confirm, True, key="ann")
        await runtime.call(signup.confirm, False, key="ann")  # the second changes nothing
        await runtime.call(signup.confirm, False, key="bob")
        assert [await run.result() for run in runs.values()] == ["active", "refused", "expired"]


async def test_many_things_at_once(guide: dict[str, Any]) -> None:
    many, orders = guide["many"], guide["orders"]
    async with TestRuntime(many.many, orders.shipping) as runtime:
        assert await runtime.call(many.all_of_them, ["cup", "unicorn"]) == (True, "parcel of cup", [True, False])
        assert await runtime.call(many.first_of_them, "cup") == "late: None"
        waiting = await runtime.send(many.first_of_them, "cup")
        await runtime.settle()
        await runtime.resolve_awakeable(waiting.awakeable_id(), "yes")
        assert await waiting.result() == "answer: yes"
        assert sorted(await runtime.call(many.as_they_come, ["a", "b"])) == ["parcel of a", "parcel of b"]


async def test_the_outside(guide: dict[str, Any]) -> None:
    outside, orders = guide["outside"], guide["orders"]
    async with TestRuntime(outside.outside, orders.orders, orders.shipping) as runtime:
        asked = await runtime.send(outside.approve, "a boat")
        await runtime.settle()
        await runtime.call(outside.answer, orders.MAILS[-1].split()[-1])
        assert await asked.result() == "bought"
        assert await runtime.call(outside.conduct) == ([1, 2], "409")


async def test_facts_are_the_same_on_replay(guide: dict[str, Any]) -> None:
    facts = guide["facts"]
    async with TestRuntime(facts.facts, always_replay=True) as runtime:
        began, id, invocation_id, handler, attempt = await runtime.call(facts.tell)
        assert began.startswith(runtime.now().isoformat()[:16])
        assert (len(id), invocation_id[:4], handler, attempt) == (36, "inv_", "tell", "1")


async def test_sagas(guide: dict[str, Any]) -> None:
    trips, orders = guide["trips"], guide["orders"]
    async with TestRuntime(trips.trips) as runtime:
        assert await runtime.call(trips.book, "cup") == "payment-100"
        with pytest.raises(TerminalError, match="there is no unicorn"):
            await runtime.call(trips.book, "unicorn")
        assert orders.MAILS == ["refunded payment-100"]


async def test_plain_handlers(guide: dict[str, Any]) -> None:
    async with TestRuntime(guide["plain"].plain, guide["orders"].shipping) as runtime:
        assert await runtime.call(guide["plain"].buy, "o1") == "payment-100, payment-200, parcel of o1, a, 2"


async def test_options(guide: dict[str, Any]) -> None:
    patient = guide["options"].patient
    async with TestRuntime(patient) as runtime:
        assert await runtime.call("patient/try") == "try"
    assert patient.options["retry_max_attempts"] == 50
    assert guide["options"].attempt.options["idempotency_retention_ms"] == 0


async def test_serving(guide: dict[str, Any]) -> None:
    event = {
        "path": "/discover",
        "httpMethod": "GET",
        "headers": {"accept": "application/vnd.restate.endpointmanifest.v4+json"},
        "body": None,
    }
    answer = guide["entry"].handler(event, None)
    manifest = parse_manifest(base64.b64decode(answer["body"]))
    assert [service.name for service in manifest.services] == ["orders", "shipping"]
    assert callable(guide["entry"].app)


def test_programs(guide: dict[str, Any]) -> None:
    with stack.running(guide["orders"].orders, guide["orders"].shipping, guide["carts"].carts) as (ingress, _):
        id, accepted_before, items = guide["program"].order_a_cup(Client(ingress))
        assert id.startswith("inv_")
        assert (accepted_before, items) == (True, 1)
