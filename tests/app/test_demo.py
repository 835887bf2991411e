"""The demonstration runs green, and its checks can fail."""

from collections import Counter

import pytest

from holdfast_runtime.app.demo.story import PLANS, Findings, checks
from tests.app.toolbox import cli


def test_the_demonstration_holds() -> None:
    found = cli("demo", "--json").json()
    assert found["ok"] is True
    assert len(found["checks"]) == 5
    assert all(found["checks"].values())


def test_the_demonstration_is_a_story_for_people() -> None:
    done = cli("demo")
    assert done.code == 0
    assert done.out.count("✓") == 5
    assert "kill -9" in done.out
    assert "nobody delivers to Atlantis" in done.out


def good() -> Findings:
    effects = Counter(f"{plan.key}/{effect}" for plan in PLANS for effect in plan.effects)
    return Findings(
        exit_code=-9,
        unfinished=[plan.key for plan in PLANS],
        recorded={"order-1/charge"},
        executed=effects.copy(),
        applied=effects.copy(),
        ends={plan.key: plan.ends for plan in PLANS},
    )


def failing(found: Findings) -> list[int]:
    return [index for index, (_, holds) in enumerate(checks(found)) if not holds]


def test_what_is_as_claimed_passes() -> None:
    assert failing(good()) == []


@pytest.mark.parametrize(
    ("index", "spoil"),
    [
        (0, lambda found: setattr(found, "exit_code", -15)),
        (1, lambda found: found.unfinished.clear()),
        (2, lambda found: found.ends.update({"order-1": "lost"})),
        (3, lambda found: found.applied.update(["order-2/ship"])),
        (3, lambda found: found.applied.pop("order-2/ship")),
        (4, lambda found: found.executed.update(["order-1/charge"])),
    ],
)
def test_what_is_not_as_claimed_fails(index: int, spoil: object) -> None:
    found = good()
    spoil(found)  # type: ignore[operator]
    assert failing(found) == [index]
