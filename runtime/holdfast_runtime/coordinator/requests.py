"""What one process asks the owner of a shard for, as data that survives a network: {"shard", "ask", ...}; answers likewise.

Every request may be repeated: arrivals carry their id, operators' requests a request id, messages their sequence numbers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from holdfast_runtime.engine.events import Arrival, Arrive, Arrived, Operate, Operated, Restart, Seen, Verb

Request = dict[str, Any]
Reply = dict[str, Any]

_ARRIVE_FIELDS = [field.name for field in dataclasses.fields(Arrive)]
_RESTART_FIELDS = [field.name for field in dataclasses.fields(Restart)]


def arrive(event: Arrive, *, wait: bool) -> Request:
    """wait: answer with the result instead of the acknowledgement."""
    return {"ask": "arrive", "wait": wait, "event": [getattr(event, name) for name in _ARRIVE_FIELDS], "id": event.invocation}


def parse_arrive(request: Request) -> Arrive:
    return Arrive(**dict(zip(_ARRIVE_FIELDS, request["event"], strict=True)))


def arrived(answer: Arrived) -> Reply:
    return {"arrival": answer.arrival.value, "result": answer.result, "expires_at": answer.expires_at, "execute_at": answer.execute_at}


def parse_arrived(reply: Reply) -> Arrived:
    return Arrived(Arrival(reply["arrival"]), reply["result"], reply["expires_at"], reply["execute_at"])


def look(invocation: str, *, wait: bool) -> Request:
    """wait: answer when it has ended."""
    return {"ask": "look", "wait": wait, "id": invocation}


def seen(answer: Seen) -> Reply:
    return {"exists": answer.exists, "result": answer.result, "expires_at": answer.expires_at, "target": answer.target}


def parse_seen(reply: Reply) -> Seen:
    return Seen(reply["exists"], reply["result"], reply["expires_at"], reply["target"])


def operate(verb: Verb, invocation: str, request_id: bytes, deployment: str | None = None) -> Request:
    return {"ask": "operate", "verb": verb.value, "id": invocation, "request": request_id, "deployment": deployment}


def parse_operate(request: Request, *, in_flight: bool) -> Operate:
    return Operate(Verb(request["verb"]), request["id"], in_flight, request["request"], request["deployment"])


def restart(event: Restart) -> Request:
    """To the owner of the old invocation, who owns the new one too."""
    return {"ask": "restart", "id": event.invocation, "event": [getattr(event, name) for name in _RESTART_FIELDS]}


def parse_restart(request: Request) -> Restart:
    return Restart(*request["event"])


def parse_operated(reply: Reply) -> Operated:
    return Operated(reply["operated"])


def signal(invocation: str, index: int | str, result: list[Any]) -> Request:
    return {"ask": "deliver", "id": invocation, "message": {"m": "s", "id": invocation, "sig": index, "r": result}}


def receive(source: int, messages: list[tuple[int, Any]]) -> Request:
    return {"ask": "receive", "source": source, "messages": [list(item) for item in messages]}
