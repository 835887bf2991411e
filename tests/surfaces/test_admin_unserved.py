"""Kafka subscriptions and flow control: official tools get lists without entries and refusals they can show."""

from __future__ import annotations

from typing import Any

import pytest

from tests.surfaces.http import Http

SUBSCRIPTION = "sub_11XHoawrCiWtv8kzhEyGtsR"
SOURCE, SINK = "kafka://my-cluster/my-topic", "service://ApiGreeter/greet"


@pytest.mark.parametrize("prefix", ["", "/v2", "/v4"])
async def test_lists_are_empty(admin: Http, prefix: str) -> None:
    assert (await admin.get(f"{prefix}/subscriptions?sink=service://ApiGreeter/greet")).body == b'{"subscriptions":[]}'
    assert (await admin.get(f"{prefix}/kafka-clusters")).body == b'{"clusters":[]}'


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", f"/subscriptions/{SUBSCRIPTION}", 404, f"The requested subscription '{SUBSCRIPTION}' does not exist"),
        ("DELETE", f"/subscriptions/{SUBSCRIPTION}", 404, f"not found in the schema registry: subscription with id '{SUBSCRIPTION}'"),
        (
            "GET",
            "/kafka-clusters/x?include_subscriptions=true",
            404,
            "The requested kafka cluster 'x' does not exist: this server reads no",
        ),
        ("DELETE", "/kafka-clusters/x?force=true", 404, "The requested kafka cluster 'x' does not exist"),
        ("POST", "/vqueues/vq_1/pause", 404, "The requested vqueue 'vq_1' does not exist: this server has no flow control"),
        ("POST", "/vqueues/vq_1/resume", 404, "The requested vqueue 'vq_1' does not exist"),
    ],
)
async def test_single_things_do_not_exist(admin: Http, method: str, path: str, status: int, message: str) -> None:
    answer = await admin.request(method, path)
    assert answer.status == status
    assert answer.json()["message"].startswith(message)
    assert answer.json()["restate_code"] is None


async def test_a_malformed_subscription_id_is_plain_text(admin: Http) -> None:
    answer = await admin.get("/subscriptions/foo")
    assert (answer.status, answer.body) == (400, b"Invalid URL: Cannot parse `subscription` with value `foo`: bad format")


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "message"),
    [
        (
            "/subscriptions",
            {"source": "sqs://a/b", "sink": SINK},
            400,
            "META0009",
            "[META0009] invalid source URI 'sqs://a/b': must have a s",
        ),
        (
            "/subscriptions",
            {"source": "kafka:b", "sink": SINK},
            400,
            "META0009",
            "[META0009] invalid source URI 'kafka:b': source URI of Ka",
        ),
        (
            "/subscriptions",
            {"source": SOURCE, "sink": "http://a/b"},
            400,
            "META0009",
            "[META0009] invalid sink URI 'http://a/b': must have a",
        ),
        (
            "/subscriptions",
            {"source": SOURCE, "sink": "service:a"},
            400,
            "META0009",
            "[META0009] invalid sink URI 'service:a': sink URI of s",
        ),
        (
            "/subscriptions",
            {"source": SOURCE, "sink": "service://No/x"},
            400,
            "META0009",
            "[META0009] invalid sink URI 'service://No/x': cann",
        ),
        ("/subscriptions", {"source": SOURCE, "sink": SINK}, 400, None, "Kafka cluster 'my-cluster' not found. Available clusters: []"),
        (
            "/kafka-clusters",
            {"name": "k", "properties": {}},
            400,
            None,
            "kafka cluster 'k' properties must contain either 'bootstrap.servers'",
        ),
        (
            "/kafka-clusters",
            {"name": "k", "properties": {"bootstrap.servers": "h:1"}},
            400,
            None,
            "kafka cluster 'k' cannot be added: this",
        ),
    ],
)
async def test_kafka_is_refused_in_the_known_words(admin: Http, path: str, body: Any, status: int, code: str | None, message: str) -> None:
    answer = await admin.post(path, body)
    assert (answer.status, answer.json()["restate_code"]) == (status, code)
    assert answer.json()["message"].startswith(message)


@pytest.mark.parametrize(
    ("path", "body"), [("/subscriptions", {}), ("/kafka-clusters", {"name": "k"}), ("/limits/rules/bulk-delete", [{}])]
)
async def test_bodies_of_the_wrong_shape(admin: Http, path: str, body: Any) -> None:
    answer = await admin.post(path, body)
    assert (answer.status, answer.headers["content-type"]) == (422, "text/plain; charset=utf-8")


async def test_rules_are_refused_and_deleting_none_succeeds(admin: Http) -> None:
    headers = {"content-type": "application/json"}
    refused = await admin.request("PUT", "/limits/rules", headers, b'[{"pattern":"api/*","limits":{"concurrency":5}}]')
    assert refused.status == 501
    assert refused.json()["message"].startswith("this server has no flow control")
    assert (await admin.request("PUT", "/limits/rules", headers, b"[]")).body == b"[]"
    deleted = await admin.post("/limits/rules/bulk-delete", [{"pattern": "api/*"}])
    assert (deleted.status, deleted.body) == (200, b"[]")
