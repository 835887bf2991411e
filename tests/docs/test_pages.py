"""Every code block of README.md and of docs/ is run, and every file of them is typed and clean.

How blocks are marked is told in docs/contributing-docs.md, in short:

    ```python title="shop.py"       a file of the page's folder: written, imported, checked by mypy --strict and `holdfast lint`;
                                    test_*.py is run by pytest at the end of the page (asyncio_mode = auto)
    ```python                       executed, with `await`; names stay from block to block
    ```sh, ```bash                  executed with .venv/bin on the PATH; variables and folder stay from block to block
    ```console                      lines with `$ ` are executed, the lines below them must be printed; `...` stands for anything

    <!-- no-run: needs an AWS account -->    the next block is not run, and why (blocks.REASONS)
    <!-- background: is ready -->            the next command goes on in the background; the page goes on when it has printed this
    <!-- wait: reloaded -->                  until the last command in the background has printed this
    <!-- stop --> <!-- kill -->              ends the last command in the background, by SIGTERM or SIGKILL
    <!-- output -->                          the next block is what the last one has printed; `...` stands for anything
    <!-- exit: 1 -->                         the exit code of the next command
    <!-- raises: TerminalError -->           what the next python block raises
    <!-- excerpt: shop.py -->                the next block shows lines of a file of the page again
    <!-- hidden: sh                          the code in this comment is run and not shown
    <!-- tested-by: tests/app/test_x.py -->  this page is run by another test

The ports 8080, 9070, 9071, 9080 and 8000 become free ones of the page. One page is one test: `pytest tests/docs -k sagas`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast_runtime.app.lint.searching import lint
from tests.docs.blocks import ROOT, Action, PageError, files, pages, parse, shown
from tests.docs.running import Page

PAGES = {shown(page): page for page in pages()}


def elsewhere(page: Path) -> str | None:
    """The test that runs a page instead of this one."""
    return next((item.value for item in parse(page) if isinstance(item, Action) and item.name == "tested-by"), None)


@pytest.mark.parametrize("name", PAGES)
def test_every_block_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "shop")
    wrong = ""
    try:
        other = elsewhere(PAGES[name])
        if other is None:
            Page(PAGES[name], tmp_path).run()
        elif Path(name).name not in (ROOT / other).read_text():
            wrong = f"{name} says that {other} runs it, which does not name it"
    except PageError as error:
        wrong = str(error)
    if wrong:
        pytest.fail(wrong, pytrace=False)


def batches() -> list[dict[Path, dict[str, str]]]:
    """The Python files of all pages, in few lots without two modules of one name: mypy reads our own for each lot."""
    made: list[dict[Path, dict[str, str]]] = []
    for page in PAGES.values():
        sources = {file: source for file, source in files(page).items() if file.endswith(".py")}
        names = {file.partition("/")[0] for file in sources}
        if not sources:
            continue
        for batch in made:
            if names.isdisjoint(file.partition("/")[0] for others in batch.values() for file in others):
                batch[page] = sources
                break
        else:
            made.append({page: sources})
    return made


def test_every_file_is_typed_and_clean(tmp_path: Path) -> None:
    wrong = []
    for number, batch in enumerate(batches()):
        names: dict[str, str] = {}
        for page, sources in batch.items():
            folder = tmp_path / str(number) / shown(page).replace("/", "-")
            names[f"{folder}/"] = f"{shown(page)}, "
            for file, source in sources.items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_text(source)
            handlers = [file for file in sources if not Path(file).name.startswith("test_")]  # tests hold mistakes on purpose
            wrong += [f"{shown(page)}, {finding}" for finding in (lint(handlers, folder).findings if handlers else ())]
        written = [f"{folder}{file}" for folder, sources in zip(names, batch.values(), strict=True) for file in sources]
        command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *written]
        search = os.environ | {"MYPYPATH": os.pathsep.join(folder.rstrip("/") for folder in names)}
        checked = subprocess.run(command, cwd=ROOT, env=search, capture_output=True, text=True, timeout=300, check=False)
        if checked.returncode != 0:
            said = checked.stdout + checked.stderr
            for path, name in names.items():
                said = said.replace(os.path.relpath(path, ROOT) + "/", name).replace(path, name)
            wrong.append(said)
    assert not wrong, "\n".join(wrong)
