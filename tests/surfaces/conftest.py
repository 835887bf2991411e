"""The surfaces over the fixture services of the HTTP examples, each behind a real listener."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.adapters.system import SystemClock, SystemEntropy
from holdfast_runtime.coordinator.deployments import Deployments
from holdfast_runtime.coordinator.front import RegisterDeployment
from holdfast_runtime.surfaces.admin import AdminSettings, admin_app
from holdfast_runtime.surfaces.ingress import Ingress, IngressSettings
from holdfast_runtime.surfaces.server import Listener, serve
from tests.support import fixture_services
from tests.surfaces.endpoints import SdkEndpoint
from tests.surfaces.fakes import FakeFront
from tests.surfaces.http import Http

FIXTURE_URI = "http://127.0.0.1:21010/"


async def no_addresses(host: str) -> list[str]:
    """A resolver that knows no name, so that no test asks the network."""
    return []


@pytest.fixture
async def front() -> FakeFront:
    endpoint = SdkEndpoint({FIXTURE_URI: fixture_services.app, "http://127.0.0.1:21012/": fixture_services.versioned})
    deployments = Deployments(memory_store(4).registry, endpoint, SystemClock(), SystemEntropy(), resolver=no_addresses)
    await deployments.load()
    await deployments.register(RegisterDeployment(uri=FIXTURE_URI))
    return FakeFront(deployments)


@pytest.fixture
async def ingress(front: FakeFront) -> AsyncIterator[Http]:
    server = await serve(Ingress(front, IngressSettings(max_body_bytes=1 << 20)), Listener(grace_s=1))
    yield Http(server.url)
    await server.close()


@pytest.fixture
async def admin(front: FakeFront) -> AsyncIterator[Http]:
    settings = AdminSettings(ingress_url="http://127.0.0.1:8080/", cluster_name="localcluster")
    server = await serve(admin_app(front, settings), Listener(grace_s=1))
    yield Http(server.url)
    await server.close()
