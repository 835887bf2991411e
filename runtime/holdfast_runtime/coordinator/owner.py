"""What the owner of a shard does with a request (see `requests`): decide, wait for durability, answer."""

from __future__ import annotations

from functools import partial

from holdfast_runtime.coordinator import requests, scans, views
from holdfast_runtime.coordinator.requests import Reply, Request
from holdfast_runtime.coordinator.shard import Fenced, Shard
from holdfast_runtime.engine import state_edit
from holdfast_runtime.engine.events import Arrival, Arrive, Arrived, Deliver, EditState, Look, MessagesReceived, Operated, Seen


async def serve(shard: Shard, request: Request) -> Reply:
    """Raises Fenced when the shard is lost on the way; then the request may or may not have happened, and is to be sent again.

    Raises NotUnderstood for what this version does not know.
    """
    check(shard)
    match request["ask"]:
        case "arrive":
            return requests.arrived(await arrive(shard, requests.parse_arrive(request), wait=request["wait"]))
        case "look":
            return await _look(shard, request)
        case "operate":
            return await _operate(shard, request)
        case "restart":
            restarted, lsn = await shard.perform(requests.parse_restart(request), proven=True)
            assert isinstance(restarted, Operated)
            await answerable(shard, lsn)
            return {"operated": restarted.value}
        case "deliver":
            _, lsn = await shard.perform(Deliver(request["message"]), proven=True)
            await answerable(shard, lsn)
            return {}
        case "receive":
            messages = [(sequence, message) for sequence, message in request["messages"]]
            applied, lsn = await shard.perform(MessagesReceived(request["source"], messages))
            await answerable(shard, lsn)
            return {"applied": applied}
        case "list":
            return {"rows": await views.rows(shard, request["where"])}
        case "scan":
            return await scans.scan(shard, scans.parse(request))
        case "describe":
            return {"row": await views.describe(shard, request["id"])}
        case "edit":
            values = [(name, value) for name, value in request["values"]]
            expected = request["expected"]
            if expected is not None:
                seen = await views.payloads(shard, request["service"], request["key"])
                if state_edit.version_of(await views.contents_of(shard, seen)) != expected:
                    await answerable(shard, shard.prove())
                    return {}  # another state than the operator had seen: silently dropped, as http-api §2.7 describes
                expected = state_edit.fingerprint(seen)
            edit = EditState(request["service"], request["key"], values, expected, request.get("request", b""))
            _, lsn = await shard.perform(edit, proven=True)
            await answerable(shard, lsn)
            return {}
        case "state":
            return {"state": await views.state_of(shard, request["service"], request["key"])}
    raise requests.NotUnderstood(f"request {request['ask']!r}")


def check(shard: Shard) -> None:
    """May this process serve the shard right now? Raises Fenced."""
    if not shard.accepting:
        raise Fenced(f"shard {shard.number} is being handed over")
    shard.check_lease()


async def answerable(shard: Shard, lsn: int) -> None:
    """Until what was decided or read is durable; and only an owner with a fresh lease answers (storage design §4.1).

    Raises TimeoutError when the store does not take it in time: then it may still happen.
    """
    if lsn > shard.durable:
        await shard.until_durable(lsn, patience_s=shard.environment.settings.acknowledge_timeout_s)
    shard.check_lease()


async def arrive(shard: Shard, event: Arrive, *, wait: bool) -> Arrived:
    """The acknowledgement once it is durable; with `wait` the result."""
    event.closed = shard.flusher.is_overdue()
    answer, lsn = await shard.perform(event)
    assert isinstance(answer, Arrived)
    if not (wait and answer.result is None and answer.arrival in (Arrival.NEW, Arrival.KNOWN)):
        await answerable(shard, lsn)
        return answer
    waiter = shard.wait_for(event.invocation)  # in the same instant as the decision: the result cannot slip by
    try:
        await answerable(shard, lsn)
        result = await waiter
    finally:
        shard.stop_waiting(event.invocation, waiter)
    shard.check_lease()
    return Arrived(answer.arrival, result)


async def _look(shard: Shard, request: Request) -> Reply:
    answer, lsn = await shard.perform(Look(request["id"], request.get("again", False)))
    assert isinstance(answer, Seen)
    if request["wait"] and answer.exists and answer.result is None:
        waiter = shard.wait_for(request["id"])
        try:
            result = await waiter
        finally:
            shard.stop_waiting(request["id"], waiter)
        shard.check_lease()
        return requests.seen(Seen(True, result, target=answer.target))
    await answerable(shard, lsn)
    return requests.seen(answer)


async def _operate(shard: Shard, request: Request) -> Reply:
    invocation: str = request["id"]
    while True:
        # Loading pages takes time, in which an attempt may start or end: the decision counts only if it was told what is so in its instant.
        running = shard.attempts.in_flight(invocation)
        event = requests.parse_operate(request, in_flight=running)
        answer, lsn = await shard.perform(event, guard=partial(_is_in_flight, shard, invocation, running), proven=True)
        if answer is not None:
            break
    assert isinstance(answer, Operated)
    await answerable(shard, lsn)
    return {"operated": answer.value}


def _is_in_flight(shard: Shard, invocation: str, expected: bool) -> bool:
    return shard.attempts.in_flight(invocation) is expected
