"""The option `--server` and the fixtures: per worker one server and one process set for each transport."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.client import Deployment, Effects
from tests.conformance.endpoints import TRANSPORTS, Endpoint
from tests.conformance.servers import KINDS, Server, free_port
from tests.support.lambda_service import LambdaServiceProcess


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "holdfast_only: a rule of ours which the official server does not follow")


def server_kind(config: pytest.Config) -> str:
    """The option; its default when this folder was not named on the command line."""
    return str(config.getoption("--server", default="holdfast"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kind = server_kind(config)
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker("conformance")
        group = item.callspec.params.get("transport", "server") if hasattr(item, "callspec") else "server"
        item.add_marker(pytest.mark.xdist_group(str(group)))
        if item.get_closest_marker("holdfast_only") is not None and kind != "holdfast":
            item.add_marker(pytest.mark.skip(reason="our rule, which the official server does not follow"))


@pytest.fixture(scope="session")
def effects(tmp_path_factory: pytest.TempPathFactory) -> Effects:
    return Effects(tmp_path_factory.mktemp("effects"))


@pytest.fixture(scope="session")
def functions() -> Iterator[LambdaServiceProcess]:
    """The Lambda service of this worker."""
    with LambdaServiceProcess(free_port()) as service:
        yield service


@pytest.fixture(scope="session")
def shared_server(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, functions: LambdaServiceProcess
) -> Iterator[Server]:
    server = KINDS[server_kind(pytestconfig)](tmp_path_factory.mktemp("server"), functions.url)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(shared_server: Server) -> Server:
    """The worker's server, started again if the test before left it dead."""
    if not shared_server.alive:
        shared_server.start()
    return shared_server


class Fleet:
    """The endpoints of a worker; each is started and registered when a test first asks for it."""

    def __init__(self, server: Server, effects: Effects, functions: LambdaServiceProcess) -> None:
        self.server, self.effects, self.functions = server, effects, functions
        self.endpoints: dict[str, Endpoint] = {}
        self.deployments: dict[str, Deployment] = {}

    def deployment(self, transport: str) -> Deployment:
        if transport not in self.deployments:
            endpoint = TRANSPORTS[transport](self.effects.folder, self.functions)
            endpoint.start()
            self.endpoints[transport] = endpoint
            self.server.register(endpoint.deployment)
            self.deployments[transport] = Deployment(self.server, endpoint.prefix, self.effects)
        return self.deployments[transport]

    def stop(self) -> None:
        for deployment in self.deployments.values():
            deployment.http.close()
        for endpoint in self.endpoints.values():
            endpoint.stop()


@pytest.fixture(scope="session")
def fleet(shared_server: Server, effects: Effects, functions: LambdaServiceProcess) -> Iterator[Fleet]:
    fleet = Fleet(shared_server, effects, functions)
    yield fleet
    fleet.stop()


@pytest.fixture(params=list(TRANSPORTS))
def transport(request: pytest.FixtureRequest) -> str:
    only = os.environ.get("CONFORMANCE_TRANSPORTS")
    if only is not None and request.param not in only.split(","):
        pytest.skip(f"CONFORMANCE_TRANSPORTS names only {only}")
    return str(request.param)


@pytest.fixture
def services(server: Server, fleet: Fleet, transport: str) -> Deployment:
    """The conformance services over one transport."""
    return fleet.deployment(transport)
