"""The fixtures `stage` and `served`: every scenario with both flavours of handlers in every runtime, one process set each."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.sdk.behaviour import runtimes
from tests.sdk.behaviour.runtimes import FLAVOURS, IN_MEMORY, OVER_HTTP, Served, Stage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and hasattr(item, "callspec"):
            kind = str(item.callspec.params["kind"])
            item.add_marker(pytest.mark.xdist_group("behaviour " + ("memory" if kind in IN_MEMORY else kind)))
            if kind in OVER_HTTP:
                item.add_marker("conformance")


@pytest.fixture(scope="session", autouse=True)
def _ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LEDGER", str(tmp_path_factory.mktemp("effects") / "ledger"))
        yield


@pytest.fixture(scope="session")
def server_of(_ledger: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Served]]:
    """The server of a kind, started when a test first asks for it."""
    running: dict[str, Served] = {}
    with ExitStack() as stack:

        def serve(kind: str) -> Served:
            if kind not in running:
                running[kind] = stack.enter_context(runtimes.serving(kind, tmp_path_factory.mktemp(kind)))
            return running[kind]

        yield serve


@pytest.fixture(scope="session", params=[*IN_MEMORY, *OVER_HTTP])
def kind(request: pytest.FixtureRequest) -> str:
    """The runtime: in memory, in memory with every await replayed, our server, the official one."""
    return str(request.param)


@pytest.fixture(params=list(FLAVOURS))
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def stage(kind: str, flavour: str, server_of: Callable[[str], Served]) -> AsyncIterator[Stage]:
    stage = runtimes.in_memory(kind, flavour) if kind in IN_MEMORY else runtimes.deployed(server_of(kind), flavour)
    async with stage.runtime:
        yield stage


@pytest.fixture
def served(kind: str, server_of: Callable[[str], Served]) -> Served:
    """For what is between a client, the ingress and an endpoint: in memory there is none of them."""
    if kind in IN_MEMORY:
        pytest.skip("there is no ingress and no transport in memory")
    return server_of(kind)


@pytest.fixture
def tag() -> str:
    return uuid.uuid4().hex[:12]
