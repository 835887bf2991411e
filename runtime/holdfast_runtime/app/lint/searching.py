"""`holdfast lint`: which handlers there are, and what is found in them. Nothing is imported or executed.

Rules: a target is a file, a folder, or `module:services` as elsewhere; findings are ordered by place; a line with `# holdfast: ok <reason>`
is passed over, on the line of the finding or, where a statement has several, on its last.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast_runtime.app.errors import CliError, nearest_or_all
from holdfast_runtime.app.lint.names import Finding, Flavour, Search, is_handler, service_name
from holdfast_runtime.app.lint.project import SKIPPED, FunctionNode, Module, Project, Unreadable
from holdfast_runtime.app.lint.rules import TITLES
from holdfast_runtime.app.lint.walk import Walk
from holdfast_runtime.app.loading import module_name


@dataclass(frozen=True)
class Report:
    """What was looked at, and what was found. suppressed: findings that a comment takes back."""

    findings: tuple[Finding, ...]
    handlers: tuple[str, ...]
    files: int
    suppressed: int


@dataclass(frozen=True)
class _Handler:
    name: str
    service: str  # the variable that holds it
    module: Module
    function: FunctionNode
    enclosing: tuple[FunctionNode, ...]


def lint(targets: Sequence[str], folder: Path, ignore: Sequence[str] = ()) -> Report:
    """Raises CliError for a target that is not there."""
    for code in ignore:
        if code not in TITLES:
            raise CliError(f"there is no rule {code}{nearest_or_all(code, TITLES)}")
    project = Project([path for path in (folder / "src", folder) if path.is_dir()])
    found: dict[tuple[Path, int, int, str], Finding] = {}
    modules: dict[Path, Module] = {}
    handlers: list[_Handler] = []
    for target in targets:
        paths, names = _paths(target, folder, project)
        for path in paths:
            try:
                module = project.load(path)
            except Unreadable as error:
                place = (error.path, error.line, error.column, "HF002")
                found[place] = Finding(error.path, error.line, error.column, "HF002", f"not Python: {error}")
                continue
            modules[module.path] = module
            mine = [handler for handler in handlers_of(module, project) if names is None or handler.service in names]
            handlers += [handler for handler in mine if handler.function not in [other.function for other in handlers]]
    for handler in handlers:
        search(handler, project, found)
    kept = [finding for finding in found.values() if finding.code not in ignore]
    left, suppressed = _unsuppressed(kept, project)
    titles = tuple(dict.fromkeys(handler.name for handler in handlers))
    return Report(tuple(sorted(left)), titles, len(modules), suppressed)


def search(handler: _Handler, project: Project, found: dict[tuple[Path, int, int, str], Finding]) -> None:
    """Looks through one handler and all it calls."""
    arguments = handler.function.args
    first = next(iter([*arguments.posonlyargs, *arguments.args]), None)
    plain = not isinstance(handler.function, ast.AsyncFunctionDef)
    contexts = {} if first is None else {first.arg: Flavour(plain)}
    Walk(Search(project, handler.name, found, plain), handler.module, handler.function, contexts, enclosing=handler.enclosing).look()


def handlers_of(module: Module, project: Project) -> Iterator[_Handler]:
    """Those at the top of the module, and those defined inside functions."""

    def inside(nodes: Sequence[ast.AST], enclosing: tuple[FunctionNode, ...]) -> Iterator[_Handler]:
        for node in nodes:
            if isinstance(node, FunctionNode):
                known = is_handler(node, module, project)
                if known is not None:
                    variable, name = known
                    yield _Handler(f"{service_name(variable, module, project)}/{name}", variable, module, node, enclosing)
                yield from inside(node.body, (*enclosing, node))
            elif isinstance(node, ast.stmt | ast.excepthandler):
                yield from inside(list(ast.iter_child_nodes(node)), enclosing)

    return inside(module.tree.body, ())


def _paths(target: str, folder: Path, project: Project) -> tuple[list[Path], frozenset[str] | None]:
    """The files of a target, and the variables of the services that are meant; None: all."""
    path = folder / target
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.py") if _is_source(file, path))
        if not files:
            raise CliError(f"{target} holds no Python files")
        return files, None
    name, _, attribute = target.partition(":")
    if name.endswith(".py"):
        if not (folder / name).is_file():
            raise CliError(f"{name} does not exist; give a file, a folder, or a module such as handlers.orders")
        return [folder / name], _services(attribute, project.load(folder / name), project) if attribute else None
    dotted = module_name(name)
    module = project.find(dotted)
    if module is None:
        raise CliError(f"module '{dotted}' is not found from {folder}; check the spelling, or change to the folder it is imported from")
    if not attribute:
        return [module.path], None
    names = _services(attribute, module, project)
    return _files_of(names, module, project), names


def _services(attribute: str, module: Module, project: Project) -> frozenset[str]:
    """`module:orders`, or `module:services` where services is a list."""
    if attribute not in module.values and attribute not in module.imports:
        raise CliError(
            f"{module.name} has no '{attribute}'{nearest_or_all(attribute, [name for name, value in module.values.items() if value])}"
        )
    found = project.local(module, attribute)
    if found is not None and isinstance(found.node, ast.List | ast.Tuple):
        return frozenset(item.id for item in found.node.elts if isinstance(item, ast.Name))
    return frozenset({attribute})


def _files_of(names: frozenset[str], module: Module, project: Project) -> list[Path]:
    """Where the services are defined: their handlers are registered beside them, or in the module that was named."""
    paths = {module.path}
    for name in names:
        found = project.local(module, name)
        if found is not None:
            paths.add(found.module.path)
    return sorted(paths)


def _is_source(file: Path, folder: Path) -> bool:
    parts = file.relative_to(folder).parts
    return not any(part in SKIPPED or part.startswith(".") for part in parts)


def _unsuppressed(findings: list[Finding], project: Project) -> tuple[list[Finding], int]:
    left: list[Finding] = []
    suppressed = 0
    told: set[tuple[Path, int]] = set()
    for finding in findings:
        marks = {} if finding.code == "HF002" else project.load(finding.path).marks
        line = next((line for line in (finding.line, finding.end_line) if line in marks), None)
        if line is None:
            left.append(finding)
        elif marks[line]:
            suppressed += 1
        elif (finding.path, line) not in told:
            told.add((finding.path, line))
            text = f"`# holdfast: ok` needs a reason behind it, which hides: {finding.code} {finding.message}"
            left.append(
                Finding(finding.path, finding.line, finding.column, "HF001", text, finding.end_line, finding.end_column, finding.handler)
            )
    return left, suppressed
