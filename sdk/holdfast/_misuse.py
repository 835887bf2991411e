"""What is refused when a handler is registered or a context is asked for what it has not, and what the text says.

Rules: a text names the place, what was expected, what was found, and what to write instead.
"""

from __future__ import annotations

import inspect
import os.path
import traceback
from collections.abc import Callable, Mapping
from types import CodeType, TracebackType
from typing import Any, Final, NoReturn

_HERE: Final = os.path.dirname(os.path.abspath(__file__))

_WRITES: Final = frozenset({"set", "clear", "clear_all"})
_STATE: Final = frozenset({"get", "keys", "key", *_WRITES})


def check_function(function: Any, where: str, decorator: str) -> None:
    """Raises TypeError for what cannot be a handler. where: the service. decorator: as it is written, e.g. `@carts.shared`."""
    if isinstance(function, str):
        raise TypeError(f"{where}: a handler is named by {decorator}(name={function!r}), found {decorator}({function!r})")
    if hasattr(function, "service_name"):
        raise TypeError(f"{where}: {function!r} is a handler already; decorate a plain function, and let both call that")
    if isinstance(function, staticmethod | classmethod) or inspect.isclass(function) or not hasattr(function, "__name__"):
        raise TypeError(f"{where}: expected a function of a module below {decorator}, found {type(function).__name__} {function!r}")
    name = function.__name__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{where}: '{name}' yields, but a handler returns one result; return a list, or send messages with ctx.send")
    parameters = list(inspect.signature(function).parameters)
    if parameters and parameters[0] in ("self", "cls"):
        raise TypeError(
            f"{where}: '{name}' is a method; handlers are functions of a module, and what they keep is state of a VirtualObject"
        )


def no_such_attribute(context: object, name: str) -> NoReturn:
    """Raises AttributeError that says which context has it."""
    kind = type(context).__name__
    text = f"{kind} has no '{name}'"
    if name in _STATE and kind == "Context":
        text += "; only handlers of virtual objects and workflows have a key and state: use a VirtualObject with an ObjectContext"
    elif name in _WRITES:
        text += "; a shared handler only reads state: write it in an exclusive handler (@....handler of an object, @....main of a workflow)"
    elif name == "promise":
        text += "; durable promises belong to workflows: use a Workflow, or ctx.awakeable"
    elif not name.startswith("_"):
        import difflib

        public = [known for known in dir(type(context)) if not known.startswith("_")]
        near = difflib.get_close_matches(name, public, n=1)
        text += f"; did you mean '{near[0]}'?" if near else f"; it has {', '.join(public)}"
    raise AttributeError(text)


def check_step(method: str, function: object) -> None:
    """Raises TypeError for a handler: executed as a step it would have no journal of its own."""
    from holdfast.service import Handler  # imports this module

    if isinstance(function, Handler):
        instead = "compensate_call" if method == "compensate" else "call"
        name = function.full_name
        raise TypeError(f"ctx.{method} executes a function, and {name} is a handler; write ctx.{instead}(handler, argument)")


def not_durable(future: object, where: str) -> NoReturn:
    """Raises TypeError for what a combinator cannot combine."""
    if isinstance(future, list | tuple | set | dict) or inspect.isgenerator(future):
        stars = "**" if where == "select" or isinstance(future, dict) else "*"
        raise TypeError(f"{where} takes each future by itself, found a {type(future).__name__}; write ctx.{where}({stars}futures)")
    raise TypeError(f"{where} combines durable futures, found {type(future).__qualname__}; wrap other work in ctx.run")


def place_of(trace: TracebackType | None) -> str | None:
    """`orders.py line 31, in checkout: await ctx.run(...)`: the innermost line that is not ours."""
    frames = [frame for frame in traceback.extract_tb(trace) if not os.path.abspath(frame.filename).startswith(_HERE + os.sep)]
    if not frames:
        return None
    last = frames[-1]
    return f"{_shown(last.filename)} line {last.lineno}, in {last.name}" + (f": {last.line}" if last.line else "")


def end_of(function: Callable[..., Any]) -> str | None:
    """`orders.py line 12, where checkout ended`."""
    code: CodeType | None = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else f"{_shown(code.co_filename)} line {code.co_firstlineno}, where {code.co_name} begins: it ended here"


def check_options(arguments: Mapping[str, Any]) -> None:
    """Raises TypeError for values of the wrong type; durations and names are checked where they are translated."""
    for name in ("private", "lazy_state"):
        value = arguments.get(name)
        if value is not None and not isinstance(value, bool):
            raise TypeError(f"{name} is True, False or None, found {value!r}")
    documentation = arguments.get("documentation")
    if documentation is not None and not isinstance(documentation, str):
        raise TypeError(f"documentation is a text, found {documentation!r}")
    metadata = arguments.get("metadata")
    if metadata is None:
        return
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) and isinstance(value, str) for key, value in metadata.items()):
        raise TypeError(f"metadata maps texts to texts, found {metadata!r}")


def check_media_type(name: str, value: Any) -> None:
    """Raises ValueError unless it looks like `type/subtype`."""
    if value is not None and (not isinstance(value, str) or value.count("/") != 1):
        raise ValueError(f"{name} is a media type such as 'application/json', found {value!r}")


def _shown(filename: str) -> str:
    folder = os.getcwd() + os.sep
    return filename[len(folder) :] if filename.startswith(folder) else filename
