"""Captured `POST /query` exchanges (http-api, Appendix A) against our engine.

Those about the tables themselves, the registry and errors are compared; the statements of the official CLI, whose answers depend on what
the reference was doing, are run in `tests.surfaces.test_query`.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from holdfast_runtime.coordinator.front import RegisterDeployment
from holdfast_runtime.surfaces.admin import admin_app
from holdfast_runtime.surfaces.introspection.engine import Engine
from holdfast_runtime.surfaces.introspection.routes import query_routes
from holdfast_runtime.surfaces.server import Listener, serve
from tests.surfaces.http import Http
from tests.surfaces.query_services import dechunked

FOLDER = Path(__file__).parent / "query_examples"
EXAMPLES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
COMPARED = [name for name in EXAMPLES if name.startswith("admin-")]
# What the official CLI asks: (statement, accept).
STATEMENTS = [
    (json.loads(example["request"]["body"])["query"], example["request"]["headers"]["accept"])
    for name, example in EXAMPLES.items()
    if name.startswith("cli-")
]
# On purpose: what is no invocation id is the id of no invocation.
EMPTY_INSTEAD = "admin-query-json-empty"
# The order of columns is the reference's, that of tables has none.
UNORDERED = "admin-query-schema-columns"


async def test_query_examples() -> None:
    from tests.golden.test_http_examples import AT, Endpoints, front_with

    versions = [AT[21020], AT[21011], AT[21012]]
    front = await front_with(Endpoints("queries"), RegisterDeployment(uri="http://127.0.0.1:21010/"), *versions)
    engine = Engine(front)
    server = await serve(admin_app(front, None, [query_routes(engine)]), Listener(grace_s=1))
    try:
        for name in COMPARED:
            example = EXAMPLES[name]
            request = example["request"]
            answer = await Http(server.url).request("POST", request["path"], request["headers"], request["body"].encode())
            if name == EMPTY_INSTEAD:
                assert (answer.status, json.loads(dechunked(answer))) == (200, {"rows": []})
                continue
            expected = example["response"]
            assert answer.status == expected["status"], (name, answer)
            for header in ("content-type", "vary", "transfer-encoding"):
                assert answer.headers.get(header) == expected["headers"].get(header), (name, header)
            assert _content(name, dechunked(answer)) == _content(name, _octets(expected["body"])), name
    finally:
        await server.close()
        await engine.close()


def test_the_cli_statements_are_all_there() -> None:
    assert len(COMPARED) == 19
    assert len(STATEMENTS) == 42


def _octets(body: Any) -> bytes:
    return base64.b64decode(body["base64"]) if isinstance(body, dict) else body.encode()


def _content(name: str, body: bytes) -> Any:
    if body[:4] == b"\xff\xff\xff\xff":
        table = pa.ipc.open_stream(body).read_all()
        return table.schema, table.to_pylist()
    if body[:1] != b"{":
        return body.decode().partition(" at line")[0]  # positions are those of another parser
    document = json.loads(body)
    if name == UNORDERED:
        return sorted(json.dumps(row, sort_keys=True) for row in document["rows"])
    return document
