"""The admin API: registering, looking at services and deployments, operating on invocations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from holdfast.protocol.ids import InvocationId
from holdfast_runtime.coordinator.front import CoordinatorUnavailable, Done, InvocationFilter
from holdfast_runtime.ports.store import Registry, StoreUnavailable
from tests.surfaces.fakes import FakeFront
from tests.surfaces.http import Answer, Http

SOME_ID = "inv_1jFEjVDI9dt168Goudj86SxfhOFIwjlAFz"
UNKNOWN_DEPLOYMENT = "dp_10q3ABR8ZpLsF9H5oGUUHXb"
VERSIONED = {"uri": "http://127.0.0.1:21012"}


@pytest.mark.parametrize("prefix", ["", "/v2", "/v3", "/v4"])
async def test_every_route_exists_below_every_version(admin: Http, prefix: str) -> None:
    version = (await admin.get(f"{prefix}/version")).json()
    assert version["version"] == "1.7.12"
    assert (version["min_admin_api_version"], version["max_admin_api_version"]) == (2, 4)
    assert version["features"]["vqueues"] is False
    assert version["holdfast_version"]
    assert (await admin.get(f"{prefix}/health")).status == 200
    services = (await admin.get(f"{prefix}/services")).json()["services"]
    assert {item["name"] for item in services} == {"ApiGreeter", "ApiCounter", "ApiFlow", "ApiPrivate", "ApiTuned"}


async def test_unknown_versions_paths_and_methods(admin: Http) -> None:
    old = await admin.get("/v1/services")
    assert (old.status, old.body) == (
        400,
        b"Unsupported Admin API version V1. This server supports versions between V2 and V4.",
    )
    for path in ("/v5/services", "/services/", "/nope", "/"):
        answer = await admin.get(path)
        assert (answer.status, answer.body) == (404, b""), path
    wrong = await admin.request("POST", f"/invocations/{SOME_ID}/cancel")
    assert (wrong.status, wrong.body, wrong.headers["allow"]) == (405, b"", "PATCH")
    assert (await admin.get(f"/invocations/{SOME_ID}")).headers["allow"] == "DELETE"


@pytest.mark.parametrize(("prefix", "again", "forced"), [("", 200, 200), ("/v2", 409, 201), ("/v4", 200, 200)])
async def test_registering_again_depends_on_the_version(admin: Http, prefix: str, again: int, forced: int) -> None:
    first = await admin.post(f"{prefix}/deployments", {**VERSIONED, "additional_headers": None, "force": False})
    assert first.status == 201, first.body
    deployment_id = first.json()["id"]
    assert first.headers["location"] == f"deployments/{deployment_id}"
    second = await admin.post(f"{prefix}/deployments", {**VERSIONED, "force": False})
    assert second.status == again
    if again == 409:
        assert second.json()["message"] == f"Conflict: deployment {deployment_id} already exists"
    overwritten = await admin.post(f"{prefix}/deployments", {**VERSIONED, "force": True})
    assert overwritten.status == forced
    assert overwritten.json()["services"][0]["revision"] == 2
    by_default = await admin.post(f"{prefix}/deployments", VERSIONED)
    assert by_default.json()["services"][0]["revision"] == (3 if prefix == "/v2" else 2)


@pytest.mark.parametrize(
    ("body", "content_type", "status", "message"),
    [
        (b"{nope", "application/json", 400, "Failed to parse the request body as JSON: "),
        (b"[]", "application/json", 422, "Failed to deserialize the JSON body into the target type: "),
        (b"{}", "application/json", 422, "Failed to deserialize the JSON body into the target type: data did not match"),
        (b'{"uri":"http://h","force":1}', "application/json", 422, "Failed to deserialize the JSON body"),
        (b'{"uri":"http://h","metadata":{"a":1}}', "application/json", 422, "Failed to deserialize the JSON body"),
        (b"{}", "text/plain", 415, "Expected request with `Content-Type: application/json`"),
    ],
)
async def test_a_registration_that_does_not_parse_is_plain_text(
    admin: Http, body: bytes, content_type: str, status: int, message: str
) -> None:
    answer = await admin.request("POST", "/deployments", {"content-type": content_type}, body)
    assert answer.status == status
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.body.decode().startswith(message)


async def test_headers_that_would_split_a_request_are_refused(admin: Http) -> None:
    answer = await admin.post("/deployments", {**VERSIONED, "additional_headers": {"a": "b\r\nx: y"}})
    assert answer.status == 400
    assert answer.json()["restate_code"] is None


async def test_authentication_that_we_cannot_do_is_refused_and_not_left_out(admin: Http) -> None:
    auth = {"GoogleIdToken": {"impersonate_service_account": "a", "audience": "b"}}
    answer = await admin.post("/deployments", {**VERSIONED, "auth": auth})
    assert (answer.status, answer.json()["restate_code"]) == (400, None)
    assert answer.json()["message"].startswith("The request field 'auth' is invalid. Reason: this server has no Google account")
    assert (await admin.post("/deployments", {**VERSIONED, "auth": None})).status == 201


async def test_deleting_a_deployment_needs_force(admin: Http, front: FakeFront) -> None:
    (deployment_id,) = front.registry.deployments
    for query in ("", "?force=false"):
        answer = await admin.request("DELETE", f"/deployments/{deployment_id}{query}")
        assert (answer.status, answer.body) == (501, b"")
    assert (await admin.request("DELETE", f"/deployments/{deployment_id}?force=true")).status == 202
    gone = await admin.request("DELETE", f"/deployments/{deployment_id}?force=true")
    assert gone.status == 404
    assert (await admin.get("/services")).json() == {"services": []}


def patching(admin: Http, path: str, body: bytes, content_type: str = "application/json", method: str = "PATCH") -> Awaitable[Answer]:
    return admin.request(method, path, {"content-type": content_type}, body)


async def test_a_service_is_patched_as_the_command_line_sends_it(admin: Http, front: FakeFront) -> None:
    body = {
        "public": False,
        "idempotency_retention": None,
        "workflow_completion_retention": None,
        "journal_retention": "PT12H",
        "inactivity_timeout": "30s",
        "abort_timeout": "1m 30s",
        "unknown": 1,
    }
    answer = await patching(admin, "/v4/services/ApiCounter", json.dumps(body).encode())
    assert answer.status == 200
    shown = answer.json()
    assert shown == (await admin.get("/services/ApiCounter")).json()
    assert (shown["public"], shown["journal_retention"], shown["inactivity_timeout"], shown["abort_timeout"]) == (
        False,
        "12h",
        "30s",
        "1m 30s",
    )
    assert shown["idempotency_retention"] == "1d"
    assert not any(handler["public"] for handler in shown["handlers"])
    handler = front.registry.handler("ApiCounter", "add")
    assert handler is not None
    assert not handler.public


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (
            b'{"idempotency_retention":"3"}',
            422,
            "Failed to deserialize the JSON body into the target type: idempotency_retention: failed to",
        ),
        (b'{"abort_timeout":60}', 422, "Failed to deserialize the JSON body into the target type: abort_timeout: expected a duration"),
        (b'{"public":"no"}', 422, "Failed to deserialize the JSON body into the target type: public: expected a boolean"),
        (b"{", 400, "Failed to parse the request body as JSON: "),
    ],
)
async def test_a_patch_of_the_wrong_shape_is_plain_text(admin: Http, body: bytes, status: int, message: str) -> None:
    answer = await patching(admin, "/services/ApiCounter", body)
    assert (answer.status, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert answer.body.decode().startswith(message)


async def test_patches_of_what_is_not_there_or_not_for_it(admin: Http) -> None:
    unknown = await patching(admin, "/services/ApiNope", b'{"public":true}')
    assert (unknown.status, unknown.json()["message"]) == (404, "not found in the schema registry: service with name 'ApiNope'")
    wrong = await patching(admin, "/services/ApiCounter", b'{"workflow_completion_retention":"3 days"}')
    assert (wrong.status, wrong.json()["message"]) == (400, "modifying retention time for service type VirtualObject is unsupported")
    assert (await patching(admin, "/services/ApiCounter", b"{}", "text/plain")).status == 415


@pytest.mark.parametrize(("prefix", "method"), [("", "PATCH"), ("/v2", "PUT"), ("/v2", "PATCH"), ("/v4", "PATCH")])
async def test_a_deployment_is_pointed_elsewhere(admin: Http, front: FakeFront, prefix: str, method: str) -> None:
    first = (await admin.post("/deployments", VERSIONED)).json()["id"]
    answer = await patching(admin, f"{prefix}/deployments/{first}", b'{"additional_headers":{"x-api-key":"rotated"}}', method=method)
    assert answer.status == 200
    assert answer.json()["additional_headers"] == {"x-api-key": "rotated"}
    assert answer.json() == (await admin.get(f"/deployments/{first}")).json()


async def test_an_update_that_cannot_be(admin: Http, front: FakeFront) -> None:
    (deployment_id,) = front.registry.deployments
    path = f"/deployments/{deployment_id}"
    unknown = await patching(admin, f"/deployments/{UNKNOWN_DEPLOYMENT}", b"{}")
    assert (unknown.status, unknown.json()["message"]) == (404, f"The requested deployment '{UNKNOWN_DEPLOYMENT}' does not exist")
    assert (await patching(admin, "/deployments/foo", b"{}")).status == 400
    assert (await patching(admin, path, b'{"overwrite":1}')).status == 422
    assert (await patching(admin, path, b'{"uri":1}')).status == 422
    split = await patching(admin, path, b'{"additional_headers":{"a":"b\\r\\nx: y"}}')
    assert (split.status, split.json()["restate_code"]) == (400, None)
    deprecated = await patching(admin, path, b"{}", method="PUT")
    assert (deprecated.status, deprecated.json()["message"]) == (405, "PUT deployment is deprecated, use PATCH instead")


async def test_a_store_that_cannot_be_reached_is_said_and_nothing_is_half_done(admin: Http, front: FakeFront) -> None:
    before = (await admin.get("/services/ApiCounter")).json()
    registry = front.deployments._registry
    failing = FailingRegistry(registry)
    front.deployments._registry = failing
    for failing.method in ("load", "store"):
        answer = await patching(admin, "/services/ApiCounter", b'{"public":false}')
        assert (answer.status, answer.json()["restate_code"]) == (503, None)
        assert answer.json()["message"] == "the store cannot be reached: throttled; it is safe to try again"
        assert (await admin.get("/services/ApiCounter")).json() == before
    front.deployments._registry = registry
    assert (await patching(admin, "/services/ApiCounter", b'{"public":false}')).json()["public"] is False


@dataclass
class FailingRegistry:
    """A registry of which one method cannot reach its store."""

    registry: Registry
    method: str = ""

    async def load(self, name: str) -> tuple[int, bytes]:
        if self.method == "load":
            raise StoreUnavailable("throttled")
        return await self.registry.load(name)

    async def store(self, name: str, document: bytes, *, expected_version: int) -> bool:
        if self.method == "store":
            raise StoreUnavailable("throttled")
        return await self.registry.store(name, document, expected_version=expected_version)


ANSWERS = {
    ("cancel", Done.APPLIED): (200, ""),
    ("cancel", Done.ACCEPTED): (202, ""),
    ("cancel", Done.NOT_FOUND): (404, "The requested invocation '{id}' does not exist"),
    ("cancel", Done.ALREADY_COMPLETED): (409, "The invocation '{id}' was already completed."),
    ("kill", Done.APPLIED): (200, ""),
    ("kill", Done.ACCEPTED): (200, ""),
    ("kill", Done.ALREADY_COMPLETED): (409, "The invocation '{id}' was already completed."),
    ("purge", Done.APPLIED): (200, ""),
    ("purge", Done.NOT_COMPLETED): (409, "The invocation '{id}' is not yet completed."),
    ("purge-journal", Done.APPLIED): (200, ""),
    ("purge-journal", Done.NOT_COMPLETED): (409, "The invocation '{id}' is not yet completed."),
    ("pause", Done.ACCEPTED): (202, ""),
    ("pause", Done.APPLIED): (200, ""),
    ("pause", Done.NOT_RUNNING): (409, "The invocation '{id}' is not running, cannot be paused."),
    ("pause", Done.ALREADY_COMPLETED): (409, "The invocation '{id}' is not running, cannot be paused."),
    ("resume", Done.APPLIED): (200, ""),
    ("resume", Done.NOT_STARTED): (425, "The invocation '{id}' is either inboxed or scheduled, cannot be resumed."),
    ("resume", Done.ALREADY_COMPLETED): (409, "The invocation '{id}' is completed, cannot be resumed."),
}


@pytest.mark.parametrize(("operation", "done"), ANSWERS)
async def test_operations_answer_what_they_found(admin: Http, front: FakeFront, operation: str, done: Done) -> None:
    front.done = done
    answer = await admin.request("PATCH", f"/v4/invocations/{SOME_ID}/{operation}")
    status, message = ANSWERS[operation, done]
    assert front.asked == [(operation, InvocationId.parse(SOME_ID))]
    assert answer.status == status
    if message:
        assert answer.json() == {"message": message.format(id=SOME_ID), "restate_code": None}
    else:
        assert answer.body == b""


@pytest.mark.parametrize(
    ("query", "operation"), [("", "cancel"), ("?mode=kill", "kill"), ("?mode=Purge", "purge"), ("?mode=Cancel", "cancel")]
)
async def test_the_old_form_always_answers_202(admin: Http, front: FakeFront, query: str, operation: str) -> None:
    front.done = Done.NOT_FOUND
    assert (await admin.request("DELETE", f"/invocations/{SOME_ID}{query}")).status == 202
    assert front.asked[-1][0] == operation


WITH_DEPLOYMENT = {
    "keep": "resume",
    "Keep": "resume",
    "latest": "resume on latest",
    "Latest": "resume on latest",
    UNKNOWN_DEPLOYMENT: f"resume on {UNKNOWN_DEPLOYMENT}",
}


@pytest.mark.parametrize("deployment", WITH_DEPLOYMENT)
async def test_a_resume_may_name_where_it_goes_on(admin: Http, front: FakeFront, deployment: str) -> None:
    answer = await admin.request("PATCH", f"/invocations/{SOME_ID}/resume?deployment={deployment}")
    assert (answer.status, answer.body) == (200, b"")
    assert front.asked == [(WITH_DEPLOYMENT[deployment], InvocationId.parse(SOME_ID))]


@pytest.mark.parametrize(
    ("done", "status", "message"),
    [
        (
            Done.PINNED,
            409,
            "The invocation '{id}' is still running or the deployment id is not pinned yet, deployment id cannot be changed.",
        ),
        (Done.NO_DEPLOYMENT, 400, "The given deployment was not found when trying to resume the invocation '{id}'."),
        (Done.NO_HANDLER, 400, "The query parameter 'deployment' is invalid. Reason: the deployment 'latest' does not serve the handler"),
        (Done.NO_VERSION, 400, "The query parameter 'deployment' is invalid. Reason: the deployment 'latest' does not speak the service"),
    ],
)
async def test_a_resume_elsewhere_is_refused_with_a_reason(admin: Http, front: FakeFront, done: Done, status: int, message: str) -> None:
    front.done = done
    answer = await admin.request("PATCH", f"/invocations/{SOME_ID}/resume?deployment=latest")
    assert answer.status == status
    assert answer.json()["message"].startswith(message.format(id=SOME_ID))


@pytest.mark.parametrize("operation", ["resume", "restart-as-new"])
async def test_a_malformed_deployment_is_refused_before_anything_is_done(admin: Http, front: FakeFront, operation: str) -> None:
    answer = await admin.request("PATCH", f"/invocations/{SOME_ID}/{operation}?deployment=foo")
    assert (answer.status, answer.json()["message"]) == (400, "The query parameter 'deployment' is invalid. Reason: bad format")
    assert front.asked == []


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", "restart from 0 on latest"),
        ("?from=7&deployment=keep", "restart from 7 on None"),
        (f"?deployment={UNKNOWN_DEPLOYMENT}", f"restart from 0 on {UNKNOWN_DEPLOYMENT}"),
    ],
)
async def test_a_restart_names_the_new_invocation(admin: Http, front: FakeFront, query: str, asked: str) -> None:
    front.next_id = InvocationId.parse("inv_10jmLa3LA0BV1LActt8JASiYV113WGdXbE")
    answer = await admin.request("PATCH", f"/invocations/{SOME_ID}/restart-as-new{query}")
    assert (answer.status, answer.json()) == (200, {"new_invocation_id": str(front.next_id)})
    assert front.asked == [(asked, InvocationId.parse(SOME_ID))]


@pytest.mark.parametrize("index", ["-1", "x", "", "1.5", "٣", "9999999999"])
async def test_the_entry_to_restart_from_is_a_number(admin: Http, front: FakeFront, index: str) -> None:
    answer = await admin.request("PATCH", f"/invocations/{SOME_ID}/restart-as-new?from={quote(index)}")
    assert (answer.status, front.asked) == (400, [])


RESTARTS = {
    Done.NOT_FOUND: (404, "The requested invocation '{id}' does not exist"),
    Done.NOT_STARTED: (425, "The invocation '{id}' cannot be restarted because it's not running yet."),
    Done.STILL_RUNNING: (409, "The invocation '{id}' is still running."),
    Done.NO_JOURNAL: (
        410,
        "The invocation '{id}' cannot be restarted because the input is not available. "
        "This indicates that the journal was already purged, or not retained at all.",
    ),
    Done.UNSUPPORTED: (
        422,
        "Restarting the invocation '{id}' is not supported. Restarting workflows is not supported, "
        "and restarting invocations created using the old service protocol.",
    ),
    Done.NO_DEPLOYMENT: (400, "The given deployment was not found when trying to restart as new the invocation '{id}'."),
    **dict.fromkeys(
        (Done.OUT_OF_RANGE, Done.UNFINISHED),
        (400, "The prefix of the journal '{id}' up to 'from' (included) contains some Commands without respective Completions."),
    ),
}


@pytest.mark.parametrize("done", RESTARTS)
async def test_a_restart_is_refused_with_a_reason(admin: Http, front: FakeFront, done: Done) -> None:
    front.done = done
    answer = await admin.request("PATCH", f"/invocations/{SOME_ID}/restart-as-new")
    status, message = RESTARTS[done]
    assert (answer.status, answer.json()["message"]) == (status, message.format(id=SOME_ID))


@pytest.mark.parametrize("operation", ["cancel", "kill", "purge", "purge-journal", "pause", "resume", "restart-as-new"])
async def test_a_batch_says_of_each_what_became_of_it(admin: Http, front: FakeFront, operation: str) -> None:
    known, unknown, busy, lost = (f"inv_1{number:033d}" for number in range(4))
    front.each = {unknown: Done.NOT_FOUND, busy: Done.STILL_RUNNING, lost: CoordinatorUnavailable("no owner", retry_safe=True)}
    wanted = {"invocation_ids": [known, unknown, busy, lost], "deployment": "Keep"}
    answer = await admin.post(f"/internal/invocations_batch_operations/{operation}", wanted)
    restarted = {"old_invocation_id": known, "new_invocation_id": known}
    assert (answer.status, answer.json()["succeeded"]) == (200, [restarted if operation == "restart-as-new" else known])
    failed = {item["invocation_id"]: item["error"] for item in answer.json()["failed"]}
    assert failed[unknown] == f"Invocation '{unknown}' not found"
    assert failed[busy] == f"Invocation '{busy}' is still running"
    assert "no owner" in failed[lost]


async def test_a_batch_asks_for_some_at_a_time(admin: Http, front: FakeFront, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way: list[int] = [0]

    async def kill(invocation_id: InvocationId) -> Done:
        under_way.append(under_way[-1] + 1)
        await asyncio.sleep(0)
        under_way.append(under_way[-1] - 1)
        return Done.APPLIED

    monkeypatch.setattr(front, "kill", kill)
    wanted = [f"inv_1{number:033d}" for number in range(1_000)]
    answer = await admin.post("/internal/invocations_batch_operations/kill", {"invocation_ids": wanted})
    assert answer.json() == {"succeeded": wanted, "failed": []}
    assert max(under_way) == 32


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"invocation_ids": [SOME_ID] * 1001}, 400, "Batch size 1001 exceeds maximum allowed size of 1000"),
        ({}, 422, "Failed to deserialize the JSON body into the target type: invocation_ids: expected a list"),
        ({"invocation_ids": [1]}, 422, "Failed to deserialize the JSON body into the target type: invocation_ids[0]: expected"),
        ({"invocation_ids": ["inv"]}, 422, "Failed to deserialize the JSON body into the target type: invocation_ids[0]: bad"),
        ({"invocation_ids": [], "deployment": "foo"}, 400, "The request field 'deployment' is invalid. Reason: bad format"),
        ({"invocation_ids": [], "deployment": 1}, 400, "The request field 'deployment' is invalid."),
    ],
)
async def test_a_batch_that_cannot_be_read_does_nothing(admin: Http, front: FakeFront, body: object, status: int, message: str) -> None:
    answer = await admin.post("/internal/invocations_batch_operations/resume", body)
    shown = answer.json()["message"] if status == 400 else answer.body.decode()
    assert (answer.status, front.asked) == (status, [])
    assert shown.startswith(message)


async def test_our_own_reads(admin: Http, front: FakeFront) -> None:
    front.rows = [{"id": SOME_ID, "status": "running", "journal": [{"index": 0, "raw": b"\x00\xff"}]}]
    front.entries = {"count": b"3", "blob": b"\xff"}
    listed = await admin.get("/holdfast/invocations?service=S&key=a%2Fb&status=running&limit=5")
    assert listed.json()["invocations"][0]["id"] == SOME_ID
    assert front.asked[-1] == ("list", InvocationFilter("S", None, "a/b", "running", 5))
    assert (await admin.get("/holdfast/invocations?limit=0")).status == 400
    described = (await admin.get(f"/holdfast/invocations/{SOME_ID}")).json()
    assert described["journal"] == [{"index": 0, "raw": {"base64": "AP8=", "text": None}}]
    assert (await admin.get(f"/holdfast/invocations/{SOME_ID[:-1]}a")).status == 404
    state = (await admin.get("/holdfast/state/ApiCounter/a%2Fb")).json()
    assert front.asked[-1] == ("state", ("ApiCounter", "a/b"))
    assert state["state"] == {"count": {"base64": "Mw==", "text": "3"}, "blob": {"base64": "/w==", "text": None}}


async def test_an_unreachable_coordinator_is_a_503(admin: Http, front: FakeFront) -> None:
    front.outcome = CoordinatorUnavailable("no owner", retry_safe=True)
    answer = await admin.request("PATCH", f"/invocations/{SOME_ID}/kill")
    assert answer.status == 503
    assert "safe to try again" in answer.json()["message"]
