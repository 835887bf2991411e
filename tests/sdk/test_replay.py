"""Random programs under a random world: replay does not depend on where a journal is cut, nor on the flavour."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.endpoint import Endpoint
from holdfast.protocol.frames import Frame, split
from holdfast.protocol.messages import Error, Message, MessageType, OneWayCallCommand, SleepCommand, is_command, parse
from tests.sdk.programs import Instruction, objects, programs
from tests.sdk.tiny_runtime import Journal, run_to_end

PATIENT = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def played(program: list[Instruction], data: st.DataObject, *, lazy: bool) -> tuple[Journal, Endpoint]:
    """The program run to its end, events in an order that hypothesis chooses."""
    endpoint = Endpoint(objects(program))
    journal = Journal(lazy=lazy)
    awakeables = 0

    def choose(journal: Journal) -> None:
        nonlocal awakeables
        for _ in range(data.draw(st.integers(1, 3), label="events")):
            waiting = [index for index in journal.awaiting.waiting_signals if index != 1]
            options = [*journal.open, "cancel", *(f"signal {name}" for name in journal.awaiting.waiting_named_signals)]
            options += [f"awakeable {index}" for index in waiting]
            option = data.draw(st.sampled_from(options), label="event")
            match option.split():
                case ["cancel"]:
                    journal.cancel()
                case ["signal", name]:
                    journal.signal(name, b'"told"')
                case ["awakeable", index]:
                    journal.awakened(int(index), b'"awake"')
                case _:
                    journal.happen(option)
                    id = option.split()[-1]
                    journal.open.pop(f"call {id}", None)
                    journal.open.pop(f"failed call {id}", None)

    run_to_end(journal, endpoint, "/invoke/asynchronous/run", choose)
    return journal, endpoint


def commands(body: bytes) -> list[tuple[int, str]]:
    """The commands of a body, without times."""
    return [_timeless(frame) for frame in split(body) if is_command(frame.type)]


def _timeless(frame: Frame) -> tuple[int, str]:
    message: Message = parse(frame.type, frame.body)
    if isinstance(message, SleepCommand):
        message.wake_up_time = 0
    if isinstance(message, OneWayCallCommand):
        message.invoke_time = 0
    return frame.type, str(message)


def errors(body: bytes) -> list[Any]:
    """The Error messages of a body."""
    found = [parse(frame.type, frame.body) for frame in split(body) if frame.type == MessageType.ERROR]
    return [message.message for message in found if isinstance(message, Error)]


@PATIENT
@given(program=programs, data=st.data(), lazy=st.booleans())
def test_any_prefix_of_a_journal_replays_to_the_same_commands(program: list[Instruction], data: st.DataObject, lazy: bool) -> None:
    journal, endpoint = played(program, data, lazy=lazy)
    everything = [_timeless(frame) for frame in journal.commands]
    states = _states(journal)

    async def replay() -> None:
        for known in range(1, len(journal.entries) + 1):
            journal.state = states[known]
            response = await journal.attempt(endpoint, "/invoke/asynchronous/run", known)
            assert not errors(response), known
            before = sum(is_command(frame.type) for frame in journal.entries[:known])
            added = commands(response)
            assert added == everything[before : before + len(added)], known

    asyncio.run(replay())


@PATIENT
@given(program=programs, data=st.data(), lazy=st.booleans())
def test_plain_and_async_handlers_send_the_same(program: list[Instruction], data: st.DataObject, lazy: bool) -> None:
    journal, endpoint = played(program, data, lazy=lazy)
    states = _states(journal)

    async def compare() -> None:
        for known in range(1, len(journal.entries) + 1):
            journal.state = states[known]
            responses = [await journal.attempt(endpoint, f"/invoke/{flavour}/run", known) for flavour in ("asynchronous", "plain")]
            first, second = ([_timeless(frame) for frame in split(response)] for response in responses)
            assert first == second, known

    asyncio.run(compare())


def _states(journal: Journal) -> list[dict[bytes, bytes]]:
    """The object's state as it was when the journal had 0, 1, ... entries."""
    states: list[dict[bytes, bytes]] = [{}]
    shadow = Journal()
    for frame in journal.entries:
        if is_command(frame.type):
            shadow._answer(parse(frame.type, frame.body))
        states.append(dict(shadow.state))
    return states
