"""The modules of the user's project as syntax trees, and what a name in them stands for. Nothing is imported or executed.

Rules: a module is found in the folders given, else it belongs to somebody else and only its dotted name counts; a name is followed
through imports within the project; what cannot be known for certain is unknown, never guessed.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from holdfast_runtime.app.lint.rules import MUTATORS

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_MARK: Final = re.compile(r"#\s*holdfast:\s*ok\b[\s:,-]*(.*)")
_MAX_HOPS: Final = 10  # re-exports; more is a circle
SKIPPED: Final = frozenset({"node_modules", "__pycache__", "site-packages", "venv", "build", "dist"})


@dataclass
class Module:
    """One file. imports: local name -> dotted name. values: top-level name -> what it is set to (None: more than once)."""

    path: Path
    name: str
    tree: ast.Module
    imports: dict[str, str] = field(default_factory=dict)
    functions: dict[str, FunctionNode] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    values: dict[str, ast.expr | None] = field(default_factory=dict)
    marks: dict[int, str] = field(default_factory=dict)  # line -> reason
    changed: frozenset[str] = frozenset()  # top-level names that functions of the module change


@dataclass(frozen=True)
class Definition:
    """What a dotted name of the project stands for. owner: the class of a method."""

    module: Module
    node: FunctionNode | ast.ClassDef | ast.expr
    owner: ast.ClassDef | None = None


class Unreadable(Exception):
    """A file that is no Python. line, column: from 1."""

    def __init__(self, path: Path, line: int, column: int, why: str) -> None:
        super().__init__(why)
        self.path, self.line, self.column = path, line, column


class Project:
    """roots: folders from which modules are imported."""

    def __init__(self, roots: list[Path]) -> None:
        self._roots = [root.resolve() for root in roots]
        self._loaded: dict[Path, Module] = {}

    def load(self, path: Path) -> Module:
        """Raises Unreadable."""
        path = path.resolve()
        if path not in self._loaded:
            self._loaded[path] = self._parse(path)
        return self._loaded[path]

    def find(self, dotted: str) -> Module | None:
        """The module of this name; None when it is not the project's, or cannot be read."""
        relative = Path(*dotted.split("."))
        for root in self._roots:
            for candidate in (root / relative / "__init__.py", (root / relative).with_suffix(".py")):
                if candidate.is_file() and not SKIPPED & set(candidate.relative_to(root).parts):
                    try:
                        return self.load(candidate)
                    except Unreadable:
                        return None
        return None

    def definition(self, dotted: str, hops: int = 0) -> Definition | None:
        """What `package.module.function` is; None when it is not the project's."""
        parts = dotted.split(".")
        for cut in range(len(parts) - 1, 0, -1):
            module = self.find(".".join(parts[:cut]))
            if module is not None:
                return self._member(module, parts[cut:], hops)
        return None

    def canonical(self, dotted: str, hops: int = 0) -> str:
        """The name under which the outside world knows it: imports of the project's modules are followed to their source."""
        parts = dotted.split(".")
        for cut in range(len(parts) - 1, 0, -1):
            module = self.find(".".join(parts[:cut]))
            if module is not None and parts[cut] in module.imports and hops < _MAX_HOPS:
                return self.canonical(".".join([module.imports[parts[cut]], *parts[cut + 1 :]]), hops + 1)
        return dotted

    def local(self, module: Module, dotted: str) -> Definition | None:
        """What a name within a module stands for."""
        first, *rest = dotted.split(".")
        if first in module.imports:
            return self.definition(".".join([module.imports[first], *rest]))
        return self._member(module, [first, *rest], 0)

    def _member(self, module: Module, parts: list[str], hops: int) -> Definition | None:
        first, *rest = parts
        if first in module.imports and hops < _MAX_HOPS:
            return self.definition(".".join([module.imports[first], *rest]), hops + 1)
        if first in module.functions and not rest:
            return Definition(module, module.functions[first])
        if first in module.classes:
            owner = module.classes[first]
            if not rest:
                return Definition(module, owner)
            return next((Definition(module, method, owner) for method in methods(owner) if [method.name] == rest), None)
        value = module.values.get(first)
        if value is not None and not rest:
            return Definition(module, value)
        if isinstance(value, ast.Call) and len(rest) == 1:  # gateway = Gateway(); gateway.charge
            made = dotted_name(value.func)
            owned = self.local(module, made) if made is not None and made != first else None
            if owned is not None and isinstance(owned.node, ast.ClassDef):
                return self._member(owned.module, [owned.node.name, *rest], hops + 1)
        return None

    def _parse(self, path: Path) -> Module:
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source, str(path))
        except SyntaxError as error:
            raise Unreadable(path, error.lineno or 1, error.offset or 1, error.msg) from error
        except (UnicodeDecodeError, ValueError) as error:
            raise Unreadable(path, 1, 1, str(error)) from error
        name = self._name(path)
        module = Module(path, name, tree, marks=_marks(source))
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        module.imports = imports_of(_at_import(tree), package)
        for node in _at_import(tree):
            _collect(module, node)
        module.changed = frozenset(_changed(tree, set(module.values)))
        return module

    def _name(self, path: Path) -> str:
        """By its packages; the folder that holds the outermost one is imported from."""
        base = path.parent
        while (base / "__init__.py").exists():
            base = base.parent
        holding = [root for root in self._roots if base.is_relative_to(root)]
        if base not in self._roots:
            if holding and not (path.parent / "__init__.py").exists():
                base = max(holding, key=lambda root: len(root.parts))  # a folder of modules without __init__.py
            else:
                self._roots.append(base)
        parts = path.relative_to(base).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def dotted_name(node: ast.AST) -> str | None:
    """`a.b.c` as text; None for anything but names and attributes."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def methods(owner: ast.ClassDef) -> list[FunctionNode]:
    return [node for node in owner.body if isinstance(node, FunctionNode)]


def imports_of(nodes: list[ast.stmt], package: str) -> dict[str, str]:
    """Local name -> dotted name, for the import statements among the nodes."""
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = alias.name if alias.asname else alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: max(0, len(package.split(".")) - node.level + 1)] if node.level and package else []
            base = ".".join([*above, *([node.module] if node.module else [])]) if node.level else node.module or ""
            for alias in node.names:
                found[alias.asname or alias.name] = f"{base}.{alias.name}" if base else alias.name
    return found


def changes(node: ast.AST) -> list[ast.Name]:
    """The names whose value this one node changes in place: `x.append(..)`, `x[..] = ..`, `del x[..]`, `x += ..`."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        return [node.func.value] if isinstance(node.func.value, ast.Name) else []
    if isinstance(node, ast.Assign | ast.Delete):
        targets = node.targets
    elif isinstance(node, ast.AugAssign):
        if isinstance(node.target, ast.Name):
            return [node.target]
        targets = [node.target]
    return [found for target in targets if isinstance(target, ast.Subscript) and isinstance(found := target.value, ast.Name)]


def _at_import(tree: ast.Module) -> list[ast.stmt]:
    """The statements executed at import, those in `if` and `try` included."""
    found: list[ast.stmt] = []
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        found.append(node)
        if isinstance(node, ast.If | ast.Try | ast.With):
            inner = [*node.body, *getattr(node, "orelse", []), *getattr(node, "finalbody", [])]
            waiting[:0] = inner + [statement for handler in getattr(node, "handlers", []) for statement in handler.body]
    return found


def _collect(module: Module, node: ast.stmt) -> None:
    if isinstance(node, FunctionNode):
        module.functions[node.name] = node
    elif isinstance(node, ast.ClassDef):
        module.classes[node.name] = node
    elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            values = node.value.elts if isinstance(node.value, ast.Tuple) and len(names) > 1 else [node.value]
            for name, value in zip(names, values, strict=False):
                if isinstance(name, ast.Name):
                    module.values[name.id] = None if name.id in module.values else value


def _changed(tree: ast.Module, names: set[str]) -> set[str]:
    """The top-level names that functions change, but not those that are only set once when they are first needed."""
    found: set[str] = set()
    for function in ast.walk(tree):
        if isinstance(function, FunctionNode):
            found |= {name for name in rebound(function) if name in names}
            own = bound_names(function)
            for node in ast.walk(function):
                found |= {name.id for name in changes(node) if name.id in names and name.id not in own}
    return found


def rebound(function: FunctionNode) -> set[str]:
    """Names declared global that are set otherwise than by `if x is None: x = ...`."""
    declared = {name for node in ast.walk(function) if isinstance(node, ast.Global) for name in node.names}
    guarded: set[int] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.If):
            tested = {found.id for found in ast.walk(node.test) if isinstance(found, ast.Name)}
            for inner in node.body:
                guarded |= {id(name) for name in ast.walk(inner) if isinstance(name, ast.Name) and name.id in tested}
    stored = (node for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    return {node.id for node in stored if node.id in declared and id(node) not in guarded}


def bound_names(function: FunctionNode | ast.Lambda) -> set[str]:
    """Parameters and names set in the function itself, those declared global or nonlocal excepted."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    names = {argument.arg for argument in every if argument is not None}
    outside: set[str] = set()
    waiting: list[ast.AST] = [] if isinstance(function, ast.Lambda) else list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, FunctionNode | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            outside |= set(node.names)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        waiting.extend(ast.iter_child_nodes(node))
    return names - outside


def _marks(source: str) -> dict[int, str]:
    """`# holdfast: ok <reason>` by line; in comments only, so that texts may speak of it."""
    found: dict[int, str] = {}
    if "holdfast:" not in source:
        return found
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (mark := _MARK.search(token.string)):
            found[token.start[0]] = mark.group(1).strip()
    return found
