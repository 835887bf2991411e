"""Runs, values, time, chance, the request, the log."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from holdfast import TerminalError
from tests.sdk.behaviour import effects
from tests.sdk.behaviour.runtimes import Stage
from tests.sdk.behaviour.values import Colour, Everything, Facts, Line, Order, Profile, Receipt


async def test_each_step_is_executed_once(stage: Stage, tag: str) -> None:
    assert await stage.runtime.call(stage.handlers.steps, tag) == [f"done {tag}-1", f"done {tag}-2", "three"]
    assert [effects.times(f"{tag}-1"), effects.times(f"{tag}-2")] == [1, 1]


async def test_a_run_is_retried_until_it_succeeds(stage: Stage, tag: str) -> None:
    assert await stage.runtime.call(stage.handlers.retried, tag) == f"done {tag}"
    assert effects.times(tag) == 3


async def test_an_exhausted_run_is_a_terminal_error_in_the_handler(stage: Stage, tag: str) -> None:
    problems = await stage.runtime.call(stage.handlers.exhausted, tag)
    assert problems == [f"ValueError: {tag} is not ready", f"ValueError: {tag}-once is not ready"]
    assert [effects.times(tag), effects.times(f"{tag}-once")] == [3, 1]


async def test_a_terminal_error_of_a_run_is_recorded_as_it_is(stage: Stage, tag: str) -> None:
    assert await stage.runtime.call(stage.handlers.recorded, tag) == ("refused", 418, {"why": "tea"})
    assert effects.times(tag) == 1


async def test_a_retryable_error_is_tried_again(stage: Stage, tag: str) -> None:
    assert await stage.runtime.call(stage.handlers.delayed, tag) == f"done {tag}"
    assert effects.times(tag) == 3


async def test_a_serde_of_ones_own_writes_and_reads(stage: Stage) -> None:
    assert await stage.runtime.call(stage.handlers.reversed_, "abc") == ["abc", "cba"]


async def test_values_keep_their_types(stage: Stage) -> None:
    order = Order("o1", ["a", "b"])
    assert await stage.runtime.call(stage.handlers.typed, order) == Receipt(order, 2)
    assert await stage.runtime.call(stage.handlers.binary, b"\x00\xff") == b"\xff\x00"
    born = datetime(2001, 2, 3, tzinfo=UTC)
    line: Line = {"sku": "cup", "count": 2}
    value = Everything(line, Profile(name="Änn", born=born), Colour.RED, (1, "x"), None, Decimal("1.10"), b"\x00", {"a", "b"})
    assert await stage.runtime.call(stage.handlers.everything, value) == value


async def test_an_argument_with_a_default_may_be_left_out(stage: Stage) -> None:
    name = stage.handlers.defaulted.full_name
    assert await stage.runtime.call(name, returns=int) == 7
    assert await stage.runtime.call(name, 3, returns=int) == 3


async def test_bad_input_is_the_callers_error(stage: Stage) -> None:
    with pytest.raises(TerminalError, match="missing items") as failure:
        await stage.runtime.call(stage.handlers.typed.full_name, {"id": "o1"})
    assert failure.value.code == 400


async def test_a_sleep_lasts(stage: Stage, tag: str) -> None:
    assert await stage.runtime.call(stage.handlers.nap, tag) == "slept"


async def test_time_and_chance_are_the_same_in_every_attempt(stage: Stage, tag: str) -> None:
    drawn = await stage.runtime.call(stage.handlers.drawn, tag)
    assert effects.after(tag) == [" ".join(drawn)]
    assert datetime.fromisoformat(drawn[0]).tzinfo is not None
    assert (await stage.runtime.call(stage.handlers.drawn, f"{tag}-2"))[1:] != drawn[1:]


async def test_the_request_is_there(stage: Stage, tag: str) -> None:
    asked = await stage.runtime.send(stage.handlers.facts, tag, headers={"x-tag": tag})
    handler = stage.handlers.facts
    assert await asked.result() == Facts(asked.invocation_id, handler.service_name, "facts", "", 1, tag, f'"{tag}"')


async def test_the_log_is_silent_while_replaying(stage: Stage, tag: str) -> None:
    await stage.runtime.call(stage.handlers.logs, tag)
    assert effects.after(tag) == ["began", "half", "done"]


async def test_a_failing_handler_is_retried_without_repeating_its_steps(stage: Stage, tag: str) -> None:
    assert await stage.runtime.call(stage.handlers.unstable, tag) == "stable"
    assert effects.times(tag) == 1


async def test_a_terminal_error_reaches_the_caller(stage: Stage) -> None:
    with pytest.raises(TerminalError, match="never") as failure:
        await stage.runtime.call(stage.handlers.refused, "x")
    assert failure.value.code == 418


async def test_a_handler_that_may_not_go_on_is_given_up(stage: Stage, tag: str) -> None:
    with pytest.raises(TerminalError, match=f"hopeless {tag}") as failure:
        await stage.runtime.call(stage.handlers.hopeless, tag)
    assert failure.value.code == 500


async def test_a_handler_that_is_paused_goes_on_when_it_is_mended(stage: Stage, tag: str) -> None:
    started = await stage.runtime.send(stage.handlers.paused, tag)
    await stage.becomes(started, "paused")
    effects.note(f"{tag} mended")
    await started.resume()
    assert await started.result() == "mended"


def test_both_flavours_have_the_same_handlers() -> None:
    from tests.sdk.behaviour import async_services, sync_services

    def shape(module: Any) -> list[tuple[str, list[str]]]:
        return [(service.type, list(service.handlers)) for service in module.services]

    assert shape(async_services) == shape(sync_services)
