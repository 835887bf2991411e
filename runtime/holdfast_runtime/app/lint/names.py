"""What the names in one function of a handler stand for: the context, things of the outside world, values, handlers.

Rules: a name that is set more than once, or otherwise than by `=` and `with ... as`, stands for nothing known.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from holdfast_runtime.app.lint import rules
from holdfast_runtime.app.lint.project import (
    FunctionNode,
    Module,
    Project,
    bound_names,
    dotted_name,
    imports_of,
)

Anyhow = FunctionNode | ast.Lambda


@dataclass(frozen=True, order=True)
class Finding:
    """line, column: from 1. via: the functions between the handler and the place."""

    path: Path
    line: int
    column: int
    code: str
    message: str
    end_line: int = 0
    end_column: int = 0
    handler: str = ""
    via: tuple[str, ...] = ()


@dataclass(frozen=True)
class Flavour:
    """plain: the handler is a `def`, its context waits by itself."""

    plain: bool


@dataclass
class Search:
    """What one handler's search shares. found: by place and code, so that a helper of many handlers is told once."""

    project: Project
    handler: str
    found: dict[tuple[Path, int, int, str], Finding]
    plain: bool = False  # a `def` handler
    seen: set[tuple[int, frozenset[str]]] = field(default_factory=set)


class Names:
    """One function's names. contexts: those under which it knows the context."""

    def __init__(
        self,
        search: Search,
        module: Module,
        function: Anyhow,
        contexts: Mapping[str, Flavour],
        *,
        owner: ast.ClassDef | None = None,
        via: tuple[str, ...] = (),
        outer: Names | None = None,
        enclosing: Iterable[FunctionNode] = (),
    ) -> None:
        self.search, self.module, self.function, self.owner, self.via, self.outer = search, module, function, owner, via, outer
        self.bound = bound_names(function)
        body: list[ast.stmt] = [] if isinstance(function, ast.Lambda) else list(function.body)
        inside = [node for statement in body for node in ast.walk(statement)]
        self.imports = imports_of(
            [node for node in inside if isinstance(node, ast.Import | ast.ImportFrom)], module.name.rpartition(".")[0]
        )
        self.nested = {node.name: node for node in inside if isinstance(node, FunctionNode)}
        self.values = _values(inside)
        self.enclosing = tuple(enclosing)
        self.contexts: dict[str, Flavour] = {}
        self.contexts = {**self._annotated(), **contexts}
        self.is_handler = not via and outer is None

    # ---- Names

    def _annotated(self) -> dict[str, Flavour]:
        """Parameters whose annotation is a context."""
        if isinstance(self.function, ast.Lambda):
            return {}
        found = {}
        for argument in [*self.function.args.posonlyargs, *self.function.args.args, *self.function.args.kwonlyargs]:
            name = self._annotation(argument)
            if name in rules.ASYNC_CONTEXTS or name in rules.PLAIN_CONTEXTS:
                found[argument.arg] = Flavour(plain=name in rules.PLAIN_CONTEXTS)
        return found

    def _annotation(self, argument: ast.arg) -> str | None:
        annotation = argument.annotation
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            try:
                annotation = ast.parse(annotation.value, mode="eval").body
            except SyntaxError:
                return None
        dotted = None if annotation is None else dotted_name(annotation)
        return None if dotted is None else self._outside_name(dotted)

    def _outside_name(self, dotted: str) -> str | None:
        """The dotted name of something imported or built in; None for variables."""
        first, _, rest = dotted.partition(".")
        if first in self.imports:
            return self.search.project.canonical(self.imports[first] + (f".{rest}" if rest else ""))
        if self._is_local(first):
            return None
        if first in self.module.imports:
            return self.search.project.canonical(self.module.imports[first] + (f".{rest}" if rest else ""))
        known = first in self.module.functions or first in self.module.values or first in self.module.classes
        return None if known else dotted

    def _is_local(self, name: str) -> bool:
        walk: Names | None = self
        while walk is not None:
            if name in walk.bound:
                return True
            walk = walk.outer
        return any(name in bound_names(function) for function in self.enclosing)

    def _value(self, name: str) -> tuple[ast.expr, Module] | None:
        """What a variable was set to, when it was set once."""
        walk: Names | None = self
        while walk is not None:
            if name in walk.bound:
                value = walk.values.get(name)
                return None if value is None else (value, walk.module)
            walk = walk.outer
        if name in self.module.values or name in self.module.imports:
            found = self.search.project.local(self.module, name)
            if found is not None and isinstance(found.node, ast.expr):
                return found.node, found.module
        return None

    def _made_by(self, node: ast.expr, makers: frozenset[str], hops: int = 0) -> bool:
        """Whether the value comes from one of these calls: directly, through a variable, or through what was made of it."""
        if hops > 5:
            return False
        if isinstance(node, ast.Call):
            dotted = dotted_name(node.func)
            if dotted is not None and self._outside_name(dotted) in makers:
                return True
            return isinstance(node.func, ast.Attribute) and self._made_by(node.func.value, makers, hops + 1)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):  # Path() / "name"
            return self._made_by(node.left, makers, hops + 1)
        if isinstance(node, ast.Await):
            return self._made_by(node.value, makers, hops + 1)
        if not isinstance(node, ast.Name):
            return False
        if not isinstance(self.function, ast.Lambda):
            for argument in [*self.function.args.posonlyargs, *self.function.args.args, *self.function.args.kwonlyargs]:
                if argument.arg == node.id:
                    return self._annotation(argument) in makers
        found = self._value(node.id)
        if found is None:
            return False
        value, module = found
        if module is self.module:
            return not (isinstance(value, ast.Name) and value.id == node.id) and self._made_by(value, makers, hops + 1)
        empty = ast.Lambda(args=ast.arguments([], [], None, [], [], None, []), body=value)
        return Names(self.search, module, empty, {})._made_by(value, makers, hops + 1)

    # ---- The context

    def _operation(self, node: ast.AST) -> tuple[str, Flavour, bool] | None:
        """`ctx.run(...)` -> ("run", flavour, started by ctx.start)."""
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            return None
        dotted = dotted_name(node.func)
        if dotted is None:
            return None
        first, *rest = dotted.split(".")
        flavour = self._context(first)
        if flavour is None:
            return None
        if len(rest) == 2 and rest[0] == "start":
            return rest[1], flavour, True
        return (rest[0], flavour, False) if len(rest) == 1 else None

    def _context(self, name: str) -> Flavour | None:
        if name in self.contexts:
            return self.contexts[name]
        return self.outer._context(name) if self.outer is not None and name not in self.bound else None

    def _future(self, node: ast.AST) -> str | None:
        """The operation, when the expression is a durable future that nobody waits for yet."""
        operation = self._operation(node)
        if operation is not None:
            name, flavour, started = operation
            return name if name in rules.FUTURES and (started or not flavour.plain) else None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):  # ctx.promise("x").resolve(True)
            inner = self._operation(node.func.value)
            if inner is not None and not inner[1].plain and node.func.attr in rules.FUTURE_METHODS.get(inner[0], ()):
                return f"{inner[0]}(...).{node.func.attr}"
        return None


def service_name(variable: str, module: Module, project: Project) -> str:
    """What `Service("orders")` is called, where it says so itself; else its variable."""
    found = project.local(module, variable)
    call = None if found is None else found.node
    name = call.args[0] if isinstance(call, ast.Call) and call.args else None
    return str(name.value) if isinstance(name, ast.Constant) else variable


def is_handler(function: FunctionNode, module: Module, project: Project) -> tuple[str, str] | None:
    """The service's variable and the handler's name, when the function is decorated with `.handler`, `.shared` or `.main`."""
    for decorator in function.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        dotted = dotted_name(decorator.func if isinstance(decorator, ast.Call) else decorator)
        service, _, kind = (dotted or "").rpartition(".")
        if kind not in ("handler", "shared", "main") or not service:
            continue
        if _is_service(service, module, project) or _first_is_context(function, module, project):
            name = next(
                (
                    keyword.value.value
                    for keyword in (call.keywords if call else ())
                    if keyword.arg == "name" and isinstance(keyword.value, ast.Constant)
                ),
                function.name,
            )
            return service, str(name)
    return None


def _is_service(name: str, module: Module, project: Project) -> bool:
    found = project.local(module, name)
    if found is None or not isinstance(found.node, ast.Call):
        return False
    dotted = dotted_name(found.node.func) or ""
    first, _, rest = dotted.partition(".")
    full = found.module.imports.get(first, first) + (f".{rest}" if rest else "")
    return project.canonical(full) in rules.SERVICES | rules.SERVICES_AT


def _first_is_context(function: FunctionNode, module: Module, project: Project) -> bool:
    contexts = Names(Search(project, "", {}), module, function, {}).contexts
    return bool(function.args.args) and function.args.args[0].arg in contexts


def _values(nodes: list[ast.AST]) -> dict[str, ast.expr | None]:
    """What local variables are set to; None when more than once or by other means than `=` and `with ... as`."""
    found: dict[str, ast.expr | None] = {}

    def put(target: ast.AST | None, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            found[target.id] = None if target.id in found else value

    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                put(target, node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            put(node.target, node.value)
        elif isinstance(node, ast.withitem):
            put(node.optional_vars, node.context_expr)
        elif isinstance(node, ast.NamedExpr):
            put(node.target, node.value)
    return found
