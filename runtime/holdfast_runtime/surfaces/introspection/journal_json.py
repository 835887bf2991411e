"""Journal entries as the JSON that tools read (http-api §4.3, `entry_json`). Content is an array of byte numbers; long content is cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from holdfast.protocol import messages
from holdfast.protocol.messages import MessageType as M

Json = dict[str, Any]

SHOWN_BYTES: Final = 64 * 1024  # of one content; as numbers they take four times as much. `raw` has all of it
_SPAN: Final = {
    "span_context": {"trace_id": [0] * 16, "span_id": [0] * 8, "trace_flags": 0, "is_remote": False, "trace_state": ""},
    "cause": None,
}


def name_of(type_: int) -> str:
    """`OneWayCall` of ONE_WAY_CALL_COMMAND."""
    if type_ not in set(M):
        return f"Unknown {type_:#06x}"
    words = M(type_).name.removesuffix("_COMMAND").removesuffix("_COMPLETION").removesuffix("_NOTIFICATION")
    return words.title().replace("_", "")


def entry_json(type_: int, raw: bytes, call: Sequence[Any] | None) -> str:
    """call: of Call and OneWayCall [invocation, service type, handler kind, completion retention ms, journal retention ms]."""
    message: Any = messages.parse(type_, raw)
    if messages.is_notification(type_):
        return _text({"Notification": _notification(type_, message)})
    body = _COMMANDS[type_](message) if type_ in _COMMANDS else _call(type_, message, call)
    name = message.entry_name if type_ == M.SEND_SIGNAL_COMMAND else message.name
    return _text({"Command": {name_of(type_): {**body, "name": name}}})


def entry_lite_json(type_: int, raw: bytes) -> str:
    """Without content."""
    message: Any = messages.parse(type_, raw)
    if messages.is_notification(type_):
        outcome = _lite(message.WhichOneof("result"))
        if type_ == M.SIGNAL_NOTIFICATION:
            signal = {"SignalIndex": message.idx} if message.WhichOneof("id") == "idx" else {"SignalName": message.name}
            return _text({"Notification": {"ty": "Signal", "id": signal, "result": outcome}})
        identity = {"CompletionId": message.completion_id}
        return _text({"Notification": {"ty": {"Completion": name_of(type_)}, "id": identity, "result": outcome}})
    body: Json = {}
    if type_ == M.OUTPUT_COMMAND:
        body["result"] = _lite(message.WhichOneof("result"))
    return _text({"Command": {name_of(type_): body}})


def event_json(event_type: str, failure: Sequence[Any] | None) -> str:
    """failure: [code, message, error code, command index, name, type, stack trace, at ms, deployment]; None: it was healthy."""
    of_failure: Json = {}
    if failure is not None:
        code, message, error_code, index, name, type_, stacktrace, _, _ = failure
        of_failure = {"error_code": code, "error_message": message, "error_stacktrace": stacktrace or ""}
        further = {
            "restate_doc_error_code": error_code,
            "related_command_index": index,
            "related_command_name": name,
            "related_command_type": name_of(type_) if type_ is not None else None,
        }
        of_failure |= {member: value for member, value in further.items() if value is not None}
    if event_type == "Paused":
        return _text({"ty": event_type} | ({"last_failure": of_failure} if of_failure else {}))
    return _text({"ty": event_type, **of_failure})


def _text(document: Json) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _numbers(content: bytes) -> list[int]:
    return list(content[:SHOWN_BYTES])


def _lite(result: str | None) -> str:
    return {"failure": "Failure", "void": "Void"}.get(result or "", "Success")


def _failure(failure: Any) -> Json:
    return {"Failure": {"code": failure.code, "message": failure.message}}


def _result(message: Any, oneof: str = "result") -> Any:
    """`R` of http-api §4.3."""
    given = message.WhichOneof(oneof)
    match given:
        case "value" | "completion_value":
            return {"Success": _numbers(getattr(message, given).content)}
        case "failure" | "completion_failure":
            return _failure(getattr(message, given))
    return "Void"


def _notification(type_: int, message: Any) -> Json:
    if type_ == M.SIGNAL_NOTIFICATION:
        signal = {"Index": message.idx} if message.WhichOneof("id") == "idx" else {"Name": message.name}
        return {"Signal": {"id": signal, "result": _result(message)}}
    body: Json = {"completion_id": message.completion_id}
    if type_ == M.CALL_INVOCATION_ID_COMPLETION:
        body["invocation_id"] = message.invocation_id
    elif type_ == M.GET_LAZY_STATE_KEYS_COMPLETION:
        body["state_keys"] = _keys(message.state_keys)
    elif type_ != M.SLEEP_COMPLETION:
        body["result"] = _result(message)
    return {"Completion": {name_of(type_): body}}


def _keys(state_keys: Any) -> list[str]:
    return [key.decode("utf-8", "replace") for key in state_keys.keys]


def _key(message: Any) -> str:
    key: str = message.key.decode("utf-8", "replace") if isinstance(message.key, bytes) else message.key
    return key


def _headers(headers: Any) -> list[Json]:
    return [{"name": header.key, "value": header.value} for header in headers]


def _call(type_: int, message: Any, call: Sequence[Any] | None) -> Json:
    invocation, service_type, kind, retention, journal_retention = call or (None, None, None, 0, 0)
    request = {
        "invocation_id": invocation,
        "invocation_target": _target(message, service_type, kind),
        "span_context": _SPAN,
        "parameter": _numbers(message.parameter),
        "headers": _headers(message.headers),
        "idempotency_key": message.idempotency_key if message.HasField("idempotency_key") else None,
        "completion_retention_duration": _duration(retention),
        "journal_retention_duration": _duration(journal_retention),
    }
    body: Json = {"request": request}
    if type_ == M.ONE_WAY_CALL_COMMAND:
        body["invoke_time"] = message.invoke_time
    body["invocation_id_completion_id"] = message.invocation_id_notification_idx
    if type_ == M.CALL_COMMAND:
        body["result_completion_id"] = message.result_completion_id
    return body


def _target(message: Any, service_type: str | None, kind: str | None) -> Json:
    named = {"name": message.service_name}
    if service_type == "SERVICE" or (service_type is None and not message.key):
        return {"Service": {**named, "handler": message.handler_name, "scope": None}}
    workflow = service_type == "WORKFLOW"
    handler_type = "Shared" if kind == "shared" else "Workflow" if workflow else "Exclusive"
    keyed = {**named, "key": message.key, "handler": message.handler_name, "handler_ty": handler_type, "scope": None}
    return {"Workflow" if workflow else "VirtualObject": keyed}


def _duration(ms: int) -> Json:
    return {"secs": ms // 1000, "nanos": ms % 1000 * 1_000_000}


def _attach_target(message: Any) -> Json:
    given = message.WhichOneof("target")
    if given == "invocation_id":
        return {"InvocationId": message.invocation_id}
    target = getattr(message, given)
    if given == "workflow_target":
        return {"Workflow": {"workflow_name": target.workflow_name, "key": target.workflow_key}}
    return {
        "IdempotentRequest": {
            "service_name": target.service_name,
            "service_key": target.service_key if target.HasField("service_key") else None,
            "service_handler": target.handler_name,
            "idempotency_key": target.idempotency_key,
        }
    }


def _completion(message: Any) -> Json:
    return {"completion_id": message.result_completion_id}


_COMMANDS: Final[Mapping[int, Callable[[Any], Json]]] = {
    M.INPUT_COMMAND: lambda m: {"headers": _headers(m.headers), "payload": _numbers(m.value.content)},
    M.OUTPUT_COMMAND: lambda m: {"result": _result(m)},
    M.GET_LAZY_STATE_COMMAND: lambda m: {"key": _key(m), **_completion(m)},
    M.SET_STATE_COMMAND: lambda m: {"key": _key(m), "value": _numbers(m.value.content)},
    M.CLEAR_STATE_COMMAND: lambda m: {"key": _key(m)},
    M.CLEAR_ALL_STATE_COMMAND: lambda m: {},
    M.GET_LAZY_STATE_KEYS_COMMAND: _completion,
    M.GET_EAGER_STATE_COMMAND: lambda m: {"key": _key(m), "result": _result(m)},
    M.GET_EAGER_STATE_KEYS_COMMAND: lambda m: {"state_keys": _keys(m.value)},
    M.GET_PROMISE_COMMAND: lambda m: {"key": _key(m), **_completion(m)},
    M.PEEK_PROMISE_COMMAND: lambda m: {"key": _key(m), **_completion(m)},
    M.COMPLETE_PROMISE_COMMAND: lambda m: {"key": _key(m), "value": _result(m, "completion"), **_completion(m)},
    M.SLEEP_COMMAND: lambda m: {"wake_up_time": m.wake_up_time, **_completion(m)},
    M.RUN_COMMAND: _completion,
    M.SEND_SIGNAL_COMMAND: lambda m: {
        "target_invocation_id": m.target_invocation_id,
        "signal_id": {"Index": m.idx} if m.WhichOneof("signal_id") == "idx" else {"Name": m.name},
        "result": _result(m),
    },
    M.ATTACH_INVOCATION_COMMAND: lambda m: {"target": _attach_target(m), **_completion(m)},
    M.GET_INVOCATION_OUTPUT_COMMAND: lambda m: {"target": _attach_target(m), **_completion(m)},
    M.COMPLETE_AWAKEABLE_COMMAND: lambda m: {"id": m.awakeable_id, "result": _result(m)},
}
