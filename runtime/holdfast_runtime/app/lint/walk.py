"""One function of a handler, looked through statement by statement; what it calls in the project is followed.

Rules: functions given to ctx.run, ctx.map and ctx.compensate are steps: what they do to the outside is what steps are for, so they are
searched only for uses of the context and of the handler's variables. Handlers that are called by handlers have their own turn.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any, Final

from holdfast_runtime.app.lint import rules
from holdfast_runtime.app.lint.names import Anyhow, Finding, Flavour, Names, is_handler
from holdfast_runtime.app.lint.project import Definition, FunctionNode, Module, bound_names, changes, dotted_name, rebound

_CALLS_BACK: Final = frozenset({"sorted", "map", "filter", "min", "max"})  # builtins that call what they are given


class Walk(Names, ast.NodeVisitor):
    """One function, statement by statement."""

    def look(self) -> None:
        """Searches the function."""
        if isinstance(self.function, ast.Lambda):
            self.visit(self.function.body)
            return
        if self.is_handler:
            self._closure_changes()
        for name in sorted(rebound(self.function) & set(self.module.values)):
            place = next(node for node in ast.walk(self.function) if isinstance(node, ast.Global) and name in node.names)
            self._report("HF109", place, name)
        for statement in self.function.body:
            self.visit(statement)
        self._never_used()

    # ---- Findings about futures

    def _not_awaited(self, node: ast.AST, why: str) -> None:
        name = self._future(node)
        if name is None:
            return
        operation = self._operation(node)
        if operation is not None and operation[1].plain:
            better = f"use `ctx.{name}(...)`, or ask the future for its `.result()`"
        elif name == "call":
            better = "write `await ctx.call(...)`, or `ctx.send(...)` when nobody needs the result"
        else:
            better = f"write `await ctx.{name}(...)`"
        self._add("HF201", node, f"`ctx.{name}(...)` {why}; {better}")

    # ---- Statements

    def visit_Expr(self, node: ast.Expr) -> None:
        effect = {"run": "is never awaited, so it is never executed", "map": "is never awaited, so it is never executed"}
        name = self._future(node.value)
        if name is not None:
            self._not_awaited(node.value, effect.get(name, "is not awaited, so the handler does not wait, and does not see a failure"))
        self.generic_visit(node)

    def visit_If(self, node: ast.If | ast.While | ast.IfExp) -> None:
        self._not_awaited(node.test, "is a future, which is neither true nor false")
        self.generic_visit(node)

    visit_While = visit_If
    visit_IfExp = visit_If

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self._used_as_value(node.values)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        self._used_as_value([node.operand])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._used_as_value([node.left, node.right])
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        self._used_as_value([node.left, *node.comparators])
        self.generic_visit(node)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        self._used_as_value([node.value])
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if self.is_handler and node.value is not None:
            self._not_awaited(node.value, "is a future, which cannot be returned to the caller")
        self.generic_visit(node)

    def _used_as_value(self, nodes: Iterable[ast.expr]) -> None:
        for node in nodes:
            self._not_awaited(node, "is a future, not its value")

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self._unordered(node.iter, node.body)
        self.generic_visit(node)

    visit_AsyncFor = visit_For

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.SetComp) -> None:
        results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        for generator in node.generators:
            self._unordered(generator.iter, results)
        self.generic_visit(node)

    visit_ListComp = visit_GeneratorExp = visit_DictComp = visit_SetComp = _comprehension

    def _unordered(self, iterated: ast.expr, body: Iterable[ast.AST]) -> None:
        """Only where the order decides what is recorded."""
        if self._is_set(iterated) and any(
            isinstance(node, ast.Name) and self._context(node.id) is not None for part in body for node in ast.walk(part)
        ):
            self._report("HF110", iterated, f"the set `{_short(iterated)}`" if isinstance(iterated, ast.Name) else "a set")

    def _is_set(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Set | ast.SetComp):
            return True
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
            return self._is_set(node.left) or self._is_set(node.right)
        if isinstance(node, ast.Call):
            return isinstance(node.func, ast.Name) and self._outside_name(node.func.id) in ("set", "frozenset")
        found = self._value(node.id) if isinstance(node, ast.Name) else None
        return found is not None and not isinstance(found[0], ast.Name) and self._is_set(found[0])

    def visit_Try(self, node: ast.Try | Any) -> None:
        for handler in node.handlers:
            kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
            names = [None if kind is None else dotted_name(kind) for kind in kinds]
            raises = any(isinstance(inner, ast.Raise) for statement in handler.body for inner in ast.walk(statement))
            if (None in names or "BaseException" in names) and not raises and self._waits(node.body):
                self._report("HF205", handler, "except BaseException" if "BaseException" in names else "except:")
        self.generic_visit(node)

    visit_TryStar = visit_Try

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            call = item.context_expr
            dotted = dotted_name(call.func) if isinstance(call, ast.Call) else None
            if dotted is not None and self._outside_name(dotted) == "contextlib.suppress" and self._waits(node.body):
                assert isinstance(call, ast.Call)
                if any(dotted_name(argument) == "BaseException" for argument in call.args):
                    self._report("HF205", call, "suppress(BaseException)")
        self.generic_visit(node)

    visit_AsyncWith = visit_With

    def _waits(self, body: list[ast.stmt]) -> bool:
        return any(isinstance(node, ast.Name) and self._context(node.id) is not None for statement in body for node in ast.walk(statement))

    def visit_FunctionDef(self, node: FunctionNode) -> None:
        """A nested function counts where it is called."""

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None: ...

    def visit_ClassDef(self, node: ast.ClassDef) -> None: ...

    def _mutation(self, node: ast.AST) -> None:
        for name in changes(node):
            if not self._is_local(name.id) and name.id in self.module.values and self._mutable(name.id):
                self._report("HF109", node, name.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._mutation(node)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._mutation(node)
        self._not_awaited(node.value, "is a future, not its value")
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._mutation(node)
        self.generic_visit(node)

    # ---- Expressions

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id in self.module.changed and not self._is_local(node.id):
            self._report("HF109", node, node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        dotted = dotted_name(node)
        if dotted is not None and self._outside_name(dotted) in rules.ENVIRONMENT:
            self._report("HF103", node, dotted)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.value, ast.Name) and self._outside_name(node.value.id) in rules.ENVIRONMENT:
            self._report("HF103", node, node.value.id)  # from os import environ
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        operation = self._operation(node)
        if operation is not None and operation[0] in rules.STEPS and node.args:
            self._step(node.args[0])
            for argument in [*node.args[1:], *(keyword.value for keyword in node.keywords)]:
                if isinstance(argument, ast.Name) and self._context(argument.id) is not None:
                    self._report("HF202", argument, argument.id)
                self.visit(argument)
            return
        self._mutation(node)
        dotted = dotted_name(node.func)
        if operation is None:
            self._called(node, dotted)
        if dotted is not None and self._outside_name(dotted) in _CALLS_BACK:
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                self._follow(argument, None)
        self.generic_visit(node)

    def _called(self, node: ast.Call, dotted: str | None) -> None:
        outside = None if dotted is None else self._outside_name(dotted)
        if outside is not None and (code := rules.call_code(outside)) is not None:
            self._report(code, node, f"{dotted}()")
            return
        if isinstance(node.func, ast.Attribute):
            method, value = node.func.attr, node.func.value
            quiet = method in rules.QUIET_METHODS or method[:1].isupper()
            if not quiet and self._made_by(value, rules.CLIENTS):
                self._report("HF104", node, f"{_short(node.func)}()")
                return
            if method in rules.PATH_METHODS and self._made_by(value, rules.PATHS):
                self._report("HF105", node, f"{_short(node.func)}()")
                return
            if method in rules.LOG_METHODS and self._made_by(value, rules.LOGGERS):
                self._report("HF301", node, f"{_short(node.func)}()")
                return
        self._follow(node.func, node)

    # ---- Steps

    def _step(self, given: ast.expr) -> None:
        """What is given to ctx.run."""
        function = self._nested(given)
        if function is not None:
            self._inside_step(function)
            return
        if isinstance(given, ast.Call):
            inner = self._definition(given.func)
            node = None if inner is None else inner.node
            if isinstance(node, ast.AsyncFunctionDef) or (isinstance(node, ast.FunctionDef) and _returns_value(node)):
                self._report("HF204", given, _short(given.func))
                return
            for part in [*given.args, *(keyword.value for keyword in given.keywords)]:  # partial(charge, ctx)
                if isinstance(part, ast.Name) and self._context(part.id) is not None:
                    self._report("HF202", part, part.id)
                elif (nested := self._nested(part)) is not None:
                    self._inside_step(nested)

    def _nested(self, node: ast.expr) -> Anyhow | None:
        if isinstance(node, ast.Lambda):
            return node
        if not isinstance(node, ast.Name):
            return None
        walk: Names | None = self
        while walk is not None:
            if node.id in walk.nested:
                return walk.nested[node.id]
            value = walk.values.get(node.id)
            if isinstance(value, ast.Lambda):
                return value
            walk = walk.outer
        return None

    def _inside_step(self, function: Anyhow) -> None:
        own = bound_names(function)
        harmless = {
            id(node.value) for node in ast.walk(function) if isinstance(node, ast.Attribute) and node.attr in rules.HARMLESS_IN_STEPS
        }
        told = False
        outside = {name for node in ast.walk(function) if isinstance(node, ast.Nonlocal) for name in node.names}
        for node in ast.walk(function):
            if isinstance(node, ast.Name) and not told and node.id not in own and id(node) not in harmless:
                if self._context(node.id) is not None:
                    self._report("HF202", node, node.id)
                    told = True
                elif isinstance(node.ctx, ast.Store) and node.id in outside:
                    self._report("HF203", node, node.id)
            for name in changes(node):
                if name.id not in own and name.id not in outside and self._is_local(name.id) and self._context(name.id) is None:
                    self._report("HF203", node, name.id)

    # ---- Following

    def _definition(self, func: ast.expr) -> Definition | None:
        dotted = dotted_name(func)
        if dotted is None:
            return None
        first, _, rest = dotted.partition(".")
        project = self.search.project
        if first in self.imports:
            return project.definition(self.imports[first] + (f".{rest}" if rest else ""))
        if first in ("self", "cls") and self.owner is not None and rest and "." not in rest:
            return project.local(self.module, f"{self.owner.name}.{rest}")
        if self._is_local(first):
            value = self._value(first)
            if rest and "." not in rest and value is not None and isinstance(value[0], ast.Call):  # gateway = Gateway()
                made = self._definition(value[0].func) if value[1] is self.module else None
                if made is not None and isinstance(made.node, ast.ClassDef):
                    return project.local(made.module, f"{made.node.name}.{rest}")
            return None
        return project.local(self.module, dotted)

    def _follow(self, func: ast.expr, call: ast.Call | None) -> None:
        nested = self._nested(func)
        if nested is not None and not isinstance(func, ast.Lambda):
            self._into(self.module, nested, self._passed(nested, call, 0), self.owner, outer=self)
            return
        found = self._definition(func)
        if found is None:
            return
        if isinstance(found.node, FunctionNode):
            if is_handler(found.node, found.module, self.search.project) is None:
                skip = int(found.owner is not None and not _is_static(found.node))
                self._into(found.module, found.node, self._passed(found.node, call, skip), found.owner)
        elif isinstance(found.node, ast.ClassDef):
            self._made(found.module, found.node, call)

    def _made(self, module: Module, made: ast.ClassDef, call: ast.Call | None) -> None:
        """An object of a class of the project: its constructor, and what its fields default to."""
        for node in made.body:
            if isinstance(node, FunctionNode) and node.name in ("__init__", "__post_init__"):
                self._into(module, node, self._passed(node, call, 1) if node.name == "__init__" else {}, made)
            if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call) and isinstance(node.target, ast.Name):
                given = {keyword.arg for keyword in call.keywords} if call is not None else set()
                for keyword in node.value.keywords:
                    if keyword.arg == "default_factory" and node.target.id not in given:
                        self._default(module, made, node.target.id, keyword.value)

    def _default(self, module: Module, made: ast.ClassDef, name: str, factory: ast.expr) -> None:
        inside = Walk(
            self.search,
            module,
            factory if isinstance(factory, ast.Lambda) else ast.Lambda(args=ast.arguments([], [], None, [], [], None, []), body=factory),
            {},
            owner=made,
            via=(*self.via, made.name),
            outer=None,
        )
        dotted = dotted_name(factory)
        outside = None if dotted is None else inside._outside_name(dotted)
        if outside is not None and (code := rules.call_code(outside)) is not None:
            inside._report(code, factory, f"{dotted}()")
        elif isinstance(factory, ast.Lambda):
            inside.look()
        else:
            inside._follow(factory, None)

    def _passed(self, function: Anyhow, call: ast.Call | None, skip: int) -> dict[str, Flavour]:
        """Which parameters get the context."""
        if call is None:
            return {}
        names = [argument.arg for argument in [*function.args.posonlyargs, *function.args.args]][skip:]
        found = {}
        for name, value in [*zip(names, call.args, strict=False), *((keyword.arg, keyword.value) for keyword in call.keywords)]:
            flavour = self._context(value.id) if isinstance(value, ast.Name) else None
            if flavour is not None and name is not None:
                found[name] = flavour
        return found

    def _into(
        self, module: Module, function: Anyhow, contexts: dict[str, Flavour], owner: ast.ClassDef | None, outer: Walk | None = None
    ) -> None:
        mark = (id(function), frozenset(contexts))
        if mark in self.search.seen:
            return
        self.search.seen.add(mark)
        name = "lambda" if isinstance(function, ast.Lambda) else function.name
        Walk(self.search, module, function, contexts, owner=owner, via=(*self.via, name), outer=outer, enclosing=self.enclosing).look()

    # ---- Whole functions

    def _closure_changes(self) -> None:
        """Variables of the functions around a handler, which all its invocations share."""
        assert isinstance(self.function, FunctionNode)
        around = {name for function in self.enclosing for name in bound_names(function)} - self.bound
        for node in ast.walk(self.function):
            if isinstance(node, ast.Nonlocal):
                for name in [name for name in node.names if name in around]:
                    self._report("HF109", node, name)
            for changed in changes(node):
                if changed.id in around:
                    self._report("HF109", node, changed.id)

    def _never_used(self) -> None:
        """`future = ctx.run(...)`, and nothing that ever mentions the future."""
        assert isinstance(self.function, FunctionNode)
        loaded = {node.id for node in ast.walk(self.function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        for node in ast.walk(self.function):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(target := node.targets[0], ast.Name):
                operation = self._operation(node.value)
                if target.id not in loaded and operation is not None and operation[0] in ("run", "map"):
                    self._not_awaited(node.value, "is never awaited, so it is never executed")

    def _mutable(self, name: str) -> bool:
        value = self.module.values[name]
        if isinstance(value, ast.Call):
            dotted = dotted_name(value.func)
            return dotted is not None and self._outside_name(dotted) in rules.MUTABLE_MAKERS
        return isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp) or value is None

    # ---- Reporting

    def _report(self, code: str, node: ast.AST, what: str) -> None:
        self._add(code, node, rules.message(code, what, plain=self.search.plain))

    def _add(self, code: str, node: Any, message: str) -> None:
        place = (self.module.path, node.lineno, node.col_offset + 1, code)
        if place in self.search.found:
            return
        by = f" (in {self.via[-1]}, reached from {self.search.handler})" if self.via else ""
        self.search.found[place] = Finding(
            self.module.path,
            node.lineno,
            node.col_offset + 1,
            code,
            message + by,
            node.end_lineno or node.lineno,
            (node.end_col_offset or node.col_offset) + 1,
            self.search.handler,
            self.via,
        )


def _returns_value(function: ast.FunctionDef) -> bool:
    """Whether its annotation says that it returns something that cannot be called."""
    if function.returns is None:
        return False
    text = ast.unparse(function.returns)
    return not any(word in text for word in ("Callable", "Any", "partial", "Awaitable", "Coroutine", "object"))


def _is_static(function: FunctionNode) -> bool:
    return any(dotted_name(decorator) == "staticmethod" for decorator in function.decorator_list)


def _short(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 40 else text[:39] + "…"
