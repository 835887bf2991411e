"""What official tools ask for that this server does not do: Kafka subscriptions and flow control (http-api §2.10, §2.11).

Rules: lists are empty, single things do not exist, requests are checked as the reference checks them, and what would be
accepted there is refused with the reason and what to do instead. Nothing is ever stored.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from holdfast.protocol.ids import IdError, parse_subscription_id
from holdfast_runtime.coordinator.front import Front
from holdfast_runtime.surfaces.admin_openapi import declared
from holdfast_runtime.surfaces.admin_replies import AdminError, error, json_body, json_object, json_reply, text, wrong_shape
from holdfast_runtime.surfaces.admin_shapes import KafkaCluster, KafkaClusters, Problem, Rule, Subscription, Subscriptions

Handler = Callable[[Request, int], Awaitable[Response]]

_NO_KAFKA: Final = (
    "this server reads no Kafka topics; let a consumer of yours, or an AWS Lambda event source, call the handler at the ingress"
)
_NO_FLOW_CONTROL: Final = (
    "this server has no flow control; limit concurrency with the key of a virtual object, or with the reserved concurrency of a function"
)


def unserved_routes(front: Front) -> Mapping[str, Mapping[str, Handler]]:
    return {**_subscriptions(front), **_kafka_clusters(), **_flow_control()}


def _subscriptions(front: Front) -> Mapping[str, Mapping[str, Handler]]:
    @declared({200: Subscriptions})
    async def listing(request: Request, api: int) -> Response:
        """List subscriptions: there are none."""
        return json_reply({"subscriptions": []})

    @declared({400: Problem}, takes=Subscription)
    async def create(request: Request, api: int) -> Response:
        """Refused: this server reads no Kafka topics."""
        body = await json_object(request)
        source, sink = body.get("source"), body.get("sink")
        if not isinstance(source, str) or not isinstance(sink, str):
            raise wrong_shape(f"missing field `{'source' if not isinstance(source, str) else 'sink'}`")
        cluster = _cluster_of(source)
        _check_sink(front, sink)
        return error(400, f"Kafka cluster '{cluster}' not found. Available clusters: []")

    @declared({404: Problem})
    async def get(request: Request, api: int) -> Response:
        """One subscription: there are none."""
        return error(404, f"The requested subscription '{_subscription_id(request)}' does not exist")

    @declared({404: Problem})
    async def delete(request: Request, api: int) -> Response:
        """Delete a subscription: there are none."""
        return error(404, f"not found in the schema registry: subscription with id '{_subscription_id(request)}'")

    return {
        "/subscriptions": {"GET": listing, "POST": create},
        "/subscriptions/{subscription_id}": {"GET": get, "DELETE": delete},
    }


def _cluster_of(source: str) -> str:
    """The cluster that a source names. Raises AdminError."""
    parts = urlsplit(source)
    if parts.scheme != "kafka":
        raise _invalid("source", source, "must have a scheme segment, with supported schemes: [kafka].")
    if not parts.netloc:
        raise _invalid("source", source, "source URI of Kafka type must have a authority segment containing the cluster name.")
    return parts.netloc


def _check_sink(front: Front, sink: str) -> None:
    parts = urlsplit(sink)
    if parts.scheme != "service":
        raise _invalid("sink", sink, "must have a scheme segment, with supported schemes: [service].")
    if not parts.netloc:
        raise _invalid("sink", sink, "sink URI of service type must have a authority segment containing the service name.")
    if front.registry.handler(parts.netloc, parts.path.removeprefix("/")) is None:
        raise _invalid("sink", sink, "cannot find service/handler specified in the sink URI.")


def _invalid(what: str, uri: str, reason: str) -> AdminError:
    return AdminError(error(400, f"[META0009] invalid {what} URI '{uri}': {reason}", "META0009"))


def _subscription_id(request: Request) -> str:
    given: str = request.path_params["subscription_id"]
    try:
        parse_subscription_id(given)
    except IdError as problem:
        raise AdminError(text(400, f"Invalid URL: Cannot parse `subscription` with value `{given}`: {problem.reason}")) from problem
    return given


def _kafka_clusters() -> Mapping[str, Mapping[str, Handler]]:
    @declared({200: KafkaClusters})
    async def listing(request: Request, api: int) -> Response:
        """List Kafka clusters: there are none."""
        return json_reply({"clusters": []})

    @declared({400: Problem}, takes=KafkaCluster)
    async def create(request: Request, api: int) -> Response:
        """Refused: this server reads no Kafka topics."""
        body = await json_object(request)
        name, properties = body.get("name"), body.get("properties")
        if not isinstance(name, str) or not isinstance(properties, dict):
            raise wrong_shape(f"missing field `{'name' if not isinstance(name, str) else 'properties'}`")
        if not {"bootstrap.servers", "metadata.broker.list"} & set(properties):
            needed = "properties must contain either 'bootstrap.servers' or 'metadata.broker.list'"
            return error(400, f"kafka cluster '{name}' {needed}")
        return error(400, f"kafka cluster '{name}' cannot be added: {_NO_KAFKA}")

    @declared({404: Problem})
    async def unknown(request: Request, api: int) -> Response:
        """One Kafka cluster: there are none."""
        return error(404, f"The requested kafka cluster '{request.path_params['name']}' does not exist: {_NO_KAFKA}")

    return {
        "/kafka-clusters": {"GET": listing, "POST": create},
        "/kafka-clusters/{name}": {"GET": unknown, "PATCH": unknown, "DELETE": unknown},
    }


def _flow_control() -> Mapping[str, Mapping[str, Handler]]:
    @declared({200: list[Rule], 501: Problem}, takes=list[Rule])
    async def upsert(request: Request, api: int) -> Response:
        """Set rules: refused, as this server has no flow control."""
        if _rules(await json_body(request)):
            return error(501, _NO_FLOW_CONTROL)
        return json_reply([])

    @declared({200: list[str]}, takes=list[Rule])
    async def delete(request: Request, api: int) -> Response:
        """Delete rules: there are none, so none is deleted."""
        _rules(await json_body(request))
        return json_reply([])

    @declared({404: Problem})
    async def unknown(request: Request, api: int) -> Response:
        """Pause or resume a queue of flow control: there are none."""
        return error(404, f"The requested vqueue '{request.path_params['vqueue_id']}' does not exist: {_NO_FLOW_CONTROL}")

    return {
        "/limits/rules": {"PUT": upsert},
        "/limits/rules/bulk-delete": {"POST": delete},
        "/vqueues/{vqueue_id}/pause": {"POST": unknown},
        "/vqueues/{vqueue_id}/resume": {"POST": unknown},
    }


def _rules(document: Any) -> list[Any]:
    if not isinstance(document, list):
        raise wrong_shape(f"expected an array of rules, found {json.dumps(document):.40}")
    for rule in document:
        if not isinstance(rule, dict) or not isinstance(rule.get("pattern"), str):
            raise wrong_shape("missing field `pattern`")
    return document
