"""The pytest plugin: fixtures, the marker `holdfast`, and options to run the same tests against a deployed stack.

Rules: it is loaded in every pytest run of whoever has the package installed, so nothing else is imported before a fixture is used.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from holdfast.service import ServiceBase
    from holdfast.testing import TestRuntime
    from holdfast.testing.sync import TestRuntime as SyncTestRuntime

MARKER = (
    "holdfast(*services, **options): services of the fixtures holdfast_runtime and holdfast_runtime_sync, "
    "and options of their TestRuntime, e.g. always_replay=True"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("holdfast", "durable execution (Holdfast)")
    group.addoption("--holdfast-ingress", metavar="URL", help="run the tests against this deployed stack instead of one in memory")
    group.addoption("--holdfast-admin", metavar="URL", help="its admin API, for tests that look at state and journals")
    group.addoption("--holdfast-always-replay", action="store_true", help="replay at every await, in every test: determinism bugs show")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    ingress, admin = config.getoption("--holdfast-ingress"), config.getoption("--holdfast-admin")
    if admin and not ingress:
        raise pytest.UsageError("--holdfast-admin needs --holdfast-ingress: the tests call handlers there")
    if ingress and config.getoption("--holdfast-always-replay"):
        raise pytest.UsageError("--holdfast-always-replay needs the runtime in memory; drop it, or --holdfast-ingress")
    if ingress:
        from holdfast.testing import _deployed

        _deployed.use(_deployed.Stack(ingress, admin))


def pytest_unconfigure(config: pytest.Config) -> None:
    if config.getoption("--holdfast-ingress", None):
        from holdfast.testing import _deployed

        _deployed.use(None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """A test that fails with a runtime of ours is told with its journals."""
    try:
        return (yield)
    except Exception as error:
        arguments = getattr(item, "funcargs", {})
        if "holdfast_runtime" in arguments:
            with contextlib.suppress(Exception), contextlib.closing(asyncio.new_event_loop()) as loop:
                loop.run_until_complete(arguments["holdfast_runtime"].explain(error))  # asyncio.run would unset the test's own loop
        if "holdfast_runtime_sync" in arguments:
            with contextlib.suppress(Exception):
                arguments["holdfast_runtime_sync"].explain(error)
        raise


@pytest.fixture
def holdfast_services() -> Sequence[ServiceBase]:
    """The services of `holdfast_runtime`; override it in a conftest.py or a module, or use the marker."""
    return ()


@pytest.fixture
def holdfast_runtime(request: pytest.FixtureRequest, holdfast_services: Sequence[ServiceBase]) -> Iterator[TestRuntime]:
    """A runtime for async tests, with the services of the marker `holdfast` or of the fixture `holdfast_services`."""
    from holdfast.testing import TestRuntime

    services, options = _asked(request, holdfast_services)
    runtime = TestRuntime(*services, **options)
    yield runtime
    runtime.close()


@pytest.fixture
def holdfast_runtime_sync(request: pytest.FixtureRequest, holdfast_services: Sequence[ServiceBase]) -> Iterator[SyncTestRuntime]:
    """The same for plain tests."""
    from holdfast.testing.sync import TestRuntime

    services, options = _asked(request, holdfast_services)
    runtime = TestRuntime(*services, **options)
    yield runtime
    runtime.close()


def _asked(request: pytest.FixtureRequest, services: Sequence[ServiceBase]) -> tuple[Sequence[ServiceBase], dict[str, Any]]:
    """Services and options: the marker nearest to the test says, the fixture and the command line fill in."""
    options: dict[str, Any] = {}
    if request.config.getoption("--holdfast-always-replay"):
        options["always_replay"] = True
    named: Sequence[ServiceBase] = ()
    for marker in reversed(list(request.node.iter_markers("holdfast"))):
        named = marker.args or named
        options.update(marker.kwargs)
    chosen = named or services
    if not chosen:
        raise pytest.UsageError(
            "holdfast_runtime has no services: mark the test with @pytest.mark.holdfast(service, ...), "
            "or override the fixture holdfast_services"
        )
    return chosen, options
