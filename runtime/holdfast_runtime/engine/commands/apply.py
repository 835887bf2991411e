"""Dispatch: which file handles which frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from holdfast.protocol.messages import MessageType as M
from holdfast_runtime.engine import journal
from holdfast_runtime.engine.commands import attach, call, output, promise, run, signal, sleep, state
from holdfast_runtime.engine.commands.scope import Scope, Violation
from holdfast_runtime.engine.events import ReceivedFrame

_HANDLERS: Final[dict[int, Callable[[Scope, ReceivedFrame], None]]] = {
    M.OUTPUT_COMMAND: output.apply,
    M.GET_LAZY_STATE_COMMAND: state.get_lazy,
    M.GET_LAZY_STATE_KEYS_COMMAND: state.get_lazy_keys,
    M.GET_EAGER_STATE_COMMAND: state.eager,
    M.GET_EAGER_STATE_KEYS_COMMAND: state.eager,
    M.SET_STATE_COMMAND: state.set_value,
    M.CLEAR_STATE_COMMAND: state.clear,
    M.CLEAR_ALL_STATE_COMMAND: state.clear_all,
    M.GET_PROMISE_COMMAND: promise.get,
    M.PEEK_PROMISE_COMMAND: promise.peek,
    M.COMPLETE_PROMISE_COMMAND: promise.complete,
    M.SLEEP_COMMAND: sleep.apply,
    M.CALL_COMMAND: call.call,
    M.ONE_WAY_CALL_COMMAND: call.one_way,
    M.SEND_SIGNAL_COMMAND: signal.send,
    M.COMPLETE_AWAKEABLE_COMMAND: signal.complete_awakeable,
    M.RUN_COMMAND: run.apply,
    M.PROPOSE_RUN_COMPLETION: run.propose,
    M.ATTACH_INVOCATION_COMMAND: attach.attach,
    M.GET_INVOCATION_OUTPUT_COMMAND: attach.get_output,
}

# What ends an invocation or completes a command: it fits in a full journal too.
_ALWAYS: Final = frozenset({M.OUTPUT_COMMAND, M.PROPOSE_RUN_COMPLETION})


def apply(scope: Scope, frame: ReceivedFrame) -> None:
    """Apply one command or proposal. Raises Violation, having changed nothing."""
    if frame.type not in _ALWAYS and journal.is_full(scope.document):
        raise Violation(500, journal.FULL, terminal=True)
    handler = _HANDLERS.get(frame.type)
    if handler is None:
        raise Violation(
            571,
            f"message type 0x{frame.type:04x} is not a command a handler may send; update the SDK or report its version",
        )
    handler(scope, frame)
