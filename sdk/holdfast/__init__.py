"""The Holdfast SDK: what goes into a Lambda package.

Rules: everything public is named here, in `holdfast.sync`, `holdfast.aws`, `holdfast.asgi`, `holdfast.endpoint`
and `holdfast.testing`; nothing of the runtime is imported.
"""

from typing import TYPE_CHECKING, Any

from holdfast._attempt import Request
from holdfast._pending import Selected
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


def __getattr__(name: str) -> Any:
    """The clients are loaded on first use: handlers do not need them, and a cold start should not pay for HTTP."""
    if name in ("AsyncClient", "Client", "IngressError"):
        from holdfast import client

        return getattr(client, name)
    raise AttributeError(f"module 'holdfast' has no attribute '{name}'")
