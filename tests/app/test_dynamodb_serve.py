"""`holdfast store` and `holdfast serve` on a DynamoDB table, as a user runs them, against the stand-in."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.toolbox import Server, cli, environment, free_port
from tests.support.dynamodb import ENVIRONMENT, dynoxide, served

ORDERS = 12


@contextlib.contextmanager
def sample_services(ledger: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.support.sample_app:app", "--port", str(port), "--log-level", "warning"]
    with served(command, port, environment(HOLDFAST_DEMO_LEDGER=str(ledger))):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def variables(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of a process whose DynamoDB is a stand-in that keeps its data in a file."""
    with dynoxide(tmp_path / "dynamodb.sqlite") as url:
        yield {**ENVIRONMENT, "AWS_ENDPOINT_URL_DYNAMODB": url}


def order(number: int) -> dict[str, object]:
    return {"id": f"o{number}", "item": "teapot", "quantity": 1, "card": "4242", "street": "Main St 1"}


def test_a_killed_server_on_a_table_loses_nothing(tmp_path: Path, variables: dict[str, str]) -> None:
    done = cli("store", "init", "dynamodb://shop", "--shards", "2", **variables)
    assert (done.code, done.out.splitlines()[-1]) == (0, "ready: holdfast serve --store dynamodb://shop")
    ledger = tmp_path / "effects"
    server: Any = Server(tmp_path, ["serve"], **variables)
    server.store = "dynamodb://shop"  # as a path it would lose a slash
    with sample_services(ledger) as endpoint:
        with server:
            assert "store dynamodb://shop" in server.output()
            assert server.cli("deployments", "register", endpoint, "--use-http1.1", "--yes").code == 0
            cup = {"sku": "cup", "quantity": 2, "price_cents": 690}
            assert server.post("/cart/ann/add", cup)["total_cents"] == 1380
            started = [server.post("/orders/checkout/send", order(number))["invocationId"] for number in range(ORDERS)]
            server.kill()
        begin = server.log.stat().st_size
        with server:
            # 8 s until the killed process is presumed dead, then one shard a second.
            server.wait_for(lambda: server.output(begin).count("shard.taken") == 2)
            assert server.post("/cart/ann/add", cup)["total_cents"] == 2760
            for invocation_id in started:
                server.wait_for(lambda wanted=invocation_id: server.row(wanted)["status"] == "completed")  # type: ignore[misc]
            assert server.stop()[0] == 0
    effects = [json.loads(line) for line in ledger.read_text().splitlines()]
    dispatched = {effect["order_id"] for effect in effects if effect["effect"] == "parcel.dispatched"}
    assert dispatched == {f"o{number}" for number in range(ORDERS)}


def test_check_tells_what_is_wrong_and_ends_with_1(tmp_path: Path, variables: dict[str, str]) -> None:
    missing = cli("store", "check", "dynamodb://shop", **variables)
    assert missing.code == 1
    assert "does not exist in us-east-1; create it with `holdfast store init`" in missing.out
    assert cli("store", "init", "dynamodb://shop", **variables).code == 0
    found = cli("store", "check", "dynamodb://shop", "--json", **variables)
    levels = {finding["subject"]: finding["level"] for finding in found.json()}
    assert levels == {
        "table": "ok",
        "time to live": "ok",
        "point-in-time recovery": "warning",
        "setup": "ok",
        "owners": "ok",
        "permissions": "ok",
        "latency": levels["latency"],  # the machine's
        "clock": "ok",
    }


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["store", "init", "holdfast"], 2, "expected dynamodb://TABLE"),
        (["store", "check", "dynamodb://no"], 2, "3 to 255 letters"),
        (["serve", "--store", "dynamodb://never-made", "--ingress", ":0", "--admin", ":0"], 1, "create it with `holdfast store init`"),
        (["serve", "--store", "dynamodb://a/b"], 2, "dynamodb://TABLE"),
        (["dev", "--store", "dynamodb://shop", "--fresh", "--ingress", ":0", "--admin", ":0"], 2, "--fresh deletes files"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(variables: dict[str, str], arguments: list[str], code: int, words: str) -> None:
    done = cli(*arguments, **variables)
    assert done.code == code
    assert words in done.err
    assert re.fullmatch(r"error: [^\n]+\n", done.err)
