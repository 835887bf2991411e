"""One `Endpoint` for every kind of address; owns the transports and closes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast_runtime.adapters.aws_lambda import LambdaEndpoint
from holdfast_runtime.adapters.http_endpoint import HttpEndpoint
from holdfast_runtime.adapters.http_exchange import DEFAULT_LIMITS, Limits
from holdfast_runtime.adapters.in_process import InProcess
from holdfast_runtime.ports.endpoint import (
    Address,
    EndpointRequest,
    EndpointResponse,
    HttpAddress,
    InProcessAddress,
    LambdaAddress,
)
from holdfast_runtime.ports.system import Clock

if TYPE_CHECKING:
    from holdfast_runtime.adapters.request_identity import RequestIdentity  # loads `cryptography`: for those who configured a key


class Endpoints:
    """Dispatches on the address. With `identity` set, every request is signed.

    Parts may be given; by default each is made with `limits` and `external_id`, and opens nothing until used.
    headers: sent with every request that leaves this process, discovery included; a request's own win.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        http: HttpEndpoint | None = None,
        aws_lambda: LambdaEndpoint | None = None,
        in_process: InProcess | None = None,
        limits: Limits = DEFAULT_LIMITS,
        external_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._headers = dict(headers or {})
        self.http = http if http is not None else HttpEndpoint(limits=limits)
        self.aws_lambda = aws_lambda if aws_lambda is not None else LambdaEndpoint(clock, limits=limits, external_id=external_id)
        self.in_process = in_process if in_process is not None else InProcess()
        self.identity: RequestIdentity | None = None

    async def request(self, address: Address, request: EndpointRequest, *, timeout_s: float) -> EndpointResponse:
        if self._headers and not isinstance(address, InProcessAddress):
            request = replace(request, headers={**self._headers, **request.headers})
        if self.identity is not None:
            request = self.identity.signed(request)
        match address:
            case HttpAddress():
                return await self.http.request(address, request, timeout_s=timeout_s)
            case LambdaAddress():
                return await self.aws_lambda.request(address, request, timeout_s=timeout_s)
            case InProcessAddress():
                return await self.in_process.request(address, request, timeout_s=timeout_s)

    async def close(self) -> None:
        await self.http.close()
        await self.aws_lambda.close()
        await self.in_process.close()
