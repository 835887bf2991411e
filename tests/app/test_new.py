"""`holdfast new` makes a project that passes its own tests, types, lint and template check at once."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_runtime.app.about import VERSION
from holdfast_runtime.app.creating import TEMPLATES, create
from holdfast_runtime.app.errors import CliError
from tests.app.toolbox import cli

ROOT = Path(__file__).parents[2]
SOURCES = os.pathsep.join(str(ROOT / folder) for folder in ("sdk", "runtime"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("new")
    done = cli("new", "web-shop", cwd=folder)
    assert done.code == 0, done.err
    assert "web-shop/src/web_shop/services.py" in done.out
    assert "cd web-shop" in done.out
    yield folder / "web-shop"


def run(project: Path, *command: str) -> str:
    """What it printed; the current interpreter stands in for the project's own environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "HOLDFAST_", "MYPY"))}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env={**environment, "PYTHONPATH": SOURCES, "MYPYPATH": SOURCES},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_its_tests_pass_with_every_wait_replayed(project: Path) -> None:
    assert re.search(
        r"\d+ passed", run(project, "pytest", "-p", "no:cacheprovider", "-W", "error::pytest.PytestUnraisableExceptionWarning")
    )


def test_it_is_typed(project: Path, tmp_path: Path) -> None:
    assert "no issues found" in run(project, "mypy", "--cache-dir", str(tmp_path))


def test_it_is_clean_and_formatted(project: Path) -> None:
    run(project, "ruff", "check", "--no-cache", ".")
    run(project, "ruff", "format", "--no-cache", "--check", ".")
    assert "All checks passed: 4 handlers" in run(project, "holdfast_runtime.app.cli", "lint", "src")


def test_its_template_is_clean(project: Path) -> None:
    linter = ROOT / ".venv-lint" / "bin" / "cfn-lint"
    if not linter.exists():
        pytest.skip("cfn-lint is not installed; scripts/install_tools.sh lint installs it")
    done = subprocess.run(
        [linter, "--non-zero-exit-code", "informational", "template.yaml"], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_what_lambda_calls_is_there(project: Path) -> None:
    named = re.search(r"Handler: (\S+)\.(\w+)", (project / "template.yaml").read_text())
    assert named is not None
    code = f"import {named[1]} as module; assert callable(module.{named[2]})"
    done = subprocess.run([sys.executable, "-c", code], cwd=project / "src", env={**os.environ, "PYTHONPATH": SOURCES}, check=False)
    assert done.returncode == 0


def test_its_server_keeps_its_store_out_of_what_goes_to_lambda(project: Path) -> None:
    assert "CodeUri: src" in (project / "template.yaml").read_text()
    (command,) = re.findall(r".*holdfast dev .*", (project / "README.md").read_text())
    assert command.startswith("PYTHONPATH=src holdfast dev web_shop.services "), "`dev` keeps .holdfast in the folder that it runs in"


def test_it_asks_for_versions_that_keep_what_this_one_promises(project: Path) -> None:
    major, minor = VERSION.split(".")[:2]
    line = f"holdfast>={VERSION},<{major}.{int(minor) + 1}"
    assert tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"] == [line]
    assert (project / "src" / "requirements.txt").read_text().splitlines()[-1] == line


def test_no_placeholder_is_left_and_every_file_is_a_template(project: Path) -> None:
    assert not [file for file in TEMPLATES.rglob("*") if file.is_file() and file.suffix != ".in"]
    for template in TEMPLATES.rglob("*.in"):
        relative = str(template.relative_to(TEMPLATES)).removesuffix(".in").replace("PACKAGE", "web_shop")
        assert "%%" not in (project / relative).read_text()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("My-App", "expected a name of small letters"),
        ("a--b", "expected a name of small letters"),
        ("3d", "expected a name of small letters"),
        ("json", "'json' is the name of another Python module; choose a name of your own, such as my-json"),
        ("holdfast", "is the name of another Python module"),
        ("class", "is the name of another Python module"),
        ("missing/app", "missing is not a folder"),
        ("full", "full exists already and is not an empty folder"),
    ],
)
def test_a_name_that_cannot_be(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(CliError, match=text):
        create(tmp_path / name, VERSION)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "mine.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert Path("pyproject.toml") in create(tmp_path / "shop", "1.4.0")
    assert "holdfast>=1.4.0,<2" in (tmp_path / "shop" / "pyproject.toml").read_text()
