"""The Holdfast SDK: what goes into a Lambda package.

Rules: everything public is named here, in `holdfast.sync`, `holdfast.aws`, `holdfast.asgi`, `holdfast.endpoint`
and `holdfast.testing`; nothing of the runtime is imported.
"""

from typing import TYPE_CHECKING, Any

from holdfast._attempt import Request
from holdfast._pending import Selected
from holdfast.errors import (
    CancelledError,
    DeadlineExceededError,
    JournalMismatchError,
    RetryableError,
    TerminalError,
)
from holdfast.options import RetryPolicy
from holdfast.serde import As, Serde
from holdfast.service import Handler, Service, VirtualObject, Workflow

if TYPE_CHECKING:
    from holdfast.client import AsyncClient, Client, IngressError
    from holdfast.context import (
        Awakeable,
        CallFuture,
        Context,
        DurableFuture,
        DurablePromise,
        InvocationHandle,
        ObjectContext,
        SendHandle,
        SharedObjectContext,
        SharedWorkflowContext,
        WorkflowContext,
    )

__all__ = [
    "As",
    "AsyncClient",
    "Awakeable",
    "CallFuture",
    "CancelledError",
    "Client",
    "Context",
    "DeadlineExceededError",
    "DurableFuture",
    "DurablePromise",
    "Handler",
    "IngressError",
    "InvocationHandle",
    "JournalMismatchError",
    "ObjectContext",
    "Request",
    "RetryPolicy",
    "RetryableError",
    "Selected",
    "SendHandle",
    "Serde",
    "Service",
    "SharedObjectContext",
    "SharedWorkflowContext",
    "TerminalError",
    "VirtualObject",
    "Workflow",
    "WorkflowContext",
    "__version__",
]

__version__ = "0.1.0"


_LATER = {
    "client": ("AsyncClient", "Client", "IngressError"),
    "context": (
        "Awakeable",
        "CallFuture",
        "Context",
        "DurableFuture",
        "DurablePromise",
        "InvocationHandle",
        "ObjectContext",
        "SendHandle",
        "SharedObjectContext",
        "SharedWorkflowContext",
        "WorkflowContext",
    ),
}


def __getattr__(name: str) -> Any:
    """The rest is loaded on first use: a cold start should not pay for a client, nor for the contexts of the other flavour."""
    for module, names in _LATER.items():
        if name in names:
            from importlib import import_module

            found = globals()[name] = getattr(import_module(f"holdfast.{module}"), name)
            return found
    raise AttributeError(f"module 'holdfast' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
