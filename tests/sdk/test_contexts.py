"""The context of plain handlers offers what that of async ones does: the same names, parameters and documented results."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_overloads

import pytest

from holdfast import AsyncClient, Client, context, sync
from holdfast.testing import TestRuntime
from holdfast.testing.sync import TestRuntime as SyncTestRuntime

CONTEXTS = ["Context", "SharedObjectContext", "ObjectContext", "SharedWorkflowContext", "WorkflowContext"]
# What is awaited in the one is returned by the other; what a handler may await again, it asks for its result there.
AWAITED = re.compile(r"^(?:DurableFuture|CallFuture|Awaitable)\[(.*)\]$")
ITERATED = {"AsyncIterator": "Iterator"}


def public(cls: type) -> dict[str, Any]:
    return {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}


def shapes(function: Any) -> Iterator[tuple[list[tuple[str, str, str, bool]], str]]:
    """Parameters and result of each way to call it. An async function to run makes no second way where none is taken."""
    for form in get_overloads(function) or [function]:
        signature = inspect.signature(form)
        parameters = [
            (name, str(kind.kind), str(kind.annotation), kind.default is inspect.Parameter.empty)
            for name, kind in signature.parameters.items()
        ]
        if not any("Awaitable[" in annotation for _, _, annotation, _ in parameters):
            yield parameters, str(signature.return_annotation)


def awaited(annotation: str) -> str:
    found = AWAITED.match(annotation)
    inner = found[1] if found else annotation
    for one, other in ITERATED.items():
        inner = inner.replace(one, other)
    return inner.replace("PromiseHandle[Any]", "PromiseHandle").replace("AsyncClient", "Client")


def without_defaults(found: list[tuple[list[tuple[str, str, str, bool]], str]]) -> list[Any]:
    return [([part[:3] for part in parameters], awaited(result)) for parameters, result in found]


@pytest.mark.parametrize("name", CONTEXTS)
def test_both_contexts_offer_the_same(name: str) -> None:
    one, other = public(getattr(context, name)), public(getattr(sync, name))
    assert one.keys() == other.keys()
    for method, function in one.items():
        if inspect.isfunction(function):
            assert without_defaults(list(shapes(function))) == without_defaults(list(shapes(other[method]))), method
            assert bool(inspect.getdoc(function)) and bool(inspect.getdoc(other[method])), method


def test_what_can_be_started_is_what_can_be_awaited() -> None:
    operations = public(sync.Starter)
    by_id = operations.pop("attach")  # there `ctx.invocation(id).attach()`
    assert [parameters[2:] for parameters, _ in shapes(by_id)] == [
        parameters[1:] for parameters, _ in shapes(context.InvocationHandle.attach)
    ]
    for method, function in operations.items():
        assert list(shapes(function)) == list(shapes(getattr(context.Context, method))), method


@pytest.mark.parametrize(("one", "other"), [(AsyncClient, Client), (TestRuntime, SyncTestRuntime)])
def test_what_has_an_async_form_has_the_same_plain_form(one: type, other: type) -> None:
    assert public(one).keys() - {"services"} == public(other).keys()
    for method, function in public(one).items():
        assert without_defaults(list(shapes(function))) == without_defaults(list(shapes(public(other)[method]))), method
