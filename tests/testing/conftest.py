"""Every test starts without side effects."""

import pytest

from tests.testing import shop


@pytest.fixture(autouse=True)
def _no_effects() -> None:
    shop.EFFECTS.clear()
