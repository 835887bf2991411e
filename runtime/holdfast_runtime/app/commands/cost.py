"""`holdfast cost`"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from holdfast_runtime.app.costing import PRODUCTION, Cluster, Workload
from holdfast_runtime.app.options import AsJson

_WORK, _CLUSTER = "What is called, in a month", "What runs"


def _work(name: str, meaning: str, minimum: float = 0) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(name, min=minimum, help=meaning, rich_help_panel=_WORK)
    return found


Calls = Annotated[float, _work("--calls", "Calls.")]
Steps = Annotated[int, _work("--steps", "Steps (ctx.run, calls, state that is waited for) of each.")]
Sleeps = Annotated[int, _work("--sleeps", "Sleeps, awakeables and other waits of each.")]
Payload = Annotated[int, _work("--payload", "Bytes of each request, result and step.")]
StepMs = Annotated[float, _work("--step-ms", "Milliseconds that a step computes.")]
MemoryMb = Annotated[int, _work("--function-memory", "MB of the functions.", 128)]
KeptDays = Annotated[float, _work("--kept-days", "Days that results and journals are kept; 0: not at all.")]
Production = Annotated[
    bool, typer.Option("--production", help="Two replicas with a core each, behind a load balancer.", rich_help_panel=_CLUSTER)
]
Replicas = Annotated[int | None, typer.Option("--replicas", min=1, help="Coordinator tasks.", show_default=False, rich_help_panel=_CLUSTER)]

_NOTHING = Workload()


def cost(
    calls: Calls = _NOTHING.calls,
    steps: Steps = _NOTHING.steps,
    sleeps: Sleeps = _NOTHING.sleeps,
    payload: Payload = _NOTHING.payload_bytes,
    step_ms: StepMs = _NOTHING.step_ms,
    function_memory: MemoryMb = _NOTHING.memory_mb,
    kept_days: KeptDays = _NOTHING.kept_days,
    production: Production = False,
    replicas: Replicas = None,
    as_json: AsJson = False,
) -> None:
    """Estimate what a workload costs on AWS, by list prices of us-east-1 without free tiers.

    Asks nobody and needs no account. docs/cost.md says what is counted and what is estimated.
    """
    from dataclasses import replace

    cluster = PRODUCTION if production else Cluster()
    if replicas is not None:
        cluster = replace(cluster, replicas=replicas)
    _print(Workload(calls, steps, sleeps, payload, step_ms, function_memory, kept_days), cluster, as_json)


def _print(work: Workload, cluster: Cluster, as_json: bool) -> None:
    from holdfast_runtime.app import costing
    from holdfast_runtime.app.output import print_json, remark, table

    lines = costing.estimate(work, cluster)
    sums = {
        "total": costing.total(lines),
        "fixed": costing.total(lines, fixed=True),
        "per_million_calls": costing.per_million_calls(work, cluster),
        "coordination": costing.coordinating(lines),
    }
    others = costing.elsewhere(work)
    if as_json:
        return print_json(
            {"workload": asdict(work), "cluster": asdict(cluster), "lines": [asdict(line) for line in lines], **sums, "elsewhere": others}
        )
    shown = [line for line in lines if line.quantity]
    rows = [[line.service, line.what, f"{line.quantity:,.1f}", line.unit, f"{line.dollars:,.2f}"] for line in shown]
    table(["service", "for", "quantity", "unit", "$ a month"], [*rows, ["total", "", "", "", f"{sums['total']:,.2f}"]], right=(2, 4))
    remark(f"\nWithout any call ${sums['fixed']:,.2f}; for a million more ${sums['per_million_calls']:,.2f}.")
    elsewhere = ", ".join(f"{name} ${dollars:,.2f}" for name, dollars in others.items())
    remark(f"Coordination alone, without what handlers compute: ${sums['coordination']:,.2f}; elsewhere: {elsewhere}.")
    return None
