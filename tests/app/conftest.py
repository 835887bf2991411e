"""Servers for the tests that only look, call and operate."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.toolbox import PROJECT, Server, project


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("shop")
    project(folder)
    with Server(folder, ["dev", "shop", "--no-reload"]) as server:
        server.wait_for(lambda: "Ctrl-C stops" in server.output())
        yield server


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With more to look at: calls within calls, things that wait, fail, or hold a key."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("shop.py", "errands.py"):
        (folder / name).write_text((PROJECT / name).read_text())
    with Server(folder, ["dev", "shop", "errands", "--no-reload"]) as server:
        server.wait_for(lambda: "Ctrl-C stops" in server.output())
        yield server


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Server]:
    """With reload, in a folder of its own; not started."""
    project(tmp_path)
    server = Server(tmp_path, ["dev", "shop"])
    yield server
    if hasattr(server, "process") and server.process.poll() is None:
        server.kill()
