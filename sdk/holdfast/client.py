"""Calling handlers from outside: scripts, web back ends, other Lambda functions.

Rules: the standard library does the HTTP, so nothing is added to a package; a terminal failure of the invocation is
a TerminalError, whatever stopped the request before it is an IngressError; a request is repeated only when that
cannot do harm: reads, awakeables, workflow starts, calls with an idempotency key, and what the ingress turned away.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from email.message import Message
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, TypeAlias, TypedDict, TypeVar, Unpack, overload
from urllib.parse import quote, urlsplit

from holdfast import _calls
from holdfast._calls import EarlierCall, IngressOptions, IngressSendOptions
from holdfast._pending import ANY_SERDE, write_any
from holdfast.errors import TerminalError
from holdfast.options import RetryPolicy, milliseconds
from holdfast.protocol.machine import CallTarget
from holdfast.serde import AnyForm, As, Serde, serde_for

if TYPE_CHECKING:
    from holdfast.service import Handler

T = TypeVar("T")
In = TypeVar("In")

NOT_READY: Final = 470  # the status of an output that is not there yet
PATIENT: Final = RetryPolicy(initial_interval=timedelta(milliseconds=250), max_interval=timedelta(seconds=3), max_attempts=6)
# Turned away before anything was accepted, or lost on the way to the coordinator's own storage.
_TURNED_AWAY: Final = frozenset({429})
_UNCERTAIN: Final = frozenset({408, 425, 500, 502, 503, 504})
# The ingress takes an idempotency key in a path as it stands; one with other characters travels in a body (http-api §1.2).
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*")

Which: TypeAlias = str | CallTarget  # an invocation, by its id or by what it was made with; without idempotency key a workflow's run
Verb: TypeAlias = Literal["attach", "output"]


class IngressError(Exception):
    """The request did not become the result of an invocation: refused, not found, unreachable, not finished.

    `status`: HTTP status, 0 when there was no answer at all.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status


class Sent(NamedTuple, Generic[T]):
    """A one-way call that was accepted. Attach to it by this object, which keeps the type of its result."""

    invocation_id: str
    accepted_before: bool  # the idempotency key or the workflow was seen earlier
    result: Serde[T]


class _Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes


class ClientOptions(TypedDict, total=False):
    """Keyword arguments of both clients; what they mean stands with `Client`."""

    timeout: timedelta
    headers: Mapping[str, str] | None
    retry: RetryPolicy | None
    auth: Literal["iam"] | None
    region: str | None
    signing_name: str


class Client:
    """A blocking client of one ingress; may be shared by threads.

    `timeout`: of one request; a call lasts as long as its handler. `headers`: sent with every request, e.g. a token.
    `auth="iam"`: signs requests with the ambient AWS credentials (needs botocore, which Lambda has).
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: timedelta = timedelta(minutes=15),
        headers: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = PATIENT,
        auth: Literal["iam"] | None = None,
        region: str | None = None,
        signing_name: str = "execute-api",
    ) -> None:
        if auth not in (None, "iam"):
            raise ValueError(f"auth is 'iam' or None, found {auth!r}; other schemes travel in headers=")
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url must be http:// or https:// and a host, found '{base_url}'")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._timeout_s = milliseconds(timeout) / 1000
        self._headers = dict(headers or {})
        self._retry = retry
        self._sign = _signer(region, signing_name) if auth == "iam" else None

    @overload
    def call(self, target: Handler[None, T], /, **options: Unpack[IngressOptions]) -> T: ...
    @overload
    def call(self, target: Handler[In, T], argument: In, /, **options: Unpack[IngressOptions]) -> T: ...
    @overload
    def call(self, target: str, argument: Any = None, /, *, returns: type[As[T]], **options: Unpack[IngressOptions]) -> T: ...
    @overload
    def call(self, target: str, argument: Any = None, /, *, returns: type[T], **options: Unpack[IngressOptions]) -> T: ...
    @overload
    def call(self, target: str, argument: Any = None, /, *, returns: AnyForm | None = None, **options: Unpack[IngressOptions]) -> Any: ...
    def call(self, target: Any, argument: Any = None, /, *, returns: Any = None, **options: Unpack[IngressOptions]) -> Any:
        """Calls a handler and waits for its result."""
        call = _calls.resolve(target, argument, returns=returns, **options)
        return call.result.deserialize(self._called(call, _repeatable(target, call)))

    @overload
    def send(self, target: Handler[None, T], /, **options: Unpack[IngressSendOptions]) -> Sent[T]: ...
    @overload
    def send(self, target: Handler[In, T], argument: In, /, **options: Unpack[IngressSendOptions]) -> Sent[T]: ...
    @overload
    def send(self, target: str, argument: Any = None, /, **options: Unpack[IngressSendOptions]) -> Sent[Any]: ...
    def send(self, target: Any, argument: Any = None, /, **options: Unpack[IngressSendOptions]) -> Sent[Any]:
        """Starts a handler, now or after `delay`, without waiting for it."""
        call, delay = _calls.delayed(target, argument, **options)
        return Sent(*self._sent(call, delay, _repeatable(target, call)), call.result)

    @overload
    def attach(self, invocation: Sent[T]) -> T: ...
    @overload
    def attach(self, invocation: Handler[Any, T], **call: Unpack[EarlierCall]) -> T: ...
    @overload
    def attach(self, invocation: str, type: type[As[T]], **call: Unpack[EarlierCall]) -> T: ...
    @overload
    def attach(self, invocation: str, type: type[T], **call: Unpack[EarlierCall]) -> T: ...
    @overload
    def attach(self, invocation: str, type: AnyForm = ..., **call: Unpack[EarlierCall]) -> Any: ...
    def attach(self, invocation: Any, type: Any = Any, **call: Unpack[EarlierCall]) -> Any:
        """Waits for the result of an invocation.

        It is named by what `send` returned, by its id, or by what it was made with: a handler (or a text 'service/handler') with the `key`
        of a workflow's run, or with the `idempotency_key` of a call. Raises TerminalError, also 404 for an invocation that is not known.
        """
        which, serde = _named(invocation, type, **call)
        return serde.deserialize(self._result(which, "attach"))

    @overload
    def output(self, invocation: Sent[T]) -> T: ...
    @overload
    def output(self, invocation: Handler[Any, T], **call: Unpack[EarlierCall]) -> T: ...
    @overload
    def output(self, invocation: str, type: type[As[T]], **call: Unpack[EarlierCall]) -> T: ...
    @overload
    def output(self, invocation: str, type: type[T], **call: Unpack[EarlierCall]) -> T: ...
    @overload
    def output(self, invocation: str, type: AnyForm = ..., **call: Unpack[EarlierCall]) -> Any: ...
    def output(self, invocation: Any, type: Any = Any, **call: Unpack[EarlierCall]) -> Any:
        """The result of an ended invocation, named as for `attach`. Raises IngressError: 470 while it is not there, 404 for none."""
        which, serde = _named(invocation, type, **call)
        return serde.deserialize(self._result(which, "output"))

    def resolve_awakeable(self, id: str, value: Any = None, *, serde: Any = None) -> None:
        """Completes an awakeable."""
        self._resolved(id, _written(value, serde))

    def reject_awakeable(self, id: str, message: str) -> None:
        """Fails an awakeable: its wait raises TerminalError 500."""
        self._rejected(id, message)

    # ---- How it gets there: a test runtime has other ways

    def _called(self, call: _calls.Call, repeatable: bool) -> bytes:
        return self._post(call, _path(call.target), repeatable=repeatable).body

    def _sent(self, call: _calls.Call, delay: timedelta | None, repeatable: bool) -> tuple[str, bool]:
        """The id, and whether it was accepted before."""
        query = "" if delay is None else f"?delay={milliseconds(delay)}ms"
        accepted = json.loads(self._post(call, f"{_path(call.target)}/send{query}", repeatable=repeatable).body)
        return accepted["invocationId"], accepted["status"] == "PreviouslyAccepted"

    def _result(self, which: Which, verb: Verb) -> bytes:
        if isinstance(which, str):
            return self._request("GET", f"/restate/invocation/{quote(which, safe='')}/{verb}").body
        if which.idempotency_key is None:
            return self._request("GET", f"/restate/workflow/{which.service}/{quote(which.key, safe='')}/{verb}").body
        if _PLAIN_KEY.fullmatch(which.idempotency_key):
            return self._request("GET", f"/restate/invocation{_path(which)}/{which.idempotency_key}/{verb}").body
        wanted = {
            "target": "idempotentInvocation",
            "service": which.service,
            "key": which.key or None,
            "handler": which.handler,
            "idempotencyKey": which.idempotency_key,
        }
        return self._request("POST", f"/restate/{verb}", json.dumps(wanted).encode(), {"content-type": "application/json"}).body

    def _resolved(self, id: str, content: bytes) -> None:
        self._request("POST", f"/restate/awakeables/{quote(id)}/resolve", content, {"content-type": "application/json"})

    def _rejected(self, id: str, message: str) -> None:
        kind = {"content-type": "text/plain; charset=utf-8"}
        self._request("POST", f"/restate/awakeables/{quote(id)}/reject", message.encode(), kind)

    # ---- HTTP

    def _post(self, call: _calls.Call, path: str, *, repeatable: bool) -> _Answer:
        headers = dict(call.target.headers)
        if call.content_type is not None:
            headers.setdefault("content-type", call.content_type)
        if call.target.idempotency_key is not None:
            headers["idempotency-key"] = call.target.idempotency_key
        return self._request("POST", path, call.parameter, headers, repeatable=repeatable)

    def _request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        repeatable: bool = True,
    ) -> _Answer:
        """One request, repeated as far as that is harmless. Raises TerminalError or IngressError."""
        failures = 0
        while True:
            try:
                answer = self._once(method, self._prefix + path, body, {**self._headers, **(headers or {})})
                if answer.status < 400:
                    return answer
                problem: Exception = _problem(answer)
                repeat = _TURNED_AWAY | _UNCERTAIN if repeatable else _TURNED_AWAY
                again = isinstance(problem, IngressError) and answer.status in repeat
            except ConnectionRefusedError as error:
                problem, again = IngressError(0, f"cannot reach {self._origin}: {error}"), True
            except (OSError, http.client.HTTPException) as error:
                problem, again = IngressError(0, f"lost {self._origin}: {error or type(error).__name__}"), repeatable
            failures += 1
            if not again or self._retry is None or self._retry.exhausted(failures, 0):
                raise problem
            time.sleep(self._retry.delay_ms(failures) / 1000)

    def _once(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> _Answer:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout_s)
        if self._sign is not None:
            headers = self._sign(method, self._origin + path, headers, body)
        try:
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            return _Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


class AsyncClient:
    """The same for asyncio: each request runs in a thread of its own."""

    def __init__(self, base_url: str, **options: Unpack[ClientOptions]) -> None:
        self._client = Client(base_url, **options)

    @overload
    async def call(self, target: Handler[None, T], /, **options: Unpack[IngressOptions]) -> T: ...
    @overload
    async def call(self, target: Handler[In, T], argument: In, /, **options: Unpack[IngressOptions]) -> T: ...
    @overload
    async def call(self, target: str, argument: Any = None, /, *, returns: type[As[T]], **options: Unpack[IngressOptions]) -> T: ...
    @overload
    async def call(self, target: str, argument: Any = None, /, *, returns: type[T], **options: Unpack[IngressOptions]) -> T: ...
    @overload
    async def call(
        self, target: str, argument: Any = None, /, *, returns: AnyForm | None = None, **options: Unpack[IngressOptions]
    ) -> Any: ...
    async def call(self, target: Any, argument: Any = None, /, *, returns: Any = None, **options: Unpack[IngressOptions]) -> Any:
        """Calls a handler and waits for its result."""
        call = _calls.resolve(target, argument, returns=returns, **options)
        return call.result.deserialize(await self._called(call, _repeatable(target, call)))

    @overload
    async def send(self, target: Handler[None, T], /, **options: Unpack[IngressSendOptions]) -> Sent[T]: ...
    @overload
    async def send(self, target: Handler[In, T], argument: In, /, **options: Unpack[IngressSendOptions]) -> Sent[T]: ...
    @overload
    async def send(self, target: str, argument: Any = None, /, **options: Unpack[IngressSendOptions]) -> Sent[Any]: ...
    async def send(self, target: Any, argument: Any = None, /, **options: Unpack[IngressSendOptions]) -> Sent[Any]:
        """Starts a handler, now or after `delay`, without waiting for it."""
        call, delay = _calls.delayed(target, argument, **options)
        return Sent(*await self._sent(call, delay, _repeatable(target, call)), call.result)

    @overload
    async def attach(self, invocation: Sent[T]) -> T: ...
    @overload
    async def attach(self, invocation: Handler[Any, T], **call: Unpack[EarlierCall]) -> T: ...
    @overload
    async def attach(self, invocation: str, type: type[As[T]], **call: Unpack[EarlierCall]) -> T: ...
    @overload
    async def attach(self, invocation: str, type: type[T], **call: Unpack[EarlierCall]) -> T: ...
    @overload
    async def attach(self, invocation: str, type: AnyForm = ..., **call: Unpack[EarlierCall]) -> Any: ...
    async def attach(self, invocation: Any, type: Any = Any, **call: Unpack[EarlierCall]) -> Any:
        """Waits for the result of an invocation.

        It is named by what `send` returned, by its id, or by what it was made with: a handler (or a text 'service/handler') with the `key`
        of a workflow's run, or with the `idempotency_key` of a call. Raises TerminalError, also 404 for an invocation that is not known.
        """
        which, serde = _named(invocation, type, **call)
        return serde.deserialize(await self._result(which, "attach"))

    @overload
    async def output(self, invocation: Sent[T]) -> T: ...
    @overload
    async def output(self, invocation: Handler[Any, T], **call: Unpack[EarlierCall]) -> T: ...
    @overload
    async def output(self, invocation: str, type: type[As[T]], **call: Unpack[EarlierCall]) -> T: ...
    @overload
    async def output(self, invocation: str, type: type[T], **call: Unpack[EarlierCall]) -> T: ...
    @overload
    async def output(self, invocation: str, type: AnyForm = ..., **call: Unpack[EarlierCall]) -> Any: ...
    async def output(self, invocation: Any, type: Any = Any, **call: Unpack[EarlierCall]) -> Any:
        """The result of an ended invocation, named as for `attach`. Raises IngressError: 470 while it is not there, 404 for none."""
        which, serde = _named(invocation, type, **call)
        return serde.deserialize(await self._result(which, "output"))

    async def resolve_awakeable(self, id: str, value: Any = None, *, serde: Any = None) -> None:
        """Completes an awakeable."""
        await self._resolved(id, _written(value, serde))

    async def reject_awakeable(self, id: str, message: str) -> None:
        """Fails an awakeable: its wait raises TerminalError 500."""
        await self._rejected(id, message)

    # ---- How it gets there: a test runtime has other ways

    async def _called(self, call: _calls.Call, repeatable: bool) -> bytes:
        return await asyncio.to_thread(self._client._called, call, repeatable)

    async def _sent(self, call: _calls.Call, delay: timedelta | None, repeatable: bool) -> tuple[str, bool]:
        return await asyncio.to_thread(self._client._sent, call, delay, repeatable)

    async def _result(self, which: Which, verb: Verb) -> bytes:
        return await asyncio.to_thread(self._client._result, which, verb)

    async def _resolved(self, id: str, content: bytes) -> None:
        await asyncio.to_thread(self._client._resolved, id, content)

    async def _rejected(self, id: str, message: str) -> None:
        await asyncio.to_thread(self._client._rejected, id, message)


def _path(target: CallTarget) -> str:
    key = f"/{quote(target.key, safe='')}" if target.key else ""
    return f"/{target.service}{key}/{target.handler}"


def _repeatable(target: Handler[Any, Any] | str, call: _calls.Call) -> bool:
    """A workflow runs once per key, so starting it again is harmless."""
    return call.target.idempotency_key is not None or getattr(target, "kind", None) == "WORKFLOW"


def _named(invocation: Sent[Any] | Handler[Any, Any] | str, type: Any, **call: Unpack[EarlierCall]) -> tuple[Which, Serde[Any]]:
    """Raises TypeError or ValueError for what does not go together."""
    given = [f"{name}={value!r}" for name, value in call.items() if value is not None]
    if isinstance(invocation, Sent) or (isinstance(invocation, str) and "/" not in invocation):
        if given:
            what = "what send returned" if isinstance(invocation, Sent) else f"the id '{invocation}'"
            how = "drop it" if len(given) == 1 else "drop them"
            raise TypeError(f"{what} names its invocation alone, found {', '.join(given)} beside it; {how}, or pass a handler instead")
        if isinstance(invocation, Sent):
            return invocation.invocation_id, invocation.result
        return invocation, ANY_SERDE if type is Any else serde_for(type)
    which = _calls.earlier(invocation, **call)
    if isinstance(invocation, str):
        return which, ANY_SERDE if type is Any else serde_for(type)
    if type is not Any:
        raise TypeError(f"{invocation.full_name} says what it returns, found {type!r} beside it; drop the type")
    return which, invocation.output


def _written(value: Any, serde: Any) -> bytes:
    return write_any(value) if serde is None else serde_for(serde).serialize(value)


def _problem(answer: _Answer) -> TerminalError | IngressError:
    """What an error answer means: the outcome of the invocation, or a refusal on the way."""
    try:
        document = json.loads(answer.body)
        message = str(document["message"])
    except (ValueError, KeyError, TypeError):
        document, message = {}, answer.body.decode(errors="replace")
    if answer.headers.get("x-restate-error-source") == "invocation" or document.get("source") == "invocation":
        error = TerminalError(message, metadata=document.get("metadata"))
        error.code = document.get("code", answer.status)
        return error
    return IngressError(answer.status, message)


def _signer(region: str | None, signing_name: str) -> Any:
    """A function that adds AWS Signature Version 4 headers to a request."""
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.session import Session
    except ImportError as error:
        raise ImportError("auth='iam' needs botocore; install boto3, or call without signing") from error
    session = Session()
    credentials, where = session.get_credentials(), region or session.get_config_variable("region")
    if credentials is None or where is None:
        raise ValueError("auth='iam' needs AWS credentials and a region; configure them, or pass region=")

    def sign(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        request = AWSRequest(method=method, url=url, headers=headers, data=body)
        SigV4Auth(credentials.get_frozen_credentials(), signing_name, where).add_auth(request)
        return dict(request.headers.items())

    return sign
