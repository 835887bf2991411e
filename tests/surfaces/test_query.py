"""`POST /query` on a whole server: what the tables say about invocations, journals, keys and deployments, and what it costs to read."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datafusion import SessionContext

from holdfast_runtime.coordinator import scans
from holdfast_runtime.coordinator.front import Scan, Scanned
from holdfast_runtime.surfaces.introspection import encodings, worker
from tests.golden.test_query_examples import STATEMENTS
from tests.surfaces.http import Http
from tests.surfaces.query_services import System, populate, serving


async def test_the_tables_tell_what_is_going_on() -> None:
    async with serving() as system:
        await populate(system)
        await _statuses(system)
        await _details(system)
        await _raw_statuses(system)
        await _journals(system)
        await _events(system)
        await _keys(system)
        await _registry(system)
        await _captured_statements(system)


async def _statuses(system: System) -> None:
    rows = await system.rows("SELECT status, count(*) AS n FROM sys_invocation GROUP BY status ORDER BY status")
    found = {row["status"]: row["n"] for row in rows}
    assert found == {"backing-off": 1, "completed": 5, "paused": 1, "pending": 1, "scheduled": 1, "suspended": 2}
    (oldest,) = await system.rows("SELECT id FROM sys_invocation ORDER BY created_at ASC, id LIMIT 1")
    assert oldest["id"] == system.ids["ApiCounter/cart-1/add"]
    joined = "SELECT i.id FROM sys_invocation i JOIN state s ON s.service_key = i.target_service_key WHERE s.key = 'name'"
    assert {row["id"] for row in await system.rows(joined)} == {system.ids["flow"], system.ids["paused"]}


async def _details(system: System) -> None:
    (flaky,) = await system.rows(f"SELECT * FROM sys_invocation WHERE id = '{system.ids['flaky']}'")
    assert flaky["target"] == "ApiGreeter/flaky"
    assert flaky["retry_count"] == 1
    assert flaky["last_failure"].startswith("[500 Internal] ")
    assert "flaky!" in flaky["last_failure"]
    assert flaky["next_retry_at"].endswith("Z")
    assert flaky["completion_retention"] == "PT86400S"
    assert flaky["journal_size"] == 3
    assert flaky["journal_commands_size"] == 2
    assert {"vqueue_id", "completed_at", "trace_id", "target_service_key"}.isdisjoint(flaky)  # what is NULL is left out
    (flow,) = await system.rows(f"SELECT * FROM sys_invocation WHERE id = '{system.ids['flow']}'")
    assert flow["target_service_ty"] == "workflow"
    assert flow["suspended_waiting_for_completions"] == [1]
    assert json.loads(flow["suspended_waiting_future_json"])
    (refused,) = await system.rows("SELECT * FROM sys_invocation WHERE completion_result = 'failure'")
    assert refused["completion_failure"] == "[418] not today"
    assert refused["id"] == system.ids["ApiGreeter/refuse"]
    (called,) = await system.rows("SELECT * FROM sys_invocation WHERE invoked_by = 'service'")
    assert called["invoked_by_id"] == system.ids["ApiGreeter/ask"]
    assert called["invoked_by_target"] == "ApiGreeter/ask"
    (later,) = await system.rows("SELECT * FROM sys_invocation WHERE scheduled_start_at > now() + interval '50' minute")
    assert later["id"] == system.ids["later"]


async def _raw_statuses(system: System) -> None:
    rows = await system.rows("SELECT id, status FROM sys_invocation_status WHERE status != 'completed'")
    found = {row["id"]: row["status"] for row in rows}
    names = {"holder": "suspended", "waiting": "inboxed", "flaky": "invoked", "later": "scheduled", "flow": "suspended", "paused": "paused"}
    assert found == {system.ids[name]: status for name, status in names.items()}
    (held,) = await system.rows("SELECT * FROM sys_invocation_state")
    assert (held["id"], held["in_flight"], held["retry_count"]) == (system.ids["flaky"], False, 1)


async def _journals(system: System) -> None:
    statement = f"SELECT * FROM sys_journal WHERE id = '{system.ids['ApiGreeter/ask']}' ORDER BY index"
    rows = await system.rows(statement)
    kinds = ["Command: Input", "Command: Call", "Notification: CallInvocationId", "Notification: Call", "Command: Output"]
    assert [row["entry_type"] for row in rows] == kinds
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    shown = [json.loads(row["entry_json"]) for row in rows]
    request = shown[1]["Command"]["Call"]["request"]
    assert request["invocation_target"] == {
        "VirtualObject": {"name": "ApiCounter", "key": "cart-2", "handler": "add", "handler_ty": "Exclusive", "scope": None}
    }
    assert request["invocation_id"] == shown[2]["Notification"]["Completion"]["CallInvocationId"]["invocation_id"]
    assert shown[3]["Notification"]["Completion"]["Call"]["result"] == {"Success": [49]}
    assert shown[4] == {"Command": {"Output": {"result": {"Success": [49]}, "name": ""}}}
    assert json.loads(rows[4]["entry_lite_json"]) == {"Command": {"Output": {"result": "Success"}}}
    assert all(len(bytes.fromhex(row.get("raw", ""))) == row["raw_length"] for row in rows)


async def _events(system: System) -> None:
    (failed, paused) = await system.rows("SELECT * FROM sys_journal_events ORDER BY event_type DESC")
    assert (failed["id"], failed["event_type"], failed["after_journal_entry_index"]) == (system.ids["flaky"], "TransientError", 2)
    shown = json.loads(failed["event_json"])
    assert (shown["ty"], shown["error_code"], shown["restate_doc_error_code"]) == ("TransientError", 500, "RT0007")
    assert "flaky!" in shown["error_message"]
    assert "ValueError" in shown["error_stacktrace"]
    assert (paused["id"], json.loads(paused["event_json"])) == (system.ids["paused"], {"ty": "Paused"})
    assert await system.rows(f"SELECT id FROM sys_journal_events WHERE id = '{system.ids['flow']}'") == []


async def _keys(system: System) -> None:
    state = await system.rows("SELECT service_name, service_key, key, value, value_utf8, value_length FROM state ORDER BY service_key, key")
    assert [(row["service_key"], row["key"], row["value_utf8"]) for row in state] == [
        ("cart-1", "count", "41"),
        ("cart-1", "last", '"né"'),
        ("cart-2", "count", "1"),
        ("wf-1", "name", '"n"'),
        ("wf-2", "name", '"n"'),
    ]
    assert state[1]["value"] == '"né"'.encode().hex()
    assert state[1]["value_length"] == 5
    (waiting,) = await system.rows("SELECT * FROM sys_inbox")
    assert (waiting["service_key"], waiting["id"], waiting["sequence_number"]) == ("locked", system.ids["waiting"], 0)
    (lock,) = await system.rows("SELECT * FROM sys_keyed_service_status")
    assert (lock["service_name"], lock["service_key"], lock["invocation_id"]) == ("ApiCounter", "locked", system.ids["holder"])
    (named,) = await system.rows("SELECT lock_name, acquired_by, acquired_at FROM sys_locks")
    assert (named["lock_name"], named["acquired_by"]) == ("ApiCounter/locked", system.ids["holder"])
    (started,) = await system.rows(f"SELECT running_at FROM sys_invocation WHERE id = '{system.ids['holder']}'")
    assert named["acquired_at"] == started["running_at"]
    promises = await system.rows("SELECT service_key, key, completed FROM sys_promise ORDER BY service_key")
    assert promises == [{"service_key": key, "key": "approval", "completed": False} for key in ("wf-1", "wf-2")]
    assert (await system.call("ApiFlow/wf-1/approve", "yes")).status == 200
    (approved,) = await system.rows("SELECT * FROM sys_promise WHERE completed")
    assert (approved["service_key"], approved["completion_success_value_utf8"]) == ("wf-1", '"yes"')
    assert (await system.call("ApiCounter/cart-2/clear")).status == 200
    assert await system.rows("SELECT key FROM state WHERE service_key = 'cart-2'") == []
    assert {row["service_key"] for row in await system.rows("SELECT service_key FROM state")} == {"cart-1", "wf-1", "wf-2"}


async def _registry(system: System) -> None:
    services = await system.rows("SELECT name, ty, revision, public FROM sys_service ORDER BY name")
    assert [(row["name"], row["ty"]) for row in services] == [
        ("ApiCounter", "virtual_object"),
        ("ApiFlow", "workflow"),
        ("ApiGreeter", "service"),
    ]
    (deployment,) = await system.rows("SELECT * FROM sys_deployment")
    assert deployment["services"] == ["ApiCounter", "ApiFlow", "ApiGreeter"]
    listed = "SELECT id FROM sys_invocation inv WHERE status != 'completed' AND "
    zombie = "(inv.pinned_deployment_id IS NOT NULL AND inv.pinned_deployment_id NOT IN (select id from sys_deployment))"
    assert await system.rows(listed + zombie) == []
    of_objects = "inv.target_service_name IN (select name from sys_service where ty = 'virtual_object')"
    assert {row["id"] for row in await system.rows(listed + of_objects)} == {system.ids["holder"], system.ids["waiting"]}


async def _captured_statements(system: System) -> None:
    """Every statement of the official CLI, as it sends them, on every prefix of the API in turn."""
    for number, (statement, accept) in enumerate(STATEMENTS):
        answer = await system.ask(statement, accept, ("", "/v2", "/v3", "/v4")[number % 4])
        expected = "application/json" if accept == "application/json" else "application/vnd.apache.arrow.stream"
        assert (answer.status, answer.headers["content-type"]) == (200, expected), (statement, answer)


class Recorder:
    """Stands before the coordinator's `scan` and the store's pages, and notes what is asked of them."""

    def __init__(self, system: System, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scans: list[Scan] = []
        self.pages: list[str] = []
        coordinator, pages = system.runtime.coordinator, system.runtime.node.store.pages
        scan, get = coordinator.scan, pages.get

        async def recorded_scan(wanted: Scan) -> Scanned:
            self.scans.append(wanted)
            return await scan(wanted)

        async def recorded_get(page_ids: Sequence[str]) -> object:
            self.pages += [page_id for page_id in page_ids if page_id[0] != "X"]  # those the owner reads for itself
            return await get(page_ids)

        monkeypatch.setattr(coordinator, "scan", recorded_scan)
        monkeypatch.setattr(pages, "get", recorded_get)

    def kinds(self) -> set[str]:
        """The first letters of the pages read since the last time."""
        found = {page_id.partition("/")[0] for page_id in self.pages}
        self.pages.clear()
        return found


async def test_a_statement_reads_no_more_than_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store.sqlite"
    async with serving(store) as system:
        await populate(system)
        ids = system.ids
    async with serving(store) as system:  # started again: next to nothing is in memory
        recorder = Recorder(system, monkeypatch)
        rows = await system.rows(
            "SELECT id, target, created_at FROM sys_invocation WHERE target_service_name = 'ApiCounter' ORDER BY created_at"
        )
        assert len(rows) == 5
        assert recorder.kinds() <= {"A", "N"}  # the packed indexes alone
        assert len(await system.rows("SELECT id FROM sys_invocation WHERE status = 'pending'")) == 1
        assert recorder.kinds() <= {"A", "N"}
        (row,) = await system.rows(f"SELECT pinned_deployment_id FROM sys_invocation WHERE id = '{ids['flow']}'")
        assert row["pinned_deployment_id"].startswith("dp_")
        assert set(recorder.pages) == {f"I/{ids['flow']}"}  # its own page alone
        recorder.pages.clear()
        await system.rows("SELECT last_failure FROM sys_invocation WHERE target_service_name = 'ApiFlow' AND status != 'completed'")
        assert {page_id for page_id in recorder.pages if page_id[0] == "I"} == {f"I/{ids[name]}" for name in ("paused",)}
        recorder.pages.clear()
        assert len(await system.rows("SELECT key FROM state WHERE service_name = 'ApiCounter' AND service_key = 'cart-1'")) == 2
        assert set(recorder.pages) == {"K/ApiCounter/cart-1"}
        held = sum(len(shard.pages) for shard in system.runtime.node.shards.values())
        await system.rows("SELECT * FROM sys_invocation")
        await system.rows("SELECT * FROM sys_journal")
        assert sum(len(shard.pages) for shard in system.runtime.node.shards.values()) == held  # a scan drives nothing out


async def test_a_statement_that_takes_too_long_is_given_up_and_holds_nobody_up() -> None:
    async with serving(query_timeout_s=1.0) as system:
        endless = asyncio.create_task(system.ask("SELECT count(*) FROM generate_series(1, 1000000000000)"))
        assert (await system.call("ApiGreeter/greet", "you")).body == b'"hello you"'  # served meanwhile
        late = await endless
        assert late.status == 500
        assert "took longer than 1 s" in late.json()["message"]


async def test_rows_that_do_not_come_in_time_are_not_blamed_on_the_statement_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(scan: Scan) -> Scanned:
        raise TimeoutError  # as when its time is over while a shard has not answered

    async with serving() as system:
        monkeypatch.setattr(system.runtime.coordinator, "scan", late)
        answer = await system.ask("SELECT id FROM sys_invocation")
        assert answer.status == 500
        assert "not all shards had answered: another process has died or cannot be reached" in answer.json()["message"]


async def test_a_bad_statement_costs_only_itself() -> None:
    async with serving() as system:
        assert (await system.ask("SELECT 1 AS one")).json() == {"rows": [{"one": 1}]}
        greedy = await system.ask("SELECT repeat('x', 2000000000)")
        assert greedy.status == 500
        assert "more memory" in greedy.json()["message"]
        assert (await system.call("ApiGreeter/greet", "you")).body == b'"hello you"'
        wide = await system.ask("SELECT value FROM generate_series(1, 1000000000) ORDER BY value DESC")
        assert wide.status == 500
        assert "Resources exhausted" in wide.json()["message"]
        (row,) = await system.rows("SELECT target FROM sys_invocation")
        assert row == {"target": "ApiGreeter/greet"}
        writes = ("DROP TABLE state", "INSERT INTO sys_rules (pattern) VALUES ('x')", "SET a = 1", "COPY state TO '/tmp/x.csv'")
        for refused in (*writes, "SELECT 1; SELECT 2"):
            assert (await system.ask(refused)).status in (400, 500)


async def test_a_process_that_dies_costs_one_statement_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    others = set(_engine_processes())  # of servers that other tests have left, until they are gone
    async with serving() as system:
        assert await system.rows("SELECT 1 AS one") == [{"one": 1}]
        (idle,) = set(_engine_processes()) - others
        os.kill(idle, signal.SIGKILL)
        assert await system.rows("SELECT 1 AS one") == [{"one": 1}]  # nobody had asked it anything: another one answers
        scan = system.runtime.coordinator.scan

        async def dying(wanted: Scan) -> Scanned:
            (busy,) = set(_engine_processes()) - others
            os.kill(busy, signal.SIGKILL)
            return await scan(wanted)

        with monkeypatch.context() as patched:
            patched.setattr(system.runtime.coordinator, "scan", dying)
            answer = await system.ask("SELECT count(*) FROM sys_invocation")
        assert (answer.status, "was killed" in answer.json()["message"]) == (500, True), answer
        assert await system.rows("SELECT count(*) AS n FROM sys_invocation") == [{"n": 0}]


async def test_what_the_server_holds_is_not_what_its_engine_has_used() -> None:
    """A process inherits the peak that getrusage tells of from the one that started it, and would never be used twice."""
    others = set(_engine_processes())
    held = bytearray(worker.KEPT_BYTES + 64 * 1024 * 1024)
    held[::4096] = b"x" * len(held[::4096])  # a byte of each page, so that the system has given it
    async with serving() as system:
        assert await system.rows("SELECT 1 AS one") == [{"one": 1}]
        first = set(_engine_processes()) - others
        assert await system.rows("SELECT 1 AS one") == [{"one": 1}]
        assert set(_engine_processes()) - others == first


def _engine_processes() -> list[int]:
    """Children of this process that run the engine."""
    children = [int(pid) for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()]
    return [pid for pid in children if b"introspection.worker" in _command(pid)]


def _command(pid: int) -> bytes:
    """Of one that is gone: empty."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


async def test_too_many_rows_are_refused_and_say_how_to_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as system:
        traced = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "content-type": "application/json"}
        await Http(system.runtime.ingress_url).request("POST", "/ApiGreeter/greet", traced, b'"you"')
        assert await system.rows("SELECT trace_id FROM sys_invocation") == [{"trace_id": "0af7651916cd43dd8448eb211c80319c"}]
        for number in range(2):
            await system.call("ApiGreeter/greet", str(number))
        found = await system.runtime.coordinator.scan(Scan("invocations", ["id"], limit=2))
        assert (len(found.rows), found.more) == (2, "rows")
        assert (await system.runtime.coordinator.scan(Scan("invocations", ["id"], limit=3))).more is None
        assert len(await system.rows("SELECT id FROM sys_invocation LIMIT 2")) == 2
        monkeypatch.setattr(scans, "MAX_BYTES", 10 * scans.VALUE_BYTES)
        assert len(await system.rows("SELECT target FROM sys_invocation")) == 3
        refused = await system.ask("SELECT * FROM sys_invocation")
        assert (refused.status, "more than 32 MB of sys_invocation" in refused.json()["message"]) == (500, True), refused
    assert worker.MAX_ROWS >= 50_000  # what the official CLI counts up to


async def test_what_is_judged_at_the_source_is_what_the_engine_would_find() -> None:
    """Every statement over the rows as they come, and over a copy of the whole table."""
    conditions = [
        "true",
        "status != 'completed'",
        "status = 'backing-off' OR status = 'pending'",
        "status IN ('running', 'ready', 'suspended')",
        "completion_result = 'failure'",
        "target_service_name = 'ApiCounter' AND target_service_key IN ('cart-1', 'locked')",
        "target LIKE 'ApiFlow/%' AND status = 'paused'",
        "target = 'ApiGreeter/flaky' OR target = 'ApiFlow/wf-1/run'",
        "target_service_ty = 'workflow' AND idempotency_key IS NULL",
        "pinned_deployment_id = '{dp}'",
        "(pinned_deployment_id IN ('{dp}') OR last_attempt_deployment_id IN ('{dp}')) AND status != 'completed'",
        "invoked_by_id = '{id}' OR last_attempt_deployment_id = '{dp}' OR target_handler_name = 'refuse'",
        "created_at >= '{at}' AND target_handler_name != 'add'",
        "created_at < '{at}' OR status = 'paused'",
        "id IN ('{id}', 'no id') AND created_at <= '{at}'",
    ]
    forms = [
        "SELECT id, status, target FROM sys_invocation WHERE {} ORDER BY id",
        "SELECT * FROM sys_invocation WHERE {} ORDER BY created_at DESC, id LIMIT 3",
        "SELECT * FROM sys_invocation WHERE {} ORDER BY created_at ASC, id LIMIT 4 OFFSET 1",
        "SELECT count(*) AS n FROM (SELECT * FROM sys_invocation WHERE {} LIMIT 2)",
        "SELECT modified_at, pinned_deployment_id, last_attempt_server, next_retry_at FROM sys_invocation WHERE {} ORDER BY id",
    ]
    async with serving() as system:
        await populate(system)
        (middle,) = await system.rows("SELECT id, created_at FROM sys_invocation ORDER BY created_at, id LIMIT 1 OFFSET 5")
        (deployment,) = await system.rows("SELECT id FROM sys_deployment")
        whole = await system.ask("SELECT * FROM sys_invocation", accept=None)
        copy = SessionContext()
        copy.from_arrow(pa.ipc.open_stream(whole.body).read_all(), name="sys_invocation")
        for condition in conditions:
            filled = condition.format(dp=deployment["id"], id=middle["id"], at=middle["created_at"])
            for form in forms:
                statement = form.format(filled)
                expected = copy.sql(statement)
                shown = json.loads(encodings.encode_json(expected.schema(), (part for part in expected.collect())))
                assert await system.rows(statement) == shown["rows"], statement


async def test_rows_of_an_older_store_tell_the_same() -> None:
    statements = [
        "SELECT * FROM sys_invocation ORDER BY id",
        "SELECT id FROM sys_invocation WHERE pinned_deployment_id IS NOT NULL ORDER BY created_at, id LIMIT 5",
        "SELECT id FROM sys_invocation WHERE status IN ('backing-off', 'completed') ORDER BY created_at DESC, id LIMIT 4",
        "SELECT status, count(*) AS n, max(modified_at) AS last FROM sys_invocation GROUP BY status ORDER BY status",
        "SELECT id, next_retry_at, last_attempt_deployment_id FROM sys_invocation WHERE status = 'backing-off'",
    ]
    async with serving() as system:
        await populate(system)
        before = [await system.rows(statement) for statement in statements]
        assert all(before)
        for shard in system.runtime.node.shards.values():
            for page_id, page in shard.pages.items():
                _make_older(page_id, page.document or {})
        assert [await system.rows(statement) for statement in statements] == before


def _make_older(page_id: str, document: dict[str, Any]) -> None:
    """Rows as they were before they had deployments, changes and retries; pages without bounds."""
    if page_id[:2] == "N/":
        for row in document.values():
            row["s"] = row["s"][0]
    elif page_id[:2] == "A/":
        for row in document.values():
            del row["d"]
    elif page_id.endswith("/index"):
        document.pop("f", None)
        document["p"] = dict.fromkeys(document.get("p", {}), 1)
