"""Every code block of docs/testing.md is run, as a file of one project. That they are typed, tests/docs shows."""

import json
import re
from itertools import takewhile
from pathlib import Path

import pytest

from holdfast import Client, Context, Service
from holdfast_runtime.app.exporting import exported
from holdfast_runtime.app.http import admin_api
from tests.docs.blocks import blocks, files
from tests.testing import stack

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "testing.md"
FILES = files(PAGE)
BLOCKS = [(block.language, block.source) for block in blocks(PAGE)]
FRESH = "import pytest, shop\n\n@pytest.fixture(autouse=True)\ndef fresh():\n    shop.SENT.clear()\n"


def test_every_block_is_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {language for language, _ in BLOCKS} == {"python", "text", "console"}
    for name, content in FILES.items():
        (pytester.path / name).write_text(content)
    pytester.makeconftest(FRESH)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\naddopts = --strict-markers\n")
    monkeypatch.syspath_prepend(str(pytester.path))
    import shop  # of the document, for a journal of it

    shipping = Service("shipping")

    @shipping.handler
    async def dispatch(ctx: Context, order_id: str) -> str:
        return f"parcel of {order_id}"

    with stack.running(shop.orders, shop.points, shop.approval, shipping) as (ingress, admin):
        export_an_order(shop, ingress, admin, pytester.path / "journals" / "order.json")
        run = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-v", "-s")
        tests = sum(len(re.findall(r"^(?:async )?def test_", content, re.MULTILINE)) for content in FILES.values())
        run.assert_outcomes(passed=tests - 1 + 16)  # one is parametrized by 16 crashes
        assert printed(run.outlines) == without_ids(next(content for language, content in BLOCKS if language == "text").splitlines())

        (command,) = [content for language, content in BLOCKS if language == "console"]
        options = command.replace("http://127.0.0.1:8080", ingress).replace("http://127.0.0.1:9070", admin).split()[1:]
        deployed = pytester.runpytest_subprocess(
            "-p", "no:cacheprovider", *options, "test_plain.py", "test_client.py", "test_time.py", "test_mocks.py"
        )
        deployed.assert_outcomes(passed=2, skipped=2)


def export_an_order(shop: object, ingress: str, admin: str, file: Path) -> None:
    """An order that waits, exported as `holdfast invocations export` does."""
    client = Client(ingress)
    sent = client.send(shop.checkout, shop.Order("o1", 100))  # type: ignore[attr-defined]
    api = admin_api(admin)
    journal = stack.eventually(
        lambda: exported(api, sent.invocation_id),
        lambda found: found["invocation"]["status"] == "suspended" and found["entries"][-1]["type"] == "SLEEP_COMMAND",
    )
    file.parent.mkdir()
    file.write_text(json.dumps(journal))


def printed(output: list[str]) -> list[str]:
    """The timeline in the output of a run: its head, behind what pytest writes, and the lines that are indented."""
    start = next(number for number, line in enumerate(output) if "orders/checkout  inv_" in line)
    head = output[start][output[start].index("orders/checkout") :]
    return without_ids([head, *takewhile(lambda line: line.startswith("  "), output[start + 1 :])])


def without_ids(lines: list[str]) -> list[str]:
    return [re.sub(r"inv_\w+", "", line).rstrip() for line in lines]
