"""Finding the services that `holdfast dev` serves: `module`, `module:attribute` or `path/to/file.py[:attribute]`.

Rules: the current folder comes first on the import path, as with `python -m`; whatever goes wrong in the user's module is
shown with the user's own file and line.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from holdfast.service import ServiceBase
from holdfast_runtime.app.errors import CliError, misuse


def load_services(specs: Sequence[str]) -> list[ServiceBase]:
    """Each service once, in the order given. Raises CliError."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found: dict[int, ServiceBase] = {}
    for spec in specs:
        for service in _services_of(spec):
            found.setdefault(id(service), service)
    return list(found.values())


def module_name(spec: str) -> str:
    """The dotted name in `spec`. Raises CliError."""
    name = spec.partition(":")[0]
    if name.endswith(".py") or "/" in name:
        path = Path(name)
        if not path.exists():
            raise CliError(f"{name} does not exist; give a module such as handlers.orders, or the path of a file")
        relative = path.resolve().relative_to(Path.cwd()) if path.resolve().is_relative_to(Path.cwd()) else None
        if relative is None:
            raise CliError(f"{name} is outside the current folder; change to the folder it is imported from")
        name = ".".join(relative.with_suffix("").parts)
    if not all(part.isidentifier() for part in name.split(".")):
        raise misuse(f"expected MODULE or MODULE:SERVICES, such as handlers.orders or handlers.orders:services; found '{spec}'")
    return name


def folder_of(spec: str) -> Path | None:
    """The folder in which changes of the module's code show; None when the module cannot be found."""
    top = module_name(spec).split(".")[0]
    for base in (os.getcwd(), *sys.path):
        for candidate in (Path(base) / top, Path(base) / f"{top}.py"):
            if candidate.is_dir():
                return candidate
            if candidate.exists():
                return candidate.parent
    return None


def _services_of(spec: str) -> list[ServiceBase]:
    name, attribute = module_name(spec), spec.partition(":")[2]
    module = _import(name)
    if not attribute:
        services = [value for value in vars(module).values() if isinstance(value, ServiceBase)]
        if not services:
            raise CliError(f'{name} defines no service; expected `orders = Service("orders")` or the like at the top level of the module')
        return services
    if not hasattr(module, attribute):
        known = ", ".join(key for key, value in vars(module).items() if isinstance(value, ServiceBase)) or "none"
        raise CliError(f"{name} has no '{attribute}'; services defined there: {known}")
    value = getattr(module, attribute)
    items = list(value) if isinstance(value, list | tuple | set) else [value]
    for item in items:
        if not isinstance(item, ServiceBase):
            raise CliError(f"{spec} is no service but {type(item).__name__}; give a Service, VirtualObject or Workflow, or a list of them")
    return items


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise CliError(
                f"module '{name}' is not found from {os.getcwd()}; check the spelling, or change to the folder it is imported from"
            ) from error
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error
    except SystemExit as error:
        raise CliError(
            f"importing '{name}' ended the process (exit {error.code}); guard its main code with `if __name__ == \"__main__\":`"
        ) from error


def _broken(name: str, error: BaseException) -> CliError:
    return CliError(f"importing '{name}' failed{_place(error)}: {type(error).__name__}: {_message(error)}")


def _message(error: BaseException) -> str:
    return (error.msg or "invalid syntax") if isinstance(error, SyntaxError) else str(error)


def _place(error: BaseException) -> str:
    """` in file.py line 3 (`the line`)`: the innermost place outside the import machinery and installed packages, if any."""
    if isinstance(error, SyntaxError) and error.filename:
        return _at(error.filename, error.lineno or 0, (error.text or "").strip())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(Path.cwd()) and "site-packages" not in frame.filename]
    mine = [frame for frame in own if Path(frame.filename).resolve() != Path(__file__).resolve()]
    if not mine:
        return ""
    return _at(mine[-1].filename, mine[-1].lineno or 0, mine[-1].line or "")


def _at(filename: str, line: int, text: str) -> str:
    path = Path(filename)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f" in {shown} line {line}" + (f" (`{text}`)" if text else "")
