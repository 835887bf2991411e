"""Handlers that a test puts in the place of real ones: of services that are somewhere else, or of its own.

Rules: a mock is called through the real coordinator, with the types of the handler it stands for; what it was called with is kept.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from holdfast.context import Context, ObjectContext, SharedObjectContext, SharedWorkflowContext, WorkflowContext
from holdfast.errors import TerminalError
from holdfast.service import Handler, Service, ServiceBase, VirtualObject, Workflow

In = TypeVar("In")
Out = TypeVar("Out")

_CONTEXTS: dict[tuple[str, str | None], type[Context]] = {
    ("SERVICE", None): Context,
    ("VIRTUAL_OBJECT", "EXCLUSIVE"): ObjectContext,
    ("VIRTUAL_OBJECT", "SHARED"): SharedObjectContext,
    ("WORKFLOW", "WORKFLOW"): WorkflowContext,
    ("WORKFLOW", "SHARED"): SharedWorkflowContext,
}
_SERVICES: dict[str, type[ServiceBase]] = {"SERVICE": Service, "VIRTUAL_OBJECT": VirtualObject, "WORKFLOW": Workflow}


class MockCall(NamedTuple):
    """One call of a mock. `key` is empty for plain services."""

    argument: Any
    key: str
    headers: dict[str, str]
    invocation_id: str


class Mock(Generic[In, Out]):
    """Stands for a handler. `calls`: one per invocation, in order; an attempt that is repeated counts once."""

    def __init__(self, handler: Handler[In, Out], answer: Any) -> None:
        self.handler = handler
        self._answer = answer
        self._calls: dict[str, MockCall] = {}

    @property
    def calls(self) -> list[MockCall]:
        return list(self._calls.values())

    @property
    def arguments(self) -> list[Any]:
        """What it was called with, in order."""
        return [call.argument for call in self._calls.values()]

    def assert_called_once_with(self, argument: In) -> None:
        """Exactly one invocation, with this argument."""
        if self.arguments != [argument]:
            raise AssertionError(f"expected one call of {self.handler.full_name} with {argument!r}, {self._told()}")

    def assert_not_called(self) -> None:
        if self._calls:
            raise AssertionError(f"expected no call of {self.handler.full_name}, {self._told()}")

    def _told(self) -> str:
        lines = "".join(f"\n  {number}. {call.argument!r}" for number, call in enumerate(self.calls, start=1))
        return f"found {len(self._calls)}:{lines}" if lines else "found none"

    async def __call__(self, ctx: Context, *arguments: Any) -> Any:
        request = ctx.request
        argument = arguments[0] if arguments else None
        self._calls.setdefault(request.invocation_id, MockCall(argument, request.key, dict(request.headers), request.invocation_id))
        answer = self._answer
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer = answer(*arguments)
        return await answer if inspect.isawaitable(answer) else answer


def standing_for(handler: Handler[Any, Any], function: Callable[..., Any]) -> Handler[Any, Any]:
    """`handler` with another function behind it: name, kind, types and options stay."""
    handler.resolve()
    clone: Handler[Any, Any] = copy.copy(handler)
    clone.function = function
    clone.is_async = True
    clone.context = _CONTEXTS[handler.service_type, handler.kind]
    return clone


def stub_of(handler: Handler[Any, Any]) -> ServiceBase:
    """A service that is not served here, with nothing in it but what mocks will put there."""
    stub = _SERVICES[handler.service_type](handler.service_name)
    if isinstance(stub, Workflow) and handler.kind != "WORKFLOW":

        async def main_handler(ctx: WorkflowContext) -> None:
            raise TerminalError(f"the main handler of the workflow {stub.name} is not mocked")

        stub.main(main_handler)  # a workflow must have one
    return stub


CONTROL = "holdfast_testing_promise"


def as_tested(service: ServiceBase) -> ServiceBase:
    """A copy that tests may add to. A workflow gets a hidden handler, by which a test reaches its durable promises."""
    served = copy.copy(service)
    served.handlers = dict(service.handlers)
    if not isinstance(served, Workflow):
        return served

    async def holdfast_testing_promise(ctx: SharedWorkflowContext, wish: dict[str, Any]) -> Any:
        promise = ctx.promise(wish["name"])
        match wish["do"]:
            case "resolve":
                return await promise.resolve(wish["value"])
            case "reject":
                return await promise.reject(wish["message"], code=wish["code"])
        return await promise.peek()

    served.handlers[CONTROL] = Handler(
        served, "SHARED", "SharedWorkflowContext", holdfast_testing_promise, {"name": CONTROL, "private": True}
    )
    return served
