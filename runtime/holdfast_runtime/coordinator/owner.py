"""What the owner of a shard does with a request (see `requests`): decide, wait for durability, answer."""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast_runtime.coordinator import requests, views
from holdfast_runtime.coordinator.requests import Reply, Request
from holdfast_runtime.coordinator.shard import Fenced, Shard
from holdfast_runtime.engine import model
from holdfast_runtime.engine.events import Arrival, Arrived, Deliver, Look, MessagesReceived, Operated, Seen


async def serve(shard: Shard, request: Request) -> Reply:
    """Raises Fenced when the shard is lost on the way; then the request may or may not have happened, and is to be sent again."""
    if not shard.accepting:
        raise Fenced(f"shard {shard.number} is being handed over")
    shard.check_lease()
    match request["ask"]:
        case "arrive":
            return await _arrive(shard, request)
        case "look":
            return await _look(shard, request)
        case "operate":
            return await _operate(shard, request)
        case "deliver":
            _, lsn = await shard.perform(Deliver(request["message"]))
            await answerable(shard, lsn)
            return {}
        case "receive":
            messages = [(sequence, message) for sequence, message in request["messages"]]
            applied, lsn = await shard.perform(MessagesReceived(request["source"], messages))
            await answerable(shard, lsn)
            return {"applied": applied}
        case "list":
            return {"rows": await views.rows(shard, request["where"])}
        case "describe":
            return {"row": await views.describe(shard, request["id"])}
        case "state":
            return {"state": await views.state_of(shard, request["service"], request["key"])}
    raise AssertionError(f"unknown request {request['ask']!r}")


async def answerable(shard: Shard, lsn: int) -> None:
    """Until what was decided or read is durable; and only an owner with a fresh lease answers (storage design §4.1).

    Raises TimeoutError when the store does not take it in time: then it may still happen.
    """
    if lsn > shard.durable:
        limit = shard.environment.settings.acknowledge_timeout_s
        try:
            async with asyncio.timeout(limit):
                await shard.until_durable(lsn)
        except TimeoutError:
            raise TimeoutError(f"the store has not confirmed the write within {limit:g} s; it may still be done") from None
    shard.check_lease()


async def arrive(shard: Shard, request: Request) -> tuple[Arrived, Any]:
    """The acknowledgement, and when `wait` a future of the result (None when there is nothing to wait for)."""
    event = requests.parse_arrive(request)
    answer, lsn = await shard.perform(event)
    assert isinstance(answer, Arrived)
    waiter = None
    if request["wait"] and answer.result is None and answer.arrival in (Arrival.NEW, Arrival.KNOWN):
        waiter = shard.wait_for(event.invocation)  # in the same instant as the decision: the result cannot slip by
    try:
        await answerable(shard, lsn)
    except BaseException:
        if waiter is not None:
            shard.stop_waiting(event.invocation, waiter)
        raise
    return answer, waiter


async def _arrive(shard: Shard, request: Request) -> Reply:
    answer, waiter = await arrive(shard, request)
    reply = requests.arrived(answer)
    if waiter is not None:
        try:
            reply["result"] = await waiter
        finally:
            shard.stop_waiting(request["id"], waiter)
        shard.check_lease()
    return reply


async def _look(shard: Shard, request: Request) -> Reply:
    answer, lsn = await shard.perform(Look(request["id"]))
    assert isinstance(answer, Seen)
    if request["wait"] and answer.exists and answer.result is None:
        waiter = shard.wait_for(request["id"])
        try:
            result = await waiter
        finally:
            shard.stop_waiting(request["id"], waiter)
        shard.check_lease()
        return requests.seen(Seen(True, result))
    await answerable(shard, lsn)
    return requests.seen(answer)


async def _operate(shard: Shard, request: Request) -> Reply:
    # in_flight is read in the same instant as the decision: nothing is awaited between a decision's last load and its end.
    page_id = model.invocation_page(request["id"])
    await shard.load([page_id])
    event = requests.parse_operate(request, in_flight=shard.attempts.in_flight(request["id"]))
    answer, lsn = await shard.perform(event)
    assert isinstance(answer, Operated)
    await answerable(shard, lsn)
    return {"operated": answer.value}
