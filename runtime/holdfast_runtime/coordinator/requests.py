"""What one process asks the owner of a shard for, as data that survives a network: {"shard", "ask", ...}; answers likewise.

Every request may be repeated: arrivals carry their id, operators' requests and edits of state a request id, messages their
sequence numbers.

While a deployment rolls, a process of the version before talks to one of the version after. So everything goes by name: what the
receiver does not know it drops, what the sender did not know yet has a default. Whoever adds a field gives it the default that means
"as before". A request that the receiver does not know at all is answered with an error and asked again, until its owner knows it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from holdfast_runtime.engine.events import Arrival, Arrive, Arrived, Operate, Operated, Restart, Seen, Verb

Request = dict[str, Any]
Reply = dict[str, Any]

_ARRIVE_FIELDS = tuple(field.name for field in dataclasses.fields(Arrive))
_RESTART_FIELDS = tuple(field.name for field in dataclasses.fields(Restart))


class NotUnderstood(Exception):
    """A request of a newer version; the asker tries again until the owner is one that knows it."""


def arrive(event: Arrive, *, wait: bool) -> Request:
    """wait: answer with the result instead of the acknowledgement."""
    return {"ask": "arrive", "wait": wait, "event": {name: getattr(event, name) for name in _ARRIVE_FIELDS}, "id": event.invocation}


def parse_arrive(request: Request) -> Arrive:
    return Arrive(**_known(request["event"], _ARRIVE_FIELDS))


def arrived(answer: Arrived) -> Reply:
    return {"arrival": answer.arrival.value, "result": answer.result, "expires_at": answer.expires_at, "execute_at": answer.execute_at}


def parse_arrived(reply: Reply) -> Arrived:
    return Arrived(Arrival(reply["arrival"]), reply["result"], reply.get("expires_at"), reply.get("execute_at"))


def look(invocation: str, *, wait: bool) -> Request:
    """wait: answer when it has ended."""
    return {"ask": "look", "wait": wait, "id": invocation}


def seen(answer: Seen) -> Reply:
    return {"exists": answer.exists, "result": answer.result, "expires_at": answer.expires_at, "target": answer.target}


def parse_seen(reply: Reply) -> Seen:
    return Seen(reply["exists"], reply["result"], reply.get("expires_at"), reply.get("target"))


def operate(verb: Verb, invocation: str, request_id: bytes, deployment: str | None = None) -> Request:
    return {"ask": "operate", "verb": verb.value, "id": invocation, "request": request_id, "deployment": deployment}


def parse_operate(request: Request, *, in_flight: bool) -> Operate:
    try:
        verb = Verb(request["verb"])
    except ValueError as unknown:
        raise NotUnderstood(f"operation {request['verb']!r}") from unknown
    return Operate(verb, request["id"], in_flight, request["request"], request.get("deployment"))


def restart(event: Restart) -> Request:
    """To the owner of the old invocation, who owns the new one too."""
    return {"ask": "restart", "id": event.invocation, "event": {name: getattr(event, name) for name in _RESTART_FIELDS}}


def parse_restart(request: Request) -> Restart:
    return Restart(**_known(request["event"], _RESTART_FIELDS))


def parse_operated(reply: Reply) -> Operated:
    return Operated(reply["operated"])


def signal(invocation: str, index: int | str, result: list[Any]) -> Request:
    return {"ask": "deliver", "id": invocation, "message": {"m": "s", "id": invocation, "sig": index, "r": result}}


def receive(source: int, messages: list[tuple[int, Any]]) -> Request:
    return {"ask": "receive", "source": source, "messages": [list(item) for item in messages]}


def _known(event: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {name: event[name] for name in fields if name in event}
