"""What a statement makes the server read, and how values look in JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from holdfast.protocol import messages
from holdfast.protocol.messages import MessageType
from holdfast_runtime.coordinator.front import NEWEST, OLDEST
from holdfast_runtime.surfaces.introspection import arrow, encodings, journal_json, worker
from holdfast_runtime.surfaces.introspection.catalogue import TABLES
from holdfast_runtime.surfaces.introspection.pushdown import TableRead, reads_of
from holdfast_runtime.surfaces.introspection.tables import DOMAINS

ID = "inv_1jFEjVDI9dt168Goudj86SxfhOFIwjlAFz"
AT_MS = 1_795_291_485_000  # 2026-11-21T20:04:45Z
LIVE = frozenset(DOMAINS["status"]) - {"completed"}


def reads(statement: str) -> list[TableRead]:
    return reads_of(worker._plan(worker._context(2**28), statement).optimized_logical_plan())


@pytest.mark.parametrize(
    ("condition", "where"),
    [
        (f"id = '{ID}'", {"id": {ID}}),
        (f"id IN ('{ID}', 'no id')", {"id": {ID}}),
        ("status != 'completed'", {"status": LIVE}),
        ("status NOT IN ('completed', 'paused')", {"status": LIVE - {"paused"}}),
        ("status = 'running' OR status = 'ready'", {"status": {"running", "ready"}}),
        (
            "'Svc' = target_service_name AND target_service_key IN ('a', 'b')",
            {"target_service_name": {"Svc"}, "target_service_key": {"a", "b"}},
        ),
        ("status IN ('paused', 'running') AND status != 'running'", {"status": {"paused"}}),
        ("target_service_name = 'a' OR target_handler_name = 'b'", {}),
        ("(target_service_name = 'a' AND status = 'paused') OR target_service_name = 'b'", {"target_service_name": {"a", "b"}}),
        ("target LIKE 'Svc/%'", {"target_service_name": {"Svc"}}),
        ("target LIKE 'S%/%'", {}),
        ("target LIKE 'S_c/%'", {}),
        ("target NOT LIKE 'Svc/%'", {}),
        ("target = 'Svc/a'", {"target": {"Svc/a"}, "target_service_name": {"Svc"}}),
        (
            "((target = 'A/b' AND target_service_ty = 'service') OR (target LIKE 'A/b/%' AND target_service_ty != 'service'))",
            {"target_service_name": {"A"}},
        ),
        ("NOT (status = 'paused')", {"status": frozenset(DOMAINS["status"]) - {"paused"}}),
        ("retry_count > 1", {}),
        ("lower(target_service_name) = 'a'", {}),
        ("target_service_name != 'a'", {}),  # of many values: nothing to gain
    ],
)
def test_conditions_a_source_can_judge_are_pushed_down(condition: str, where: Mapping[str, set[str]]) -> None:
    (read,) = reads(f"SELECT id FROM sys_invocation WHERE {condition}")
    assert dict(read.where) == {name: frozenset(values) for name, values in where.items()}
    assert read.limit is None


@pytest.mark.parametrize(
    ("condition", "either"),
    [
        (
            "(pinned_deployment_id IN ('d') OR last_attempt_deployment_id IN ('d', 'e')) AND status != 'completed'",
            [{"pinned_deployment_id": {"d"}, "last_attempt_deployment_id": {"d", "e"}}],
        ),
        (
            "(target_service_name = 'a' OR target_handler_name = 'b' OR target_service_name = 'c') AND (status = 'paused' OR id = 'no')",
            [{"target_service_name": {"a", "c"}, "target_handler_name": {"b"}}, {"status": {"paused"}, "id": set()}],
        ),
        ("target_service_name = 'a' OR retry_count > 1", []),
        ("target_service_name = 'a' OR target_handler_name != 'b'", []),
        ("target_service_name = 'a' OR created_at > now()", []),
        ("target_service_name = 'a' OR (target_handler_name = 'b' AND status = 'paused')", []),
    ],
)
def test_conditions_of_which_one_must_hold(condition: str, either: Sequence[Mapping[str, set[str]]]) -> None:
    (read,) = reads(f"SELECT id FROM sys_invocation WHERE {condition} ORDER BY created_at DESC LIMIT 5")
    assert list(read.either) == [{name: frozenset(values) for name, values in group.items()} for group in either]
    assert read.limit == (5 if either else None)


def test_the_durable_record_has_its_own_words_for_statuses() -> None:
    (read,) = reads("SELECT id FROM sys_invocation_status WHERE status == 'inboxed'")
    assert read.where == {"raw_status": frozenset({"inboxed"})}
    (read,) = reads("SELECT id FROM sys_invocation_state")
    assert read.where == {"raw_status": frozenset({"invoked"})}


@pytest.mark.parametrize(
    ("statement", "limit", "order"),
    [
        ("SELECT COUNT(1) FROM (SELECT * FROM sys_invocation inv LIMIT 50000) WHERE status != 'completed'", 50_000, None),
        (f"SELECT id FROM sys_invocation WHERE id = '{ID}' AND status != 'completed' LIMIT 500", 500, None),
        ("SELECT id FROM sys_invocation WHERE status = 'paused' LIMIT 5 OFFSET 7", 12, None),
        ("SELECT id FROM sys_invocation WHERE retry_count > 1 LIMIT 5", None, None),
        ("SELECT id FROM sys_invocation WHERE status = 'paused' AND target LIKE 'Svc/%' LIMIT 5", None, None),
        ("SELECT id FROM sys_invocation WHERE status = 'paused' OR retry_count = 1 LIMIT 5", None, None),
        ("SELECT id FROM sys_invocation WHERE target_service_name != 'a' LIMIT 5", None, None),
        ("SELECT id FROM (SELECT id, status FROM sys_invocation LIMIT 9) WHERE status = 'paused' LIMIT 5", 9, None),
        ("SELECT DISTINCT target FROM sys_invocation LIMIT 5", None, None),
        ("SELECT target, count(*) FROM sys_invocation GROUP BY target LIMIT 5", None, None),
        ("SELECT id FROM sys_invocation inv WHERE status != 'completed' ORDER BY inv.created_at DESC, inv.id LIMIT 100", 100, NEWEST),
        ("SELECT id FROM sys_invocation inv ORDER BY inv.created_at ASC, inv.id LIMIT 5", 5, OLDEST),
        ("SELECT id, created_at AS born FROM sys_invocation ORDER BY created_at LIMIT 5 OFFSET 1", 6, OLDEST),
        ("SELECT target FROM sys_invocation_status WHERE created_at > now() - interval '1' hour ORDER BY created_at LIMIT 5", 5, OLDEST),
        ("SELECT id FROM sys_invocation ORDER BY created_at DESC, id DESC LIMIT 5", None, None),
        ("SELECT id FROM sys_invocation ORDER BY created_at DESC, target LIMIT 5", None, None),
        ("SELECT id FROM sys_invocation ORDER BY created_at DESC", None, None),
        ("SELECT id FROM sys_invocation ORDER BY created_at DESC LIMIT 10001", None, None),
        ("SELECT id FROM sys_invocation WHERE retry_count > 1 ORDER BY created_at DESC LIMIT 5", None, None),
        ("SELECT id FROM (SELECT id, completed_at AS created_at FROM sys_invocation) ORDER BY created_at LIMIT 5", None, None),
        ("SELECT id FROM sys_inbox ORDER BY created_at LIMIT 5", None, None),
        ("SELECT i.id FROM sys_invocation i JOIN state s ON s.key = i.target_service_key ORDER BY i.created_at LIMIT 5", None, None),
    ],
)
def test_how_many_rows_are_enough(statement: str, limit: int | None, order: str | None) -> None:
    read = next(read for read in reads(statement) if read.table.name != "state")
    assert (read.limit, read.order) == (limit, order)


@pytest.mark.parametrize(
    ("condition", "since", "until"),
    [
        ("created_at > '2026-11-21T20:04:45Z'", AT_MS + 1, None),
        ("created_at >= '2026-11-21T20:04:45Z' AND '2026-11-21T20:04:45.001Z' >= created_at", AT_MS, AT_MS + 1),
        ("created_at BETWEEN '2026-11-21T20:04:45Z' AND '2026-11-21T20:04:45.500Z'", AT_MS, AT_MS + 500),
        ("created_at < '2026-11-21T20:04:45Z' AND created_at < '2027-11-21T20:04:45Z'", None, AT_MS - 1),
        ("created_at = '2026-11-21T20:04:45Z'", AT_MS, AT_MS),
        ("created_at < '2026-11-21T20:04:45Z' OR status = 'paused'", None, None),
        ("created_at != '2026-11-21T20:04:45Z'", None, None),
        ("completed_at < '2026-11-21T20:04:45Z'", None, None),
    ],
)
def test_bounds_on_the_time_of_creation_are_pushed_down(condition: str, since: int | None, until: int | None) -> None:
    (read,) = reads(f"SELECT id FROM sys_invocation WHERE {condition}")
    assert (read.since_ms, read.until_ms, read.where) == (since, until, {})


def test_two_reads_of_a_table_stay_apart_unless_one_needs_it_all() -> None:
    both = reads("SELECT id FROM sys_invocation WHERE status = 'paused' UNION ALL SELECT target FROM sys_invocation WHERE status = 'ready'")
    assert [set(read.where["status"]) for read in both] == [{"paused"}, {"ready"}]
    (all_,) = reads("SELECT a.id FROM sys_invocation a JOIN sys_invocation b ON a.id = b.invoked_by_id WHERE a.status = 'paused'")
    assert (all_.where, all_.columns) == ({}, frozenset({"id", "status", "invoked_by_id"}))


def test_every_column_reads_what_its_source_has() -> None:
    for table in TABLES.values():
        names = arrow.source_columns(table, frozenset(table.columns))
        if table.source is not None:
            row: list[Any] = [None] * len(names)
            empty = arrow.batch(table, frozenset(), names, [row, row])
            assert empty.num_rows == 2
            assert all(column.null_count == 2 for column, field in zip(empty.columns, empty.schema, strict=True) if field.nullable)


@pytest.mark.parametrize(
    ("value", "type_", "shown"),
    [
        ("né\n", pa.large_string(), "né\n"),
        (2**64 - 1, pa.uint64(), 2**64 - 1),
        (True, pa.bool_(), True),
        (b"\x00\xff", pa.large_binary(), "00ff"),
        (1_795_291_485_399, pa.timestamp("ms", tz="+00:00"), "2026-11-21T20:04:45.399Z"),
        (1_795_291_485_000, pa.timestamp("ms", tz="+00:00"), "2026-11-21T20:04:45Z"),
        (1_795_291_485_399_123_456, pa.timestamp("ns"), "2026-11-21T20:04:45.399123456"),
        (86_400_000, pa.duration("ms"), "PT86400S"),
        (5, pa.duration("ms"), "PT0.005S"),
        (0, pa.duration("ms"), "P0D"),
        ([1, 2], pa.list_(pa.uint32()), [1, 2]),
        (["a"], pa.list_(pa.large_string()), ["a"]),
        (pa.MonthDayNano([0, 1, 0]), pa.month_day_nano_interval(), "1 days"),
        (1.5, pa.float64(), 1.5),
        (float("nan"), pa.float64(), None),
    ],
)
def test_values_in_json(value: Any, type_: pa.DataType, shown: Any) -> None:
    table = pa.table({"a": pa.array([value, None], type=type_)})
    rows = json.loads(encodings.encode_json(table.schema, table.to_batches()))["rows"]
    assert rows == [{"a": shown}, {}]


def test_an_arrow_stream_without_rows_has_its_schema() -> None:
    schema = arrow.schema(TABLES["sys_inbox"])
    found = pa.ipc.open_stream(encodings.encode_arrow(schema, [])).read_all()
    assert (found.schema, found.num_rows) == (schema, 0)


def test_too_large_a_result_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "MAX_RESULT_BYTES", 1_000)
    table = pa.table({"a": ["x" * 100] * 20})
    with pytest.raises(encodings.ResultTooLarge):
        encodings.encode_json(table.schema, table.to_batches())
    with pytest.raises(encodings.ResultTooLarge):
        encodings.encode_arrow(table.schema, table.to_batches())


def test_every_type_of_entry_has_a_json_form() -> None:
    for type_ in filter(messages.is_command, MessageType):
        body = messages.CLASSES[type_]()
        for oneof in body.DESCRIPTOR.oneofs:
            first = oneof.fields[0]
            if first.message_type is not None:
                getattr(body, first.name).SetInParent()
            else:
                setattr(body, first.name, "x" if first.type == first.TYPE_STRING else 1)
        if type_ == MessageType.SET_STATE_COMMAND:
            body.value.SetInParent()  # type: ignore[attr-defined]
        shown = json.loads(journal_json.entry_json(type_, body.SerializeToString(), None))
        assert list(shown["Command"]) == [journal_json.name_of(type_)]
    slept = messages.notification(MessageType.SLEEP_COMPLETION, 2, void=True)[8:]
    text = '{"Notification":{"Completion":{"Sleep":{"completion_id":2}}}}'
    assert journal_json.entry_json(MessageType.SLEEP_COMPLETION, slept, None) == text


@pytest.mark.parametrize(
    "statement",
    [
        "WITH p AS (SELECT * FROM sys_invocation WHERE status = 'paused') SELECT p.*, d.id FROM sys_deployment d RIGHT JOIN p ON true",
        "SELECT id, row_number() OVER (PARTITION BY target ORDER BY created_at) FROM sys_invocation",
        "SELECT id FROM sys_invocation EXCEPT SELECT id FROM sys_inbox",
        "SELECT COUNT(*) FILTER (WHERE status ILIKE 'p%'), date_bin(interval '1 hour', created_at) FROM sys_invocation GROUP BY 2",
        "SELECT (SELECT count(*) FROM state) AS n, id FROM sys_invocation WHERE status = 'paused' OR id IN (SELECT id FROM sys_inbox)",
        "SELECT * FROM (VALUES (1), (2)) AS v(a), sys_service",
        "EXPLAIN SELECT id FROM sys_invocation WHERE exists (SELECT 1 FROM state WHERE service_key = target_service_key)",
        "SELECT to_unixtime(created_at), CAST(NULL AS STRING) FROM sys_invocation i JOIN state USING (scope)",
        "WITH RECURSIVE tree AS (SELECT id FROM sys_invocation WHERE invoked_by = 'ingress' UNION ALL "
        "SELECT i.id FROM sys_invocation i JOIN tree ON i.invoked_by_id = tree.id) SELECT count(*) FROM tree",
    ],
)
def test_every_table_of_a_statement_is_read(statement: str) -> None:
    wanted = {name for name in TABLES if re.search(rf"(FROM|JOIN|,) {name}\b", statement)}
    assert {read.table.name for read in reads(statement)} == wanted
