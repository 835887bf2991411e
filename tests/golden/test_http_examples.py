"""Every captured exchange with the reference server (http-api, Appendix A), replayed against a running one.

The server has real sockets, the fixture services behind it are those of the captures on the official SDK, over HTTP/2. What must be there
before an exchange is brought about through the HTTP surfaces (`tests/golden/live`). An exchange that we do not reproduce is listed with its
reason in docs/compatibility.md, and nowhere else.

    pytest tests/golden/test_http_examples.py                     # ours
    pytest tests/golden/test_http_examples.py --server=restate    # the official one: are the scenarios those of the captures?
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.golden.live import admin_scenarios, cli_scenarios, ingress_scenarios
from tests.golden.live.exchanges import NAMES
from tests.golden.live.scenarios import Scenario, replay_limited
from tests.golden.live.world import World, world

SCENARIOS: list[Scenario] = [*ingress_scenarios.SCENARIOS, *admin_scenarios.SCENARIOS, *cli_scenarios.SCENARIOS]
OF = {name: scenario for scenario in SCENARIOS for name in scenario.names}
LIMITED = {step.name for scenario in SCENARIOS for step in scenario.steps if isinstance(step, replay_limited)}

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"
HEADING = "## Exchanges that are not reproduced"
# What every client uses: calls, registrations, the operations of old scripts (http-api §0.1, tier T1).
T1 = re.compile(r"ingress-|client-ts-|admin-deployments-register-|admin-invocations-(cancel|kill|delete-old-form)-")
# A superset which an official client needs; the document explains it.
T1_ON_PURPOSE = {"ingress-error-send-delay-bare-number"}


def listed() -> dict[str, str]:
    """Exchange -> reason, from the table of the document."""
    section = DOCUMENT.read_text().split(HEADING, 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| `([^`]+)` \| (.+?) \|$", section, re.MULTILINE))


NOT_REPRODUCED = listed()

pytestmark = pytest.mark.xdist_group("golden exchanges")
in_module = pytest.mark.asyncio(loop_scope="module")


class Told:
    """Plays a scenario when the first of its exchanges is asked about."""

    def __init__(self, running: World) -> None:
        self.world = running
        self._told: dict[str, list[str]] = {}

    async def of(self, name: str) -> list[str]:
        if name not in self._told:
            self._told |= await OF[name].play(self.world)
        return self._told[name]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Told]:
    kind = request.config.getoption("--server")
    async with world(kind, tmp_path_factory.mktemp("exchanges")) as running:
        yield Told(running)


@in_module
@pytest.mark.parametrize("name", OF)
async def test_exchange(told: Told, name: str) -> None:
    if told.world.kind == "restate" and name in LIMITED:
        pytest.skip("its limits are set when it starts, for everybody")
    differences = await told.of(name)
    if told.world.kind == "holdfast" and name in NOT_REPRODUCED:
        assert differences, f"{name} is reproduced: take it off the list in {DOCUMENT.name}"
    else:
        assert not differences, "\n".join(differences)


def test_every_exchange_is_replayed() -> None:
    assert len(NAMES) == 383
    assert sorted(name for scenario in SCENARIOS for name in scenario.names) == NAMES


def test_the_list_of_those_not_reproduced_is_short_and_honest() -> None:
    assert set(NOT_REPRODUCED) <= set(NAMES)
    assert len(NOT_REPRODUCED) <= 53
    assert len(NAMES) - len(NOT_REPRODUCED) >= 330
    assert [name for name, reason in NOT_REPRODUCED.items() if len(reason.split()) < 4] == []


def test_what_every_client_uses_is_reproduced() -> None:
    assert {name for name in NOT_REPRODUCED if T1.match(name)} == T1_ON_PURPOSE
