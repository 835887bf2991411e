"""Whom a call addresses and what it carries; shared by the contexts and the clients.

Rules: a handler object knows its service and its types; a text target `service/handler` carries bytes as they are
and everything else as JSON. Plain services have no key, objects and workflows always have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from holdfast._pending import ANY_SERDE, write_any
from holdfast.protocol.machine import CallTarget
from holdfast.serde import Serde, serde_for

if TYPE_CHECKING:
    from holdfast.service import Handler


class IngressOptions(TypedDict, total=False):
    """Keyword arguments of a call from outside.

    key: of an object or workflow. idempotency_key: makes the call happen once. headers: the handler sees them.
    """

    key: str | None
    idempotency_key: str | None
    headers: Mapping[str, str] | None


class IngressSendOptions(IngressOptions, total=False):
    """delay: from now until it starts."""

    delay: timedelta | None


class EarlierCall(TypedDict, total=False):
    """Keyword arguments that say which call of a handler is meant.

    key: of the object or workflow. idempotency_key: what the call was made with; the run of a workflow has none.
    """

    key: str | None
    idempotency_key: str | None


class CallOptions(IngressOptions, total=False):
    """Keyword arguments of a call by a handler. name: of the entry in the journal."""

    name: str | None


class SendOptions(CallOptions, total=False):
    """delay: from now until it starts."""

    delay: timedelta | None


class Call(NamedTuple):
    """A call ready to be sent. `content_type` of the parameter, None when there is none."""

    target: CallTarget
    parameter: bytes
    result: Serde[Any]
    content_type: str | None


def resolve(
    target: Handler[Any, Any] | str,
    argument: Any,
    *,
    key: str | None = None,
    idempotency_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    name: str | None = None,
    returns: Any = None,
    **unknown: Any,
) -> Call:
    """Raises TypeError or ValueError for a target, key, option or argument that cannot work."""
    if unknown:
        known = "key, idempotency_key, headers; in handlers name, for sends delay, with a text target returns"
        raise TypeError(f"a call has no option {', '.join(map(repr, unknown))}; it takes {known}")
    if idempotency_key is not None and not idempotency_key:
        raise ValueError("idempotency_key is empty; give a text that identifies the request, or None")
    service, handler = _names(target)
    address = CallTarget(
        service=service,
        handler=handler,
        key=_key(target, key),
        idempotency_key=idempotency_key,
        headers=tuple((headers or {}).items()),
        name=name or "",
    )
    if isinstance(target, str):
        result = ANY_SERDE if returns is None else serde_for(returns)
        kind = "application/octet-stream" if isinstance(argument, bytes) else "application/json"
        return Call(address, write_any(argument), result, None if argument is None else kind)
    try:
        parameter = target.input.serialize(argument)
    except (TypeError, ValueError) as error:
        raise TypeError(f"argument of {target.full_name}: {error}") from error
    return Call(address, parameter, target.output, target.accept or target.input.content_type)


def delayed(
    target: Handler[Any, Any] | str, argument: Any, *, delay: timedelta | None = None, **options: Any
) -> tuple[Call, timedelta | None]:
    """The same for a one-way call, which may start later."""
    return resolve(target, argument, **options), delay


def earlier(target: Handler[Any, Any] | str, *, key: str | None = None, idempotency_key: str | None = None) -> CallTarget:
    """A call that was made before. Without idempotency_key it is the run of a workflow, of which there is one per key.

    Raises TypeError or ValueError for what cannot name one.
    """
    service, handler = _names(target)
    if idempotency_key is not None and not idempotency_key:
        raise ValueError("idempotency_key is empty; give the one that the call was made with")
    key = _key(target, key)
    main = getattr(target, "kind", None) == "WORKFLOW"
    if main and idempotency_key is not None:
        raise ValueError(f"{service}/{handler} runs once per key; drop idempotency_key={idempotency_key!r}, key= names the run")
    if idempotency_key is None and not main:
        if not isinstance(target, str):
            hint = "key= alone names the run of a workflow, by its main handler" if key else "without one, attach by what send returned"
            raise ValueError(f"{service}/{handler} can be called many times; give the idempotency_key= of the call ({hint})")
        if not key:
            raise ValueError(f"which call of '{target}'? Give its idempotency_key=, or the key= of a workflow")
    return CallTarget(service, handler, key, idempotency_key)


def _names(target: Handler[Any, Any] | str) -> tuple[str, str]:
    if not isinstance(target, str):
        if not hasattr(target, "service_name"):
            raise TypeError(f"expected a handler object or 'service/handler', found {target!r}; pass the decorated function itself")
        return target.service_name, target.name
    service, slash, handler = target.partition("/")
    if not (service and slash and handler) or "/" in handler:
        raise ValueError(f"a text target has the form 'service/handler', found '{target}'")
    return service, handler


def _key(target: Handler[Any, Any] | str, key: str | None) -> str:
    if isinstance(target, str):
        return key or ""
    keyed = target.service_type != "SERVICE"
    if keyed and not key:
        raise ValueError(f"{target.full_name} needs key=: it belongs to a {target.service_type.lower().replace('_', ' ')}")
    if key is not None and not keyed:
        raise ValueError(f"{target.full_name} belongs to a plain service, which has no keys; drop key={key!r}")
    return key or ""
