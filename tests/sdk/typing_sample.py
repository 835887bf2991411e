"""Checked by mypy, never executed: what must pass, and what must not (each line with an ignore is an error without it)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, assert_type

from holdfast import (
    As,
    AsyncClient,
    CallFuture,
    Client,
    Context,
    DurableFuture,
    Handler,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedObjectContext,
    VirtualObject,
    Workflow,
    WorkflowContext,
    sync,
)


@dataclass
class Order:
    id: str
    total: int


class Gift(Order): ...


orders, carts, signup = Service("orders"), VirtualObject("carts"), Workflow("signup")
Service("s", retry=RetryPolicy(max_attempts=3), private=True, journal_retention=timedelta(days=1), metadata={"team": "shop"})
Service("s", retries=3)  # type: ignore[call-arg]
Service("s", abort_timeout=3)  # type: ignore[arg-type]


def charge(card: str, amount: int, currency: str = "EUR") -> str:
    return f"{card} {amount} {currency}"


async def ship(order: Order) -> bool:
    return order.total > 0


@carts.handler
async def add(ctx: ObjectContext, number: int) -> list[str]:
    items = await ctx.get("items", list[str], default=[])
    assert_type(items, list[str])
    assert_type(await ctx.get("items", list[str]), list[str] | None)
    ctx.set("items", items)
    return items


@carts.shared(lazy_state=True)
async def count(ctx: SharedObjectContext) -> int:
    ctx.set("count", 1)  # type: ignore[attr-defined]
    return len(await ctx.keys())


@orders.handler
def plain(ctx: sync.Context, order: Order) -> str:
    assert_type(ctx.run(charge, "card", order.total), str)
    assert_type(ctx.call(add, 1, key="k"), list[str])
    a, b = ctx.gather(ctx.start.run(charge, "card", 1), ctx.start.call(count, key="k"))
    assert_type(a, str)
    assert_type(b, int)
    assert_type(ctx.now(), datetime)
    return a


@orders.handler(name="checkout")
async def checkout(ctx: Context, order: Order) -> bool:
    assert_type(await ctx.run(charge, "card", order.total), str)
    assert_type(await ctx.run(charge, "card", order.total, "USD", name="charge"), str)
    assert_type(await ctx.run(ship, order), bool)
    await ctx.run(charge, order, 3)  # type: ignore[arg-type, call-arg]
    await ctx.run(ship)  # type: ignore[arg-type, call-arg]

    assert_type(await ctx.call(add, 3, key="k"), list[str])
    assert_type(await ctx.call(count, key="k"), int)
    assert_type(await ctx.call(plain, order), str)
    assert_type(await ctx.call("other/handler", 1, returns=int), int)
    await ctx.call(add, "three", key="k")  # type: ignore[misc]
    await ctx.call(add, key="k")  # type: ignore[arg-type]
    assert_type(await ctx.send(add, 3, key="k", delay=timedelta(1)).invocation_id, str)
    ctx.send(add, "three", key="k")  # type: ignore[misc]

    a, b = await ctx.gather(ctx.call(count, key="k"), ctx.awakeable(str))
    assert_type(a, int)
    assert_type(b, str)
    assert_type(await ctx.map(ship, [order]), list[bool])
    assert_type(ctx.signal("go", int), DurableFuture[int])
    ctx.get("state")  # type: ignore[attr-defined]
    ctx.sleep(3)  # type: ignore[arg-type]
    return True


@signup.main
async def run(ctx: WorkflowContext, order: Order) -> bool:
    promise = ctx.promise("confirmed", bool)
    await promise.resolve("yes")  # type: ignore[arg-type]
    assert_type(await promise.peek(), bool | None)
    return await promise


@orders.handler
def scale(ctx: sync.Context, factor: float) -> float:
    return factor


@orders.handler(inactivity_timeout=timedelta(seconds=3), lazy_state="no")  # type: ignore[call-overload, untyped-decorator]
async def unlikely(ctx: Context) -> None: ...


@orders.handler
async def more(ctx: Context, order: Order) -> None:
    assert_type(await ctx.call(scale, 1), float)
    assert_type(await ctx.call(plain, Gift("g", 1)), str)
    call = ctx.call(plain, order, idempotency_key="k", headers={"a": "b"})
    assert_type(call, CallFuture[str])
    assert_type(await call.invocation_id, str)
    assert_type((await ctx.select(a=call, b=ctx.sleep(timedelta(1)))).name, str)
    async for done in ctx.as_completed([ctx.run(ship, order), ctx.run(ship, order)]):
        assert_type(await done, bool)
    a, b, c, d = await ctx.gather(ctx.now(), call, ctx.run(ship, order), ctx.sleep(timedelta(1)))
    assert_type(a, datetime)
    assert_type(b, str)
    assert_type(c, bool)
    assert_type(d, None)
    assert_type(await ctx.gather(*[ctx.call(scale, n) for n in (1.0, 2.0)]), tuple[float, ...])
    assert_type(await ctx.map(charge_all, ["a", "b"], concurrency=2), list[int])
    await ctx.map(ship, ["order"])  # type: ignore[arg-type]
    assert_type(await ctx.invocation("inv_1").attach(Order), Order)
    assert_type(await ctx.invocation("inv_1").output(Order), Order | None)
    assert_type(await ctx.run(charge, "card", 1, retry=RetryPolicy(max_duration=timedelta(1)), serde=str), str)
    async with ctx.saga(), ctx.timeout(timedelta(1)):
        ctx.compensate(charge, "card", 1)
        ctx.compensate(charge, 1, "card")  # type: ignore[arg-type]
        ctx.compensate_call(add, 1, key="ann")
        ctx.compensate_call(add, "1", key="ann")  # type: ignore[misc]
        ctx.compensate_call(add, key="ann")  # type: ignore[arg-type]
        ctx.compensate_call("mail/apologize", {"to": "ann"})
    with ctx.saga():  # type: ignore[attr-defined]
        pass


@carts.handler
async def forms(ctx: ObjectContext) -> None:
    assert_type(await ctx.awakeable(As[int | None]), int | None)
    assert_type(await ctx.signal("s", As[list[Order] | None]), list[Order] | None)
    assert_type(await ctx.signal("s", As[Literal["a", "b"]]), Literal["a", "b"])
    assert_type(await ctx.get("n", As[int | str]), int | str | None)
    assert_type(await ctx.get("n", As[int | None], default=3), int | None)
    assert_type(await ctx.invocation("inv_1").output(As[int | str]), int | str | None)
    assert_type(await ctx.call("other/handler", 1, returns=As[Order | None], key="k"), Order | None)
    assert_type(await ctx.run(charge_maybe, "card", serde=As[int | None]), int | None)
    assert_type(await ctx.run(charge_maybe, "card", serde=int | None), int | None)
    # Without As the form is taken, its value untyped: a type checker knows a union as an argument only as some UnionType.
    assert_type(await ctx.awakeable(int | None), Any)
    assert_type(await ctx.signal("s", list[Order] | None), Any)
    assert_type(await ctx.get("n", int | None, default=None), Any)
    number: int | None = await ctx.call("other/handler", returns=int | None)
    ctx.awakeable(3)  # type: ignore[call-overload]
    ctx.signal("s", "int")  # type: ignore[call-overload]
    await ctx.awakeable(As[int | None]).number  # type: ignore[attr-defined]
    print(number)


@signup.handler
def sync_forms(ctx: sync.SharedWorkflowContext) -> None:
    assert_type(ctx.promise("p", As[bool | None]).result(), bool | None)
    assert_type(ctx.promise("p", bool | None).result(), Any)
    assert_type(ctx.get("n", As[int | str]), int | str | None)
    assert_type(ctx.signal("s", As[int | None]), int | None)
    assert_type(ctx.start.attach("inv_1", As[int | None]).result(), int | None)
    assert_type(ctx.call("other/handler", 1, returns=As[Order | None]), Order | None)


def charge_maybe(card: str) -> int | None:
    return len(card)


def charge_all(card: str) -> int:
    return len(card)


def outside(client: Client, order: Order) -> None:
    assert_type(client.call(add, 3, key="k"), list[str])
    assert_type(client.call("orders/checkout", order, returns=bool), bool)
    assert_type(client.attach(client.send(checkout, order)), bool)
    assert_type(client.output("inv_1", Order), Order)
    assert_type(client.call("orders/checkout", order, returns=As[bool | None]), bool | None)
    assert_type(client.attach("inv_1", As[Order | None]), Order | None)
    assert_type(client.attach(checkout, idempotency_key="i"), bool)
    assert_type(client.output(add, key="k", idempotency_key="i"), list[str])
    assert_type(client.attach("signup/run", As[Order | None], key="k"), Order | None)
    client.attach(checkout, bool, idempotency_key="i")  # type: ignore[call-overload]
    client.attach(checkout, keys="k")  # type: ignore[call-overload]
    client.call(add, "three", key="k")  # type: ignore[misc]
    client.call(add, key="k")  # type: ignore[arg-type]
    Client("http://localhost", auth="sigv4")  # type: ignore[arg-type]


async def outside_async(order: Order) -> None:
    client = AsyncClient("http://localhost:8080", auth="iam", timeout=timedelta(minutes=1))
    assert_type(await client.call(add, 3, key="k"), list[str])
    assert_type(await client.call("orders/checkout", order, returns=bool, idempotency_key="k"), bool)
    assert_type(await client.attach(await client.send(checkout, order, delay=timedelta(1))), bool)
    assert_type(await client.attach(checkout, idempotency_key="i"), bool)
    assert_type(await client.output("orders/checkout", bool, idempotency_key="i"), bool)
    await client.send(checkout, 3)  # type: ignore[misc]
    AsyncClient("http://localhost:8080", timeout=3)  # type: ignore[arg-type]
    await client.call("a/b", 3, keys="k")  # type: ignore[call-overload]


assert_type(add, Handler[int, list[str]])
assert_type(count, Handler[None, int])
assert_type(plain, Handler[Order, str])
assert_type(checkout, Handler[Order, bool])
