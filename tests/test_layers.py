"""The import layers (architecture §2): arrows point at what is imported, none points back."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SDK, RUNTIME = "holdfast", "holdfast_runtime"
# A layer may import itself and the layers named here, and nothing else of the project.
MAY_IMPORT = {
    f"{SDK}.protocol": set[str](),
    f"{RUNTIME}.engine": {f"{SDK}.protocol"},
    f"{RUNTIME}.ports": {f"{SDK}.protocol", f"{RUNTIME}.engine"},
    f"{RUNTIME}.coordinator": {f"{SDK}.protocol", f"{RUNTIME}.engine", f"{RUNTIME}.ports"},
    f"{RUNTIME}.adapters": {f"{SDK}.protocol", f"{RUNTIME}.engine", f"{RUNTIME}.ports"},
    f"{RUNTIME}.surfaces": {
        f"{SDK}.protocol",
        *(f"{RUNTIME}.{layer}" for layer in ("engine", "ports", "coordinator", "adapters")),
    },
    # A serverless front door: it answers with the ingress's own code, and shares what that stands on; no coordinator, no server.
    f"{RUNTIME}.edge": {
        f"{SDK}.protocol",
        *(f"{RUNTIME}.{layer}" for layer in ("engine", "ports", "adapters")),
        *(f"{RUNTIME}.coordinator.{module}" for module in ("front", "minting", "registry_document")),
        *(f"{RUNTIME}.surfaces.{module}" for module in ("ingress", "ingress_replies", "ingress_request")),
    },
}
# Holdfast's test environment runs a coordinator in process; it is the SDK's one way to the runtime.
SDK_EXCEPTION = f"{SDK}.testing"
PURE = (f"{SDK}.protocol", f"{RUNTIME}.engine")
IMPURE_MODULES = {"asyncio", "logging", "os", "random", "secrets", "socket", "threading", "time"}
CLOCK_READS = {f"{kind}.{name}" for kind in ("datetime", "date") for name in ("now", "utcnow", "today")}


def modules() -> dict[str, Path]:
    """Every module of both packages by dotted name."""
    found = {}
    for folder in (ROOT / "sdk", ROOT / "runtime"):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import; `from a import b` gives `a.b`, so that `b` may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level or None] if node.level else []
            if node.level and is_package:
                base = module.split(".")[: len(module.split(".")) - node.level + 1]
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{prefix}.{alias.name}"


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def layer_of(module: str) -> str | None:
    return next((layer for layer in MAY_IMPORT if within(module, layer)), None)


def layer_violation(module: str, imported: str) -> str | None:
    """Why `module` must not import `imported`, or None."""
    if not within(imported, SDK) and not within(imported, RUNTIME):
        return None
    layer = layer_of(module)
    if layer is not None:
        allowed = {layer, *MAY_IMPORT[layer]}
        if any(within(imported, package) for package in allowed):
            return None
        return f"{layer} may import only {', '.join(sorted(allowed))}"
    if within(module, SDK) and not within(module, SDK_EXCEPTION) and within(imported, RUNTIME):
        return f"the SDK imports nothing of the runtime, {SDK_EXCEPTION} excepted"
    return None


def purity_violations(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    for line, imported in imports(tree, module, is_package):
        if imported.split(".")[0] in IMPURE_MODULES:
            yield line, f"imports {imported}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            read = ".".join(ast.unparse(node).split(".")[-2:])
            if read in CLOCK_READS:
                yield node.lineno, f"reads the clock with {read}"
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield node.lineno, "awaits"


def test_every_layer_imports_downwards_only() -> None:
    broken = []
    for module, path in modules().items():
        for line, imported in imports(ast.parse(path.read_text()), module, path.name == "__init__.py"):
            reason = layer_violation(module, imported)
            if reason is not None:
                broken.append(f"{path.relative_to(ROOT)}:{line} imports {imported}: {reason}")
    assert not broken, "\n".join(broken)


def test_protocol_and_engine_are_pure() -> None:
    broken = []
    for module, path in modules().items():
        if any(within(module, package) for package in PURE):
            tree = ast.parse(path.read_text())
            for line, problem in purity_violations(tree, module, path.name == "__init__.py"):
                broken.append(f"{path.relative_to(ROOT)}:{line} {problem}; pass it in, pure code has no outside")
    assert not broken, "\n".join(broken)


def test_the_walk_sees_both_packages() -> None:
    found = modules()
    assert f"{SDK}.protocol.frames" in found
    assert f"{RUNTIME}.engine" in found


@pytest.mark.parametrize(
    ("module", "imported", "allowed"),
    [
        (f"{SDK}.protocol.ids", f"{SDK}.context", False),
        (f"{SDK}.context", f"{RUNTIME}.engine", False),
        (f"{SDK}.testing", f"{RUNTIME}.app", True),
        (f"{SDK}.context", f"{SDK}.protocol.ids", True),
        (f"{RUNTIME}.engine.decide", f"{RUNTIME}.ports.log", False),
        (f"{RUNTIME}.adapters.memory", f"{RUNTIME}.coordinator.owner", False),
        (f"{RUNTIME}.coordinator.owner", f"{RUNTIME}.adapters.memory", False),
        (f"{RUNTIME}.surfaces.ingress", f"{RUNTIME}.app.config", False),
        (f"{RUNTIME}.app.cli", f"{RUNTIME}.surfaces.ingress", True),
        (f"{RUNTIME}.engine.decide", f"{SDK}.protocol", True),
    ],
)
def test_rules(module: str, imported: str, allowed: bool) -> None:
    assert (layer_violation(module, imported) is None) is allowed


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time", 1),
        ("from os import environ", 1),
        ("from datetime import datetime\ndatetime.now()", 1),
        ("import datetime\ndatetime.datetime.now()", 1),
        ("transaction.now", 0),
        ("async def wait(): ...", 1),
        ("from datetime import datetime\ndatetime.fromtimestamp(0)", 0),
        ("import struct", 0),
    ],
)
def test_impure_code_is_found(source: str, found: int) -> None:
    assert len(list(purity_violations(ast.parse(source), f"{SDK}.protocol.x", False))) == found


@pytest.mark.parametrize(
    ("source", "is_package", "expected"),
    [
        ("from . import b", False, "p.q.b"),
        ("from . import b", True, "p.q.a.b"),
        ("from ..r import b", False, "p.r.b"),
        ("import p.r", False, "p.r"),
    ],
)
def test_relative_imports_are_resolved(source: str, is_package: bool, expected: str) -> None:
    assert [name for _, name in imports(ast.parse(source), "p.q.a", is_package)] == [expected]
