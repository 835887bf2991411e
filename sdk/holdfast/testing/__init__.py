"""Testing handlers: the real coordinator in memory, virtual time, failures on demand.

Rules: this package alone of the SDK imports the runtime, and the SDK never imports it; it needs `holdfast[testing]` and is no part of what
is deployed. Names are loaded on first use, because the pytest plugin beside them is loaded in every run of pytest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.testing.errors import HandlerFailed, NotDeterministic, NotKept, OutOfPatience, ReplayMismatch, Stuck
    from holdfast.testing.faults import Crash, crashes
    from holdfast.testing.journal import Journal, Step
    from holdfast.testing.mocks import Mock, MockCall
    from holdfast.testing.replay import Replayed
    from holdfast.testing.runtime import Invocation, PromiseHandle, State, TestRuntime

__all__ = [
    "Crash",
    "HandlerFailed",
    "Invocation",
    "Journal",
    "Mock",
    "MockCall",
    "NotDeterministic",
    "NotKept",
    "OutOfPatience",
    "PromiseHandle",
    "ReplayMismatch",
    "Replayed",
    "State",
    "Step",
    "Stuck",
    "TestRuntime",
    "crashes",
]

_MODULES = {
    "errors": ("HandlerFailed", "NotDeterministic", "NotKept", "OutOfPatience", "ReplayMismatch", "Stuck"),
    "faults": ("Crash", "crashes"),
    "journal": ("Journal", "Step"),
    "mocks": ("Mock", "MockCall"),
    "replay": ("Replayed",),
    "runtime": ("Invocation", "PromiseHandle", "State", "TestRuntime"),
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'holdfast.testing' has no attribute '{name}'")
    try:
        return getattr(import_module(f"holdfast.testing.{_WHERE[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("holdfast."):
            raise
        raise ModuleNotFoundError(
            f"holdfast.testing runs the real coordinator and needs what it needs: pip install 'holdfast[testing]' ({error})",
            name=error.name,
        ) from error
