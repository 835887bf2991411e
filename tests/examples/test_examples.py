"""Each project under docs/examples, as its user will check it: tests, types, lint, template. Its README is run by tests/docs.

A folder with a pyproject.toml is an example, and is found here without being named anywhere.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from holdfast_runtime.app.lint.searching import lint
from tests.infra.conftest import LINT, tool
from tests.infra.resolving import PSEUDO, Resolver, Stack, needs, order, references
from tests.sdk.test_typing import NODE, PYRIGHT

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = sorted(path.parent for path in (ROOT / "docs" / "examples").glob("*/pyproject.toml"))
SOURCES: Final = [ROOT / "sdk", ROOT / "runtime"]
DEPLOYER: Final = "arn:aws:lambda:us-east-1:123456789012:function:deploy"
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
# Checks of one kind share a worker, and with it a cache or one run of a tool.
in_one_worker = pytest.mark.xdist_group("examples")


def python(example: Path, *command: str, **more: str) -> str:
    """What it printed, run in the example's folder; the current interpreter stands in for an environment of its own."""
    strange = ("PYTEST", "HOLDFAST_", "MYPY", "AWS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    # Empty is unset: pytest compiles plugins anew in each process where it may not keep what it compiled; that takes longer than tests.
    environment = {**kept, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": paths(*SOURCES), "MYPYPATH": paths(*SOURCES), **more}
    done = subprocess.run(
        [sys.executable, *command], cwd=example, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def paths(*folders: Path) -> str:
    return os.pathsep.join(map(str, folders))


def test_every_folder_is_an_example_and_is_listed() -> None:
    folders = {path.name for path in (ROOT / "docs" / "examples").iterdir() if path.is_dir()}
    listed = re.findall(r"^\| \[([\w-]+)\]\(([\w-]+)/README.md\) ", (ROOT / "docs" / "examples" / "README.md").read_text(), re.MULTILINE)
    assert folders == {example.name for example in EXAMPLES} == {name for name, _ in listed} == {folder for _, folder in listed} != set()


# ---- The code


@each_example
def test_its_own_tests_pass(example: Path) -> None:
    strict = ["-p", "no:cacheprovider", "-p", "no:xdist", "-W", "error::pytest.PytestUnraisableExceptionWarning"]
    assert re.search(r"\d+ passed", python(example, "-m", "pytest", "-q", *strict))


@pytest.fixture(scope="session")
def type_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Begins with what a run of mypy over the project itself knows already: that saves the better part of a minute."""
    cache = tmp_path_factory.mktemp("types") / "cache"
    if (ROOT / ".mypy_cache").exists():
        shutil.copytree(ROOT / ".mypy_cache", cache)
    return cache


@in_one_worker
@each_example
def test_mypy_finds_it_clean(example: Path, type_cache: Path) -> None:
    assert "no issues found" in python(example, "-m", "mypy", "--strict", "--cache-dir", str(type_cache))


@pytest.fixture(scope="session")
def pyright(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run over all of them, each with its own sources on the path."""
    if not PYRIGHT.exists():
        pytest.skip("pyright is not installed; `python tests/conformance/setup.py` puts it into tools/")
    folder = tmp_path_factory.mktemp("pyright")
    places = {item: os.path.relpath(item, folder) for item in EXAMPLES}
    common = {"typeCheckingMode": "strict", "pythonVersion": "3.11", "include": list(places.values())}
    roots = [{"root": place, "extraPaths": [f"{place}/src", *map(str, SOURCES)]} for place in places.values()]
    (folder / "pyrightconfig.json").write_text(json.dumps({**common, "executionEnvironments": roots}))
    command = [str(NODE), str(PYRIGHT), "-p", str(folder), "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@in_one_worker
def test_pyright_finds_them_clean(pyright: dict[str, Any]) -> None:
    assert pyright["summary"]["filesAnalyzed"] == sum(len(list(item.rglob("*.py"))) for item in EXAMPLES)
    assert not [f"{item['file']}:{item['range']['start']['line'] + 1} {item['message']}" for item in pyright["generalDiagnostics"]]


@each_example
def test_nothing_in_it_escapes_replay(example: Path) -> None:
    report = lint(["src"], example)
    assert report.findings == ()
    assert report.handlers


# ---- The template


@functools.cache
def all_expanded() -> dict[Path, dict[str, Any]]:
    command = [tool("lint", "python"), ROOT / "tests/infra/expand.py", *(example / "template.yaml" for example in EXAMPLES)]
    asked = json.dumps({"it": {"DeployFunctionArn": DEPLOYER}})
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {example: json.loads(line)["it"] for example, line in zip(EXAMPLES, done.stdout.splitlines(), strict=True)}


def expanded(example: Path) -> dict[str, Any]:
    """Its template as CloudFormation gets it; what is conditional is still in it."""
    return all_expanded()[example]


@in_one_worker
def test_the_templates_are_clean(tmp_path: Path) -> None:
    """As they are written and expanded, in one run of the linter."""
    for example in EXAMPLES:
        (tmp_path / f"{example.name}.json").write_text(json.dumps(expanded(example)))
    templates = [*(example / "template.yaml" for example in EXAMPLES), *tmp_path.glob("*.json")]
    linter = [str(LINT / "cfn-lint"), "--non-zero-exit-code", "informational"]
    done = subprocess.run([*linter, *map(str, templates)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def stack(example: Path, **given: str) -> Stack:
    return Resolver(expanded(example), given).stack()


@in_one_worker
@each_example
def test_each_deployment_registers_a_version(example: Path) -> None:
    made = stack(example, DeployFunctionArn=DEPLOYER)
    assert len(order(made.resources)) == len(made.resources)
    versions, registered = made.of("AWS::Lambda::Version"), made.of("Custom::HoldfastDeployment")
    assert sorted(item["FunctionArn"]["Ref"] for item in registered.values()) == sorted(versions)
    assert {item["ServiceToken"] for item in registered.values()} == {DEPLOYER}
    assert {item["FunctionVersion"]["Fn::GetAtt"][0] for item in made.of("AWS::Lambda::Alias").values()} == versions.keys() != set()
    for name in versions:
        assert made.resources[name]["DeletionPolicy"] == "Retain", "invocations may be pinned to it"


@in_one_worker
@each_example
def test_without_a_coordinator_it_deploys_too(example: Path) -> None:
    made = stack(example)
    assert made.of("AWS::Lambda::Version")
    assert not made.of("Custom::HoldfastDeployment")
    known = made.resources.keys() | PSEUDO.keys()
    for name, resource in made.resources.items():
        assert needs(resource) <= known, name
    assert set(references(made.outputs)) <= known


@each_example
def test_what_lambda_calls_is_there(example: Path) -> None:
    named = re.findall(r"Handler: (\S+)\.(\w+)", (example / "template.yaml").read_text())
    assert named
    code = "; ".join(f"import {module}; assert callable({module}.{name})" for module, name in named)
    python(example / "src", "-c", code, AWS_DEFAULT_REGION="us-east-1")


# ---- The README


@each_example
def test_its_readme_shows_how_it_runs(example: Path) -> None:
    readme = (example / "README.md").read_text()
    assert readme.startswith(f"# {example.name}\n")
    for part in ("```mermaid", "holdfast dev ", "holdfast call ", "pytest", "sam deploy", "DeployFunctionArn"):
        assert part in readme, f"{example.name}/README.md does not show '{part}'"
