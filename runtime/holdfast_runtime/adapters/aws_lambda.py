"""Endpoints that are Lambda functions: one Invoke per request, signed here, over the pooled HTTP/1.1 client.

An invoke cannot be batched, so its CPU bounds a coordinator: this takes a twelfth of what the AWS client
library takes (86 against 1,030 µs in `bench/bench_endpoints.py`). Credentials, assumed roles and the
endpoint's address still come from the library (`aws_access`).

- RequestResponse on the qualified ARN, in the ARN's region; no retries here, they are the coordinator's.
- A status other than 200 is the service's own refusal; a function error and an unreadable result are the
  function's. The latter are failed attempts. What the service refuses because of a limit or of a trouble of its
  own is none: the function was not started (`_refusal_of`). Nor is what never left this process, for want of
  credentials or of a connection.
- All or nothing: a reply cut off in the middle counts as no reply.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote

from holdfast_runtime.adapters.aws_access import AccessFailed, AwsAccess
from holdfast_runtime.adapters.http_endpoint import Origin, Target, parse_uri
from holdfast_runtime.adapters.http_exchange import DEFAULT_LIMITS, ExchangeFailed, Limits, Outgoing, TimedOut, Unconnected
from holdfast_runtime.adapters.lambda_envelope import (
    MAX_EVENT_BYTES,
    event_of,
    function_failure,
    response_of,
)
from holdfast_runtime.adapters.sigv4 import Signer
from holdfast_runtime.ports.endpoint import (
    Address,
    EndpointFailure,
    EndpointRequest,
    EndpointResponse,
    HttpVersion,
    LambdaAddress,
    Refusal,
)
from holdfast_runtime.ports.outcomes import retry_after_ms
from holdfast_runtime.ports.system import Clock

IDLE_CONNECTIONS: Final = 512  # every invoke in flight holds one, and a TLS handshake costs more than keeping it

# Errors of Invoke after which the function was not started, whatever their status: AWS Lambda, "Invoke", "Errors". Those of the first group
# come from a limit on how many run or start. In the second the function is being changed, restored or moved, or the service has failed.
_LIMITS: Final = frozenset(
    {
        "TooManyRequestsException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "EC2ThrottledException",
        "ENILimitReachedException",
        "SubnetIPAddressLimitReachedException",
        "KMSThrottlingException",
    }
)
_TROUBLES: Final = frozenset(
    {
        "ServiceException",
        "EC2UnexpectedException",
        "ResourceConflictException",
        "ResourceNotReadyException",
        "SnapStartNotReadyException",
        "SnapStartTimeoutException",
        "EFSMountConnectivityException",
        "EFSMountTimeoutException",
        "ExpiredTokenException",
    }
)
# With a status of 5xx, but waiting does not help: somebody has to mend the function or its network. A key that is disabled or denied is not
# among them: that is undone as quickly as it was done, and must not have used up the attempts of everybody who was called meanwhile.
_LASTING: Final = frozenset(
    {
        "EC2AccessDeniedException",
        "InvalidRuntimeException",
        "InvalidSecurityGroupIDException",
        "InvalidSubnetIDException",
        "InvalidZipFileException",
    }
)

_ADVICE: Final = {
    "ResourceNotFoundException": "the function, version or alias does not exist any more; register a new deployment",
    "KMSAccessDeniedException": "allow the function's role to use the key of its environment variables",
    "AccessDeniedException": "allow lambda:InvokeFunction on it to the coordinator's role",
    "RequestTooLargeException": "keep large values out of the journal or split the work into calls",
}


class _Region(NamedTuple):
    origin: Origin
    target: Target
    signer: Signer


class LambdaEndpoint:
    """`Endpoint` for LambdaAddress. `endpoint_url` replaces what environment and profile say."""

    def __init__(
        self,
        clock: Clock,
        *,
        endpoint_url: str | None = None,
        external_id: str | None = None,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._endpoint_url = endpoint_url
        self._tls = tls
        self._access = AwsAccess(clock, external_id=external_id)
        self._regions: dict[str, _Region] = {}

    async def request(self, address: Address, request: EndpointRequest, *, timeout_s: float) -> EndpointResponse:
        assert isinstance(address, LambdaAddress)
        event = event_of(address, request, self._limits)
        try:
            reply = await self._invoke(address, event, timeout_s)
        except (ExchangeFailed, AccessFailed) as failed:
            reason = failed.within(timeout_s) if isinstance(failed, TimedOut) else str(failed)
            error_code = failed.error_code if isinstance(failed, ExchangeFailed) else "RT0006"
            refusal = Refusal.TROUBLE if isinstance(failed, AccessFailed | Unconnected) else None
            raise EndpointFailure(f"error when invoking '{address.arn}': {reason}", error_code=error_code, refusal=refusal) from failed
        if reply.status != 200:
            if reply.status == 403 and address.assume_role_arn is not None:
                self._access.refused(region_of(address.arn), address.assume_role_arn)
            raise self._refusal(address, reply)
        if reply.broken is not None:
            raise EndpointFailure(f"error when invoking '{address.arn}': {reply.broken} in the middle of the response")
        if "x-amz-function-error" in reply.headers:
            raise function_failure(reply.body)
        return response_of(reply.body, self._limits)

    async def close(self) -> None:
        for region in self._regions.values():
            region.origin.close()
        self._regions.clear()

    async def _invoke(self, address: LambdaAddress, event: bytes, timeout_s: float) -> EndpointResponse:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        name = region_of(address.arn)
        try:
            async with asyncio.timeout_at(deadline):  # credentials may be due for renewal at any call
                region = await self._region(name)
                credentials = await self._access.credentials(name, address.assume_role_arn)
        except TimeoutError:
            raise AccessFailed(f"the AWS credentials could not be loaded within {timeout_s:g} s (abort timeout)") from None
        target = region.target
        path = target.base_path + _invoke_path(address.arn)
        headers = {
            "host": target.authority,
            "content-type": "application/json",
            "x-amz-invocation-type": "RequestResponse",
        }
        headers |= region.signer.sign("POST", path, headers, event, credentials, now_ms=self._clock.now_ms())
        outgoing = Outgoing(target.scheme, "POST", target.authority, path, list(headers.items()), event)
        return await region.origin.exchange(outgoing, timeout_s=max(0.0, deadline - loop.time()))

    async def _region(self, name: str) -> _Region:
        if name not in self._regions:
            target = parse_uri(self._endpoint_url or await self._access.endpoint("lambda", name))
            context = None
            if target.scheme == "https":
                context = self._tls()
                context.set_alpn_protocols(["http/1.1"])
            if name not in self._regions:  # two first requests: the one that waited less made it
                origin = Origin(target, HttpVersion.HTTP_1_1, context, idle_limit=IDLE_CONNECTIONS, limits=self._limits)
                self._regions[name] = _Region(origin, target, Signer("lambda", name))
        return self._regions[name]

    def _refusal(self, address: LambdaAddress, reply: EndpointResponse) -> EndpointFailure:
        """The service's own errors: {"Type": "User", "message": ...} and the error's name in a header."""
        kind = reply.headers.get("x-amzn-errortype", "").split(":")[0]
        try:
            detail = json.loads(reply.body)
        except ValueError:
            detail = None
        if isinstance(detail, dict):
            message = str(detail.get("message") or detail.get("Message") or "")
            reason = f" ({detail['Reason']})" if detail.get("Reason") else ""
            kind = kind or str(detail.get("__type") or "").rpartition("#")[2]
        else:
            message, reason = reply.body[:500].decode("utf-8", "replace"), ""
        advice = f"; {_ADVICE[kind]}" if kind in _ADVICE else ""
        text = f"Lambda refused to invoke '{address.arn}': status {reply.status} {kind}: {message}{reason}{advice}"
        if kind == "RequestTooLargeException" or reply.status == 413:
            return EndpointFailure(f"{text}; the limit is {MAX_EVENT_BYTES} bytes", code=413, error_code="RT0019")
        refusal = _refusal_of(reply.status, kind)
        return EndpointFailure(
            text,
            code=429 if refusal is Refusal.LIMIT else reply.status,
            error_code="RT0023" if refusal is Refusal.LIMIT or reply.status == 503 else "RT0006",
            retry_after_ms=retry_after_ms(reply, now_ms=self._clock.now_ms()) if refusal is not None else None,
            refusal=refusal,
        )


def _refusal_of(status: int, kind: str) -> Refusal | None:
    """None: a failed attempt."""
    if status == 429 or kind in _LIMITS:
        return Refusal.LIMIT
    if kind in _TROUBLES or (status >= 500 and kind not in _LASTING):
        return Refusal.TROUBLE
    return None


def region_of(arn: str) -> str:
    """The region of a function's ARN. ExchangeFailed for another text."""
    parts = arn.split(":")
    if len(parts) not in (7, 8) or parts[0] != "arn" or parts[2] != "lambda" or parts[5] != "function" or not parts[3]:
        raise ExchangeFailed("expected a qualified function ARN such as arn:aws:lambda:eu-central-1:123456789012:function:name:1", "RT0006")
    return parts[3]


@lru_cache(maxsize=4096)
def _invoke_path(arn: str) -> str:
    return f"/2015-03-31/functions/{quote(arn, safe='')}/invocations"
