"""The Holdfast SDK: what goes into a Lambda package.

Rules: everything public is named here, in `holdfast.sync`, `holdfast.aws`, `holdfast.asgi`, `holdfast.endpoint`
and `holdfast.testing`; nothing of the runtime is imported.
"""

from holdfast._attempt import Request, Selected
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
from holdfast.serde import Serde
from holdfast.service import Handler, Service, VirtualObject, Workflow

__all__ = [
    "Awakeable",
    "CallFuture",
    "CancelledError",
    "Context",
    "DeadlineExceededError",
    "DurableFuture",
    "DurablePromise",
    "Handler",
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
