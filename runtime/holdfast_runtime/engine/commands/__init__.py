"""One file per command family. `apply` checks everything first and raises `Violation` before it changes anything (service protocol §3.3,
§3.4)."""

from __future__ import annotations

from holdfast_runtime.engine.commands.apply import apply
from holdfast_runtime.engine.commands.scope import Scope, Violation

__all__ = ["Scope", "Violation", "apply"]
