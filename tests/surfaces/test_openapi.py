"""The OpenAPI documents: of the admin API, made from its routes, and of each service at the ingress."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.routing import Route

from holdfast.protocol.manifest import parse_manifest
from holdfast_runtime.coordinator import registry_document
from holdfast_runtime.coordinator.front import PatchService
from holdfast_runtime.coordinator.registry_document import DefaultSettings, StoredDeployment
from holdfast_runtime.engine.registry import HttpAddress, ServiceRevision
from holdfast_runtime.surfaces.admin import AdminSettings, admin_app
from holdfast_runtime.surfaces.introspection.engine import Engine
from holdfast_runtime.surfaces.introspection.routes import query_routes
from holdfast_runtime.surfaces.schema_refs import embedded
from holdfast_runtime.surfaces.server import Listener, serve
from holdfast_runtime.surfaces.service_openapi import service_openapi
from tests.surfaces.fakes import FakeFront
from tests.surfaces.http import Http
from tests.surfaces.test_deployments import manifest, plain, service

Json = dict[str, Any]
INGRESS = "http://127.0.0.1:8080/"
APPLICATION_JSON = {"content-type": "application/json"}


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "$ref" and isinstance(value, str):
                yield value
            yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def lookup(document: Json, reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def check(document: Json) -> None:
    """Valid as OpenAPI 3.1, nothing refers to nowhere, no two operations have one name."""
    assert document == json.loads(json.dumps(document))
    validate(document)
    for reference in references(document):
        if reference.startswith("#/"):
            lookup(document, reference)
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))


# ---- The admin API


@pytest.fixture
async def whole(front: FakeFront) -> AsyncIterator[tuple[Http, Starlette]]:
    """The admin API with all that a server serves there."""
    engine = Engine(front)
    app = admin_app(front, AdminSettings(ingress_url=INGRESS, cluster_name="localcluster"), [query_routes(engine)])
    assert isinstance(app, Starlette)
    server = await serve(app, Listener(grace_s=1))
    yield Http(server.url), app
    await server.close()
    await engine.close()


async def test_every_served_route_is_described(whole: tuple[Http, Starlette]) -> None:
    admin, app = whole
    document = (await admin.get("/openapi")).json()
    check(document)
    assert document["openapi"].startswith("3.1")
    served = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in app.routes
        if isinstance(route, Route) and not route.path.startswith(("/v1", "/v2", "/v3", "/v4"))
        for method in route.endpoint.handlers
    }
    described = {(path, method) for path, operations in document["paths"].items() for method in operations}
    assert described == served
    assert {("/openapi", "get"), ("/query", "post"), ("/invocations/{invocation_id}/resume", "patch")} <= described
    assert (await admin.get("/v4/openapi")).json() == document


async def test_every_route_says_what_it_is_for(whole: tuple[Http, Starlette]) -> None:
    document = (await whole[0].get("/openapi")).json()
    silent = [
        (path, method) for path, operations in document["paths"].items() for method, item in operations.items() if not item.get("summary")
    ]
    assert silent == []
    register = document["paths"]["/deployments"]["post"]
    assert register["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Registration"}
    assert set(register["responses"]) == {"200", "201", "409", "default"}
    delete = document["paths"]["/deployments/{deployment_id}"]["delete"]["parameters"]
    assert [(item["name"], item["in"], item["required"]) for item in delete] == [
        ("deployment_id", "path", True),
        ("force", "query", False),
    ]


ASKED = [
    ("GET", "/version", None),
    ("GET", "/cluster-health", None),
    ("GET", "/deployments", None),
    ("GET", "/deployments/{deployment_id}", None),
    ("PATCH", "/deployments/{deployment_id}", {"additional_headers": {"x-a": "b"}}),
    ("POST", "/deployments", {"uri": "http://127.0.0.1:21012", "metadata": {"git": "abc"}}),
    ("GET", "/services", None),
    ("GET", "/services/{service}", None),
    ("PATCH", "/services/{service}", {"public": False, "journal_retention": None, "abort_timeout": "1h"}),
    ("GET", "/services/{service}/handlers", None),
    ("GET", "/services/{service}/handlers/{handler}", None),
    ("GET", "/services/{service}/openapi", None),
    ("POST", "/subscriptions", {"source": "kafka://c/t", "sink": "service://ApiGreeter/greet"}),
    ("GET", "/subscriptions", None),
    ("GET", "/kafka-clusters", None),
    ("PUT", "/limits/rules", [{"pattern": "a/*", "limits": {"concurrency": 1}}]),
    ("POST", "/limits/rules/bulk-delete", [{"pattern": "a/*"}]),
]


@pytest.mark.parametrize(("method", "path", "body"), ASKED)
async def test_requests_and_answers_are_as_described(
    whole: tuple[Http, Starlette], front: FakeFront, method: str, path: str, body: Any
) -> None:
    admin, _ = whole
    document = (await admin.get("/openapi")).json()
    operation = document["paths"][path][method.lower()]
    if body is not None:
        conforms(document, operation["requestBody"]["content"]["application/json"]["schema"], body)
    names = {"deployment_id": next(iter(front.registry.deployments)), "service": "ApiTuned", "handler": "pausing"}
    sent = None if body is None else json.dumps(body).encode()
    answer = await admin.request(method, path.format(**names), APPLICATION_JSON if body is not None else {}, sent)
    responses = operation["responses"]
    described = responses.get(str(answer.status)) or lookup(document, responses["default"]["$ref"])
    conforms(document, described["content"]["application/json"]["schema"], answer.json())


def conforms(document: Json, schema: Json, value: Any) -> None:
    """Valid, and every member is declared: what is left out of a shape would go unnoticed otherwise."""
    Draft202012Validator({**document, **schema}).validate(value)
    undeclared = list(_undeclared(document, schema, value, "$"))
    assert undeclared == []


def _undeclared(document: Json, schema: Json, value: Any, where: str) -> Iterator[str]:
    if "$ref" in schema:
        schema = lookup(document, schema["$ref"])
    if isinstance(value, list):
        for item in value:
            yield from _undeclared(document, schema.get("items", {}), item, f"{where}[]")
    if isinstance(value, dict) and "properties" in schema:
        for name, item in value.items():
            if name not in schema["properties"]:
                yield f"{where}.{name}"
            else:
                yield from _undeclared(document, schema["properties"][name], item, f"{where}.{name}")


# ---- Services


def revision(described: Json, **patch: Any) -> ServiceRevision:
    document = manifest(described)
    parse_manifest(document)
    stored = StoredDeployment(
        "dp_1",
        HttpAddress("http://h/"),
        0,
        None,
        document,
        {described["name"]: 3},
        patches={described["name"]: PatchService(**patch)},
    )
    return registry_document.deployment_of(stored, DefaultSettings()).services[described["name"]]


@pytest.mark.parametrize("name", ["ApiGreeter", "ApiCounter", "ApiFlow", "ApiTuned", "ApiPrivate"])
async def test_the_fixture_services_are_described(admin: Http, name: str) -> None:
    answer = await admin.get(f"/services/{name}/openapi")
    assert answer.status == 200
    document = answer.json()
    check(document)
    assert document["info"]["title"] == name
    assert document["info"]["version"] == "1"
    assert [server["url"] for server in document["servers"]] == [INGRESS]
    assert (name == "ApiPrivate") is (document["paths"] == {})


async def test_an_unknown_service_has_no_document(admin: Http) -> None:
    answer = await admin.get("/services/ApiNope/openapi")
    assert (answer.status, answer.json()["message"]) == (404, "The requested service 'ApiNope' does not exist")


async def test_the_paths_of_each_kind_of_handler(admin: Http) -> None:
    greeter = (await admin.get("/services/ApiGreeter/openapi")).json()
    assert greeter["info"]["description"] == "Greets people"
    assert greeter["x-restate-extensions"] == {"team": "alpha"}
    call = greeter["paths"]["/restate/call/ApiGreeter/greet"]["post"]
    assert (call["operationId"], call["tags"], call["x-restate-extensions"]) == ("greet", ["Request Response"], {"slo": "gold"})
    send = greeter["paths"]["/restate/send/ApiGreeter/greet"]["post"]
    assert (send["operationId"], send["tags"]) == ("greetSend", ["Send"])
    assert [item["$ref"].rpartition("/")[2] for item in send["parameters"]] == ["delay", "idempotencyKeyHeader"]
    output = greeter["paths"]["/restate/invocation/ApiGreeter/greet/{idempotencyKey}/output"]["get"]
    assert (output["operationId"], output["deprecated"], set(output["responses"])) == (
        "greetOutput",
        True,
        {"200", "404", "470", "default"},
    )
    assert {tag["name"] for tag in greeter["tags"]} == {"Request Response", "Send", "Attach", "Get Output"}

    counter = (await admin.get("/services/ApiCounter/openapi")).json()
    attach = counter["paths"]["/restate/invocation/ApiCounter/{key}/add/{idempotencyKey}/attach"]["get"]
    assert [item["$ref"].rpartition("/")[2] for item in attach["parameters"]] == ["key", "idempotencyKeyPath"]
    assert counter["components"]["schemas"]["addRequest"] == {"type": "integer"}

    flow = (await admin.get("/services/ApiFlow/openapi")).json()
    assert {path for path in flow["paths"] if "approve" in path} == {
        "/restate/call/ApiFlow/{key}/approve",
        "/restate/send/ApiFlow/{key}/approve",
    }
    run = flow["paths"]["/restate/call/ApiFlow/{key}/run"]["post"]
    assert [item["$ref"].rpartition("/")[2] for item in run["parameters"]] == ["key"]
    assert flow["paths"]["/restate/workflow/ApiFlow/{key}/attach"]["get"]["operationId"] == "runAttach"


def test_private_handlers_and_services_stay_out() -> None:
    described = service("Cart", "VIRTUAL_OBJECT", [plain("add"), plain("peek", ty="SHARED", ingressPrivate=True)])
    assert not any("peek" in path for path in service_openapi(revision(described), None)["paths"])
    hidden = service_openapi(revision(described, public=False), None)
    check(hidden)
    assert hidden["paths"] == {}
    assert "servers" not in hidden


# ---- Schemas of handlers


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    name: str
    colour: Colour = Colour.RED
    parts: list[Part] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Order(BaseModel):
    part: Part
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    notes: dict[str, Part] | None = None


ZOD: Mapping[str, Any] = {  # as zod-to-json-schema and zod's own toJSONSchema write it
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "name": {"type": "string", "default": "#/definitions/Tree"},
        "children": {"type": "array", "items": {"$ref": "#"}},
        "other": {"$ref": "#/definitions/Tree"},
        "$ref": {"type": "string"},
    },
    "required": ["name"],
    "additionalProperties": False,
    "definitions": {"Tree": {"type": "object", "properties": {"left": {"$ref": "#/definitions/Tree"}}}},
}


def described_with(given: Any, answered: Any) -> Json:
    typed = {"contentType": "application/json"}
    handler = plain("add", input={"required": True, **typed, "jsonSchema": given}, output={**typed, "jsonSchema": answered})
    document = service_openapi(revision(service("Cart", "SERVICE", [handler])), INGRESS)
    check(document)
    return document


def test_pydantic_schemas_keep_their_meaning() -> None:
    schema, part = Order.model_json_schema(), Part.model_json_schema()
    document = described_with(schema, part)
    moved = Draft202012Validator({**document, "$ref": "#/components/schemas/addRequest"})
    own = Draft202012Validator(schema)
    good = {"part": {"name": "a", "parts": [{"name": "b", "colour": "blue"}]}, "pet": {"kind": "cat", "lives": 9}}
    for value in (good, {**good, "part": {"name": 1}}, {**good, "pet": {"kind": "cow"}}, {**good, "notes": {"x": {}}}, {}):
        assert moved.is_valid(value) is own.is_valid(value)
    assert moved.is_valid(good)
    mapping = document["components"]["schemas"]["addRequest"]["properties"]["pet"]["discriminator"]["mapping"]
    assert mapping["cat"] == "#/components/schemas/addRequest/$defs/Cat"


def test_zod_schemas_keep_their_meaning() -> None:
    document = described_with(ZOD, True)
    schemas = document["components"]["schemas"]
    assert schemas["addResponse"] is True
    properties = schemas["addRequest"]["properties"]
    assert properties["children"]["items"] == {"$ref": "#/components/schemas/addRequest"}
    assert properties["other"] == {"$ref": "#/components/schemas/addRequest/definitions/Tree"}
    assert properties["name"]["default"] == "#/definitions/Tree"
    assert properties["$ref"] == {"type": "string"}
    moved = Draft202012Validator({**document, "$ref": "#/components/schemas/addRequest"})
    assert moved.is_valid({"name": "a", "children": [{"name": "b", "children": []}]})
    assert not moved.is_valid({"name": "a", "children": [{"nome": "b"}]})


def test_references_that_mean_something_else_stay() -> None:
    place = "#/components/schemas/x"
    assert embedded({"$ref": "https://example.com/a#/b"}, place) == {"$ref": "https://example.com/a#/b"}
    assert embedded({"$id": "urn:a", "$ref": "#/b"}, place) == {"$ref": f"{place}/b"}
    nested = {"$defs": {"n": {"$id": "urn:n", "$ref": "#/inner"}}}
    assert embedded(nested, place) == nested
    values = {"enum": [{"$ref": "#/a"}], "const": {"$ref": "#/a"}, "examples": [{"$ref": "#/a"}]}
    assert embedded(values, place) == values
    deep: Any = {"$ref": "#"}
    for _ in range(900):
        deep = {"not": deep}
    embedded(deep, place)
    assert embedded(False, place) is False


def test_content_types_and_bodies_follow_the_manifest() -> None:
    handlers = [
        plain("any"),
        plain("none", input={}, output={}),
        plain("text", input={"contentType": "text/*"}, output={"contentType": "text/plain"}),
    ]
    document = service_openapi(revision(service("Cart", "SERVICE", handlers)), INGRESS)
    check(document)

    def call(name: str) -> Json:
        found: Json = document["paths"][f"/restate/call/Cart/{name}"]["post"]
        return found

    assert call("any")["requestBody"] == {"required": False, "content": {"*/*": {}}}
    assert call("any")["responses"]["200"]["content"] == {"application/json": {}}
    assert "requestBody" not in call("none")
    assert "content" not in call("none")["responses"]["200"]
    assert set(call("text")["requestBody"]["content"]) == {"text/*"}
    assert set(call("text")["responses"]["200"]["content"]) == {"text/plain"}
