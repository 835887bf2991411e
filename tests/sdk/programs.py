"""Random handlers: a program is data, and one interpreter each for the async and the plain contexts.

An instruction is a tuple whose first item names it. What happens goes into a trace, which is the handler's result.
"""

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from holdfast import Context, ObjectContext, Selected, TerminalError, VirtualObject, sync

Instruction = tuple[Any, ...]
SECOND = timedelta(seconds=1)

_names = st.sampled_from(["a", "b"])
_waits: st.SearchStrategy[Instruction] = st.one_of(
    st.tuples(st.just("run"), st.integers(0, 9)),
    st.tuples(st.just("sleep")),
    st.tuples(st.just("call")),
    st.tuples(st.just("awakeable")),
    st.tuples(st.just("signal"), _names),
)
_nodes = st.recursive(
    _waits,
    lambda inner: st.tuples(st.sampled_from(["gather", "select"]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=5,
)
_steps: st.SearchStrategy[Instruction] = st.one_of(
    st.tuples(st.just("wait"), _nodes),
    st.tuples(st.just("set"), _names, st.integers(0, 9)),
    st.tuples(st.just("clear"), _names),
    st.tuples(st.just("get"), _names),
    st.tuples(st.just("keys")),
    st.tuples(st.just("send")),
    st.tuples(st.just("random")),
)
_flat = st.lists(_steps, max_size=4)
programs: st.SearchStrategy[list[Instruction]] = st.lists(
    st.one_of(_steps, st.tuples(st.sampled_from(["timeout", "saga", "begin"]), _flat)),
    max_size=5,
)


def objects(program: list[Instruction]) -> list[VirtualObject]:
    """The program as an async and as a plain handler."""
    asynchronous, plain = VirtualObject("asynchronous"), VirtualObject("plain")

    @asynchronous.handler(name="run")
    async def run_async(ctx: ObjectContext) -> list[Any]:
        trace: list[Any] = []
        await _steps_async(ctx, program, trace)
        return trace

    @plain.handler(name="run")
    def run_plain(ctx: sync.ObjectContext) -> list[Any]:
        trace: list[Any] = []
        _steps_plain(ctx, program, trace)
        return trace

    return [asynchronous, plain]


async def _steps_async(ctx: ObjectContext, program: list[Instruction], trace: list[Any]) -> None:
    for instruction in program:
        try:
            await _step_async(ctx, instruction, trace)
        except TerminalError as error:
            trace.append([type(error).__name__, error.code, str(error)])


async def _step_async(ctx: ObjectContext, instruction: Instruction, trace: list[Any]) -> None:
    match instruction:
        case "wait", node:
            trace.append(_plain(await _future_async(ctx, node)))
        case "begin", [*steps]:  # futures left alone
            for step in steps:
                if step[0] == "wait" and step[1][0] in ("sleep", "call", "awakeable"):
                    _future_async(ctx, step[1])
        case "timeout", [*steps]:
            async with ctx.timeout(SECOND):
                for step in steps:
                    await _step_async(ctx, step, trace)
        case "saga", [*steps]:
            async with ctx.saga():
                for number, step in enumerate(steps):
                    ctx.compensate(trace.append, f"undo {number}", name="undo")
                    await _step_async(ctx, step, trace)
        case "get", name:
            trace.append(await ctx.get(name, int))
        case "keys", *_:
            trace.append(await ctx.keys())
        case _:
            _common(ctx, instruction, trace)


def _future_async(ctx: Context, node: Instruction) -> Any:
    match node:
        case "run", number:
            return ctx.run(lambda: number, name="run")
        case "sleep", *_:
            return ctx.sleep(SECOND)
        case "call", *_:
            return ctx.call("other/handler", "x", returns=str)
        case "awakeable", *_:
            return ctx.awakeable(str)
        case "signal", name:
            return ctx.signal(name, str)
        case "gather", nodes:
            return ctx.gather(*(_future_async(ctx, inner) for inner in nodes))
        case "select", nodes:
            return ctx.select(**{f"f{index}": _future_async(ctx, inner) for index, inner in enumerate(nodes)})
    raise AssertionError(node)


def _steps_plain(ctx: sync.ObjectContext, program: list[Instruction], trace: list[Any]) -> None:
    for instruction in program:
        try:
            _step_plain(ctx, instruction, trace)
        except TerminalError as error:
            trace.append([type(error).__name__, error.code, str(error)])


def _step_plain(ctx: sync.ObjectContext, instruction: Instruction, trace: list[Any]) -> None:
    match instruction:
        case "wait", node:
            trace.append(_plain(_future_plain(ctx, node).result()))
        case "begin", [*steps]:
            for step in steps:
                if step[0] == "wait" and step[1][0] in ("sleep", "call", "awakeable"):
                    _future_plain(ctx, step[1])
        case "timeout", [*steps]:
            with ctx.timeout(SECOND):
                for step in steps:
                    _step_plain(ctx, step, trace)
        case "saga", [*steps]:
            with ctx.saga():
                for number, step in enumerate(steps):
                    ctx.compensate(trace.append, f"undo {number}", name="undo")
                    _step_plain(ctx, step, trace)
        case "get", name:
            trace.append(ctx.get(name, int))
        case "keys", *_:
            trace.append(ctx.keys())
        case _:
            _common(ctx, instruction, trace)


def _future_plain(ctx: sync.Context, node: Instruction) -> Any:
    match node:
        case "run", number:
            return ctx.start.run(lambda: number, name="run")
        case "sleep", *_:
            return ctx.start.sleep(SECOND)
        case "call", *_:
            return ctx.start.call("other/handler", "x", returns=str)
        case "awakeable", *_:
            return ctx.awakeable(str)
        case "signal", name:
            return ctx.start.signal(name, str)
        case "gather", nodes:
            return ctx.start.gather(*(_future_plain(ctx, inner) for inner in nodes))
        case "select", nodes:
            return ctx.start.select(**{f"f{index}": _future_plain(ctx, inner) for index, inner in enumerate(nodes)})
    raise AssertionError(node)


def _common(ctx: ObjectContext | sync.ObjectContext, instruction: Instruction, trace: list[Any]) -> None:
    match instruction:
        case "set", name, value:
            ctx.set(name, value)
        case "clear", name:
            ctx.clear(name)
        case "send", *_:
            ctx.send("other/handler", "x")
        case "random", *_:
            trace.append(ctx.random.randrange(1000))
        case _:
            raise AssertionError(instruction)


def _plain(value: Any) -> Any:
    """What a combinator gave, as JSON."""
    match value:
        case Selected(name, inner):
            return [name, _plain(inner)]
        case tuple():
            return [_plain(item) for item in value]
        case _:
            return value
