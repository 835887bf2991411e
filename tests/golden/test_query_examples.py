"""The statements of the official CLI, as captured (http-api §4.4).

Their answers are compared in `test_http_examples`, with those of every other captured exchange; `tests.surfaces.test_query` runs them
against invocations in every status.
"""

from __future__ import annotations

from tests.golden.live.exchanges import NAMES, load

# What the official CLI asks: (statement, accept).
_ASKED = [load(name) for name in NAMES if name.startswith("cli-")]
STATEMENTS = [(exchange.statement, exchange.headers["accept"]) for exchange in _ASKED if exchange.statement]


def test_the_cli_statements_are_all_there() -> None:
    assert len(STATEMENTS) == 42
