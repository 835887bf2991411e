"""What compares answers with captured ones sees what does not vary, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.golden.live.comparing import Ids, differences
from tests.golden.live.exchanges import NAMES, load
from tests.surfaces.http import Answer

LIST, KILLED, SENT = "cli-invocations-list-2", "admin-invocations-kill-completed", "ingress-send-service"
OTHER = "inv_1kuKDMvwsGs90qejn93LRDpi5m8gW3qrff"


def told(name: str, answer: Answer, ids: Ids | None = None, *, same_ids: bool = False) -> list[str]:
    return differences(load(name), answer, ids or Ids(), same_ids=same_ids)


def changed(name: str, **members: Any) -> Answer:
    """The captured answer with other members in its JSON."""
    answer = load(name).answer
    return replace(answer, body=json.dumps({**answer.json(), **members}).encode())


@pytest.mark.parametrize("name", NAMES)
def test_every_captured_answer_equals_itself(name: str) -> None:
    answer = load(name).answer
    assert told(name, answer, same_ids=True) == []
    assert told(name, replace(answer, status=answer.status + 1))
    assert told(name, replace(answer, headers={**answer.headers, "x-more": "1"}))
    for header in answer.headers.keys() - {"date", "content-length"}:
        assert told(name, replace(answer, headers={k: v for k, v in answer.headers.items() if k != header})), header


# Long ones are lists of services: more of what the short ones have.
SHORT = [name for name in NAMES if load(name).answer.body[:1] == b"{" and len(load(name).answer.body) < 3_000]


@pytest.mark.parametrize("name", SHORT)
def test_every_member_counts(name: str) -> None:
    answer = load(name).answer
    for other in without_a_member(answer.json()):
        assert told(name, replace(answer, body=json.dumps(other).encode())), other


def without_a_member(value: Any) -> Iterator[Any]:
    """The value without one member: of itself, of what it holds, of the first item of its arrays; each once."""
    if isinstance(value, dict):
        for name in value.keys() - {"features", "metadata_cluster_health"}:
            yield {key: item for key, item in value.items() if key != name}
            yield from ({**value, name: inner} for inner in without_a_member(value[name]))
    elif isinstance(value, list) and value:
        yield from ([inner, *value[1:]] for inner in without_a_member(value[0]))


def test_texts_numbers_and_types_count() -> None:
    assert told(KILLED, changed(KILLED, message="The invocation was completed."))
    assert told(KILLED, changed(KILLED, restate_code="META0001"))
    assert told(SENT, changed(SENT, status="accepted"))
    assert told("ingress-error-terminal-418", changed("ingress-error-terminal-418", code=419))
    assert told("ingress-error-terminal-418", changed("ingress-error-terminal-418", code="418"))


def test_an_id_may_be_another_but_only_one() -> None:
    captured = load(SENT).answer.json()["invocationId"]
    headers = {**load(SENT).answer.headers, "x-restate-id": OTHER}
    consistent = replace(changed(SENT, invocationId=OTHER), headers=headers)
    assert told(SENT, consistent) == []
    assert told(SENT, changed(SENT, invocationId=OTHER))  # the header names another one
    assert told(SENT, consistent, same_ids=True)
    assert told(SENT, consistent, Ids({captured: captured}))  # known to be another by an exchange before
    assert told(SENT, consistent, Ids({"inv_1juZlomZNvVx2ACWl6rCmhbBAPfqFdIMH8": OTHER}))  # stands for another one
    assert told(SENT, changed(SENT, invocationId="inv_1"))


def test_ids_of_a_key_begin_alike() -> None:
    name = "ingress-send-object"
    captured = load(name).answer.json()["invocationId"]
    for ours, differs in ((captured[:16] + OTHER[16:], False), (OTHER, True)):
        answer = replace(changed(name, invocationId=ours), headers={**load(name).answer.headers, "x-restate-id": ours})
        assert bool(told(name, answer)) is differs


def test_rows_have_the_order_that_was_asked_for() -> None:
    rows = load(LIST).answer.json()["rows"]
    ids = Ids({row["id"]: row["id"] for row in rows})
    assert told(LIST, changed(LIST, rows=rows), ids) == []
    assert told(LIST, changed(LIST, rows=rows[::-1]), ids)
    assert differences(load(LIST), changed(LIST, rows=rows[::-1]), ids, same_ids=False, ties=True) == []
    assert told(LIST, changed(LIST, rows=rows[:-1]), ids)


def test_instants_vary_in_value_and_not_in_form() -> None:
    name = "ingress-send-delayed-ms"
    assert told(name, changed(name, executionTime="2027-01-01T00:00:00.000000000Z")) == []
    assert told(name, changed(name, executionTime="2027-01-01T00:00:00.000Z"))
    assert told(name, changed(name, executionTime="2027-01-01T00:00:00.000000000+00:00"))
    assert told(name, changed(name, executionTime="soon"))


def test_arrow_is_compared_by_schema_and_rows() -> None:
    count, named = "admin-query-arrow-count", "admin-query-arrow"  # the same types, another column name and value
    assert told(count, load(named).answer)
    state, inbox = "admin-query-arrow-schema-state", "admin-query-arrow-schema-sys-inbox"
    assert told(state, load(inbox).answer)
