"""`holdfast serve` starts while its table throttles: it waits for the table, and for no longer than it is asked to."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.toolbox import Server, cli
from tests.support.dynamodb import ENVIRONMENT, dynoxide
from tests.support.fault_proxy import FaultProxy


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with dynoxide(tmp_path / "dynamodb.sqlite") as url:
        variables: dict[str, Any] = {**ENVIRONMENT, "AWS_ENDPOINT_URL_DYNAMODB": url}
        done = cli("store", "init", "dynamodb://shop", "--shards", "1", **variables)
        assert done.code == 0, done
        yield url


async def test_a_table_that_throttles_is_waited_for_until_it_answers_or_a_signal_comes(tmp_path: Path, url: str) -> None:
    async with FaultProxy(url) as table:
        table.next("*", "throttle", 1_000_000)
        server: Any = Server(tmp_path, ["serve"], **ENVIRONMENT, AWS_ENDPOINT_URL_DYNAMODB=table.url)
        server.store = "dynamodb://shop"
        await asyncio.to_thread(_waits_for_its_table, server)
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, 60) == 0

        begin = server.log.stat().st_size
        await asyncio.to_thread(_waits_for_its_table, server)
        table.calm()
        await asyncio.to_thread(server.wait_for, lambda: "admin " in server.output(begin))
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, 60) == 0


def _waits_for_its_table(server: Server) -> None:
    begin = server.log.stat().st_size if server.log.exists() else 0
    server.launch()
    server.wait_for(lambda: "start.retry" in server.output(begin))
