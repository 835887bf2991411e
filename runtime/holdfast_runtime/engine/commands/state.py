"""State commands: reads answered at once, writes visible to whatever comes behind them (service protocol §3.3)."""

from __future__ import annotations

from holdfast.protocol.messages import MessageType
from holdfast_runtime.engine import key_state, model
from holdfast_runtime.engine.commands.scope import Scope, Violation, content
from holdfast_runtime.engine.events import ReceivedFrame
from holdfast_runtime.engine.payload import VOID, success


def get_lazy(scope: Scope, frame: ReceivedFrame) -> None:
    service, key = scope.require_state(write=False)
    value = key_state.read(scope.tx, service, key, _name(frame))
    scope.append(frame.entry)
    result = VOID if value is None else success(value)
    scope.complete(MessageType.GET_LAZY_STATE_COMPLETION, frame.message.result_completion_id, result)


def get_lazy_keys(scope: Scope, frame: ReceivedFrame) -> None:
    service, key = scope.require_state(write=False)
    document = scope.tx.get(model.key_page(service, key))
    names = sorted([*document[model.STATE], *document[model.SPILLED]]) if document is not None else []
    scope.append(frame.entry)
    scope.complete(MessageType.GET_LAZY_STATE_KEYS_COMPLETION, frame.message.result_completion_id, ["k", names])


def eager(scope: Scope, frame: ReceivedFrame) -> None:
    """The answer is inside: only journalled."""
    scope.require_state(write=False)
    scope.append(frame.entry)


def set_value(scope: Scope, frame: ReceivedFrame) -> None:
    service, key = scope.require_state(write=True)
    name = _name(frame)
    key_state.write(scope.tx, service, key, name, content(frame, frame.message.value.content))
    scope.append(frame.entry)


def clear(scope: Scope, frame: ReceivedFrame) -> None:
    service, key = scope.require_state(write=True)
    name = _name(frame)
    key_state.remove(scope.tx, service, key, name)
    scope.append(frame.entry)


def clear_all(scope: Scope, frame: ReceivedFrame) -> None:
    service, key = scope.require_state(write=True)
    document = scope.tx.get(model.key_page(service, key))
    if document is not None:
        for name in [*document[model.STATE], *document[model.SPILLED]]:
            key_state.remove(scope.tx, service, key, name)
    scope.append(frame.entry)


def _name(frame: ReceivedFrame) -> str:
    try:
        return bytes(frame.message.key).decode()
    except UnicodeDecodeError as error:
        raise Violation(571, f"a state key must be UTF-8 text, found the bytes {bytes(frame.message.key)[:40]!r}") from error
