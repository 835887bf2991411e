"""`GET /metrics`: every metric that is declared, in both text formats; the table of the documentation; what the ingress counts."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from holdfast_runtime.coordinator.front import CoordinatorUnavailable, Failed
from holdfast_runtime.coordinator.gauges import Gauges
from holdfast_runtime.ports.metrics import Metrics
from holdfast_runtime.surfaces.admin import AdminSettings, admin_app
from holdfast_runtime.surfaces.ingress import Ingress, IngressSettings
from holdfast_runtime.surfaces.metrics import METRICS, metrics_routes, table
from holdfast_runtime.surfaces.server import Listener, serve
from tests.surfaces.fakes import FakeFront
from tests.surfaces.http import Http

ROOT = Path(__file__).parent.parent.parent
STANDING = Gauges(3, 2, 1000, 5, 4, 1, 12.5, 7, 4096, 2048, 9)


async def test_every_metric_is_served_as_declared(front: FakeFront) -> None:
    metrics = Metrics(invocations_accepted=11)
    metrics.invocations_finished["killed"] = 2
    for seconds in (0.003, 0.003, 20.0):
        metrics.append_seconds.observe(seconds)
    extra = metrics_routes(lambda: (metrics, STANDING), version="1.2.3", cluster="c1")
    server = await serve(admin_app(front, AdminSettings(ingress_url="http://h/", cluster_name="c1"), [extra]), Listener(grace_s=1))
    try:
        plain = await Http(server.url).get("/metrics")
        openmetrics = await Http(server.url).get("/metrics", {"accept": "application/openmetrics-text; version=1.0.0"})
    finally:
        await server.close()
    assert plain.status == openmetrics.status == 200
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    families = list(parse_text(plain.body.decode()))
    assert {f.name for f in parse_openmetrics(openmetrics.body.decode())} >= {"holdfast_invocations_accepted", "process_cpu_seconds"}
    samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}
    assert samples["holdfast_invocations_accepted_total", ()] == 11
    assert samples["holdfast_invocations_finished_total", (("outcome", "killed"),)] == 2
    assert samples["holdfast_append_duration_seconds_bucket", (("le", "0.005"),)] == 2
    assert samples["holdfast_append_duration_seconds_bucket", (("le", "+Inf"),)] == 3
    assert samples["holdfast_append_duration_seconds_count", ()] == 3
    assert samples["holdfast_oldest_dirty_page_age_seconds", ()] == 12.5
    assert samples["holdfast_shards_unowned", ()] == 1
    served = {family.name: family.type for family in families if family.name.startswith("holdfast_")}
    kinds = {"info": "gauge"}  # the older format knows no other
    assert served == {metric.name.removesuffix("_total"): kinds.get(metric.kind, metric.kind) for metric in METRICS}
    labels = {family.name: {name for s in family.samples for name in s.labels} - {"le"} for family in families}
    for metric in METRICS:
        assert labels[metric.name.removesuffix("_total")] == {one for one in metric.label.split(", ") if one}


def test_the_documentation_lists_them_all() -> None:
    assert table() in (ROOT / "docs" / "operations.md").read_text(), (
        "put it there: python -c 'from holdfast_runtime.surfaces.metrics import table; print(table())'"
    )


async def test_requests_are_counted_by_who_failed(front: FakeFront) -> None:
    assert await _counted(front, "/ApiGreeter/greet") == {"completed": 1}
    assert await _counted(front, "/Nobody/greet") == {"request_error": 1}
    front.outcome = Failed(500, "boom")
    assert await _counted(front, "/ApiGreeter/greet") == {"invocation_error": 1}
    front.outcome = CoordinatorUnavailable("nobody", retry_safe=True)
    assert await _counted(front, "/ApiGreeter/greet") == {"ingress_error": 1}


async def _counted(front: FakeFront, path: str) -> dict[str, int]:
    metrics = Metrics()
    server = await serve(Ingress(front, IngressSettings(max_body_bytes=1 << 20), metrics), Listener(grace_s=1))
    try:
        await Http(server.url).request("POST", path, {"content-type": "application/json"}, b'"x"')
    finally:
        await server.close()
    assert sum(metrics.ingress_seconds.counts) == 1
    return {status: count for status, count in metrics.ingress.items() if count}
