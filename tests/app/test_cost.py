"""`holdfast cost`: the arithmetic, by numbers that were worked out by hand, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from holdfast_runtime.app import cli, costing
from holdfast_runtime.app import cost_prices as price
from holdfast_runtime.app.costing import PRODUCTION, Cluster, Workload

NOTHING = Workload(calls=0)
HOBBY = Cluster()


def dollars(work: Workload, cluster: Cluster, service: str) -> float:
    return sum(line.dollars for line in costing.estimate(work, cluster) if line.service == service)


def quantity(work: Workload, what: str, cluster: Cluster = HOBBY) -> float:
    (line,) = [line for line in costing.estimate(work, cluster) if line.what == what]
    return line.quantity


def test_what_runs_without_any_call() -> None:
    assert dollars(NOTHING, HOBBY, "Fargate") == pytest.approx(730 * (0.25 * 0.03238 + 0.5 * 0.00356))
    assert dollars(NOTHING, HOBBY, "VPC") == pytest.approx(3.65)
    assert costing.total(costing.estimate(NOTHING, HOBBY)) == costing.total(costing.estimate(NOTHING, HOBBY), fixed=True)
    assert costing.total(costing.estimate(NOTHING, HOBBY)) == pytest.approx(15.36, abs=0.01)
    assert costing.total(costing.estimate(NOTHING, PRODUCTION)) == pytest.approx(85.64, abs=0.01)


def test_units_are_those_that_tests_count() -> None:
    """tests/adapters/test_dynamodb_cost.py: 2 for a call without steps, 12 with ten, 4 and 2 for a day's sleep, 1 for a result alone."""
    small = Workload(calls=1_000, steps=0, payload_bytes=10)
    assert quantity(small, "log") == 2_000
    assert quantity(replace(small, steps=10), "log") == 12_000
    assert quantity(replace(small, sleeps=1), "log") == 4_000
    assert quantity(replace(small, sleeps=1), "sleeping invocations") == 2_000
    assert quantity(small, "kept results and journals") == 1_000
    assert quantity(replace(small, kept_days=0), "kept results and journals") == 0


def test_results_of_calls_that_end_together_are_kept_together() -> None:
    """Counted there: 0.05 to 0.08. Alone are those that sleep, and those that are large."""
    many = Workload(calls=40 * 8 * price.SECONDS / 300, steps=0, payload_bytes=0)  # 40 in each shard's five minutes
    assert quantity(many, "kept results and journals") == pytest.approx(many.calls * (0.1 + 1 / 40))
    with_values = replace(many, payload_bytes=256)
    assert quantity(with_values, "kept results and journals") == pytest.approx(many.calls * (0.1 + 2 * 256 / 1024 + 1 / 40))
    assert quantity(replace(many, sleeps=1), "kept results and journals") == pytest.approx(many.calls * 2)
    large = replace(many, payload_bytes=10_000 - costing.RECORD_BYTES)
    assert quantity(large, "kept results and journals") == pytest.approx(many.calls * 20)


def test_a_larger_payload_costs_the_units_of_its_kilobytes() -> None:
    work = Workload(calls=1_000, steps=0, payload_bytes=costing.KB * 10 - costing.RECORD_BYTES)
    assert quantity(work, "log") == 2 * 10 * 1_000


def test_under_load_records_share_what_they_cost() -> None:
    """Per shard: below 50 records a second nothing is shared; at 400 a small record costs 0.45 units, a large one its bytes."""
    one = replace(HOBBY, shards=1)
    quiet = Workload(calls=20 * price.SECONDS, steps=0, payload_bytes=10)
    busy = replace(quiet, calls=200 * price.SECONDS)
    assert costing.units_per_record(quiet, one) == 1.0
    assert costing.units_per_record(busy, one) == pytest.approx(costing.SHARED_UNITS)
    large = replace(busy, payload_bytes=costing.KB * 3 // 2 - costing.RECORD_BYTES)
    assert costing.units_per_record(large, one) == pytest.approx(1.5)
    assert costing.units_per_record(busy, replace(one, shards=8)) == 1.0


def test_each_step_and_each_sleep_is_an_attempt() -> None:
    work = Workload(calls=1_000_000, steps=3, sleeps=1, step_ms=100, memory_mb=512)
    assert quantity(work, "attempts") == 5_000_000
    seconds = 1_000_000 * (3 * 0.1 + 5 * 0.005)
    assert quantity(work, "computing") == pytest.approx(seconds * 0.5)
    assert dollars(work, HOBBY, "Lambda") == pytest.approx(1.0 + seconds * 0.5 * 0.0000133334)


def test_more_costs_more() -> None:
    base = costing.total(costing.estimate(Workload(), HOBBY))
    for work in (
        replace(Workload(), calls=200_000),
        replace(Workload(), steps=4),
        replace(Workload(), sleeps=1),
        replace(Workload(), payload_bytes=5_000),
        replace(Workload(), kept_days=7),
    ):
        assert costing.total(costing.estimate(work, HOBBY)) > base
    assert costing.total(costing.estimate(Workload(), PRODUCTION)) > base


def test_elsewhere_is_asked_for_actions() -> None:
    found = costing.elsewhere(Workload(calls=1_000_000, steps=3, sleeps=0, payload_bytes=1_000))
    assert found["Step Functions (Standard)"] == pytest.approx(100.0)
    assert found["Lambda durable functions"] == pytest.approx(32.0 + 5 * 0.25)
    assert found["Temporal Cloud"] == pytest.approx(220.0)


def ask(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["cost", *arguments])


def test_the_command_prints_its_sum() -> None:
    answer = ask("--calls", "1000000", "--steps", "10", "--kept-days", "0")
    assert answer.exit_code == 0, answer.output
    total = costing.total(costing.estimate(Workload(calls=1_000_000, steps=10, kept_days=0), HOBBY))
    assert f"{total:,.2f}" in answer.stdout
    assert "Temporal Cloud" in answer.output


def test_the_command_speaks_json() -> None:
    answer = ask("--production", "--replicas", "3", "--json")
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert found["cluster"]["replicas"] == 3
    assert found["cluster"]["load_balancer"] is True
    assert found["total"] == pytest.approx(sum(line["dollars"] for line in found["lines"]))
    assert found["fixed"] < found["total"]


@pytest.mark.parametrize("wrong", [("--calls", "-1"), ("--replicas", "0"), ("--function-memory", "1"), ("--steps", "many")])
def test_what_makes_no_sense_is_refused(wrong: tuple[str, str]) -> None:
    answer = ask(*wrong)
    assert answer.exit_code == 2
    assert wrong[0] in answer.output


DOCUMENT = Path(__file__).resolve().parents[2] / "docs/cost.md"
DOCUMENTED = {
    "without steps": Workload(steps=0),
    "without steps, nothing kept": Workload(steps=0, kept_days=0),
    "3 steps": Workload(),
    "10 steps": Workload(steps=10),
    "10 steps, nothing kept": Workload(steps=10, kept_days=0),
    "3 steps and a day's sleep": Workload(sleeps=1),
    "3 steps of 10 KB": Workload(payload_bytes=10_000),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_document_says_what_is_computed(name: str) -> None:
    work = replace(DOCUMENTED[name], calls=10_000_000)
    lines = [line for line in costing.estimate(work, HOBBY) if not line.fixed]
    ours = [sum(line.dollars for line in lines if line.service == service) / 10 for service in ("DynamoDB", "Lambda")]
    theirs = costing.elsewhere(replace(work, calls=1_000_000)).values()
    row = " | ".join([name, *(f"${one:.2f}" for one in ours), *(f"${one:,.0f}" for one in theirs)])
    assert f"| {row} |" in DOCUMENT.read_text()


def test_the_document_says_what_runs() -> None:
    sums = [costing.total(costing.estimate(NOTHING, cluster)) for cluster in (HOBBY, PRODUCTION)]
    assert f"| **without any call** | **${sums[0]:.2f}** | **${sums[1]:.2f}** |" in DOCUMENT.read_text()
