"""One page, run from its first block to its last, in a folder of its own.

Rules: python runs in this process, on one event loop per page; shell blocks share variables and the current folder, as one terminal does;
whatever was started is gone when the page ends.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import inspect
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, Final

from tests.docs.blocks import REASONS, ROOT, SHELLS, Action, Block, PageError, blocks, parse, shown
from tests.support.ports import free_port

PATIENCE_S: Final = 120.0
PORTS: Final = (8080, 9070, 9071, 9080, 8000)
_PORT: Final = re.compile(r"((?:127\.0\.0\.1|localhost|0\.0\.0\.0|\[::1?\]):|--port[ =]|\bport=)(" + "|".join(map(str, PORTS)) + r")\b")
_STATE: Final = ".terminal"


class Background:
    """A command that goes on while the page does."""

    def __init__(self, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._said = threading.Condition()
        self._seen = 0
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._said:
                self.output += line.decode(errors="replace")
                self._said.notify_all()
        with self._said:
            self._seen = -1
            self._said.notify_all()

    def await_text(self, text: str) -> str | None:
        """Until it has printed the text, behind what was waited for before. None, or what it printed instead."""
        start = self._seen
        with self._said:
            self._said.wait_for(lambda: text in self.output[max(start, 0) :] or self._seen == -1, PATIENCE_S)
            found = self.output.find(text, max(start, 0))
            if found < 0:
                return self.output[max(start, 0) :]
            if self._seen >= 0:
                self._seen = found + len(text)
            return None

    def end(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        try:
            self._process.wait(PATIENCE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._reader.join(PATIENCE_S)


class Page:
    """page: the document. folder: an empty one, where its files are written and its commands run."""

    def __init__(self, page: Path, folder: Path) -> None:
        self._page = page
        self._folder = folder
        self._ports = {str(port): str(free_port()) for port in PORTS}
        self._running: list[Background] = []
        self._groups: list[int] = []
        self._printed = ""
        self._written: dict[str, Block] = {}
        self._module = ModuleType("page")
        self._runner = asyncio.Runner()
        for name in (".venv", "scripts", "handlers"):  # as in the project's folder
            (folder / name).symlink_to(ROOT / name)
        if page.name == "README.md" and page.parent != ROOT:  # of an example: it has the files beside it
            shutil.copytree(page.parent, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        self._environment = self._make_environment()

    def _make_environment(self) -> dict[str, str]:
        ingress, admin = f"127.0.0.1:{self._ports['8080']}", f"127.0.0.1:{self._ports['9070']}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "RESTATE_", "AWS_", "PYTEST_"))}
        return kept | {
            "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": os.pathsep.join([str(self._folder), str(ROOT / "sdk"), str(ROOT / "runtime")]),
            "PYTHONUNBUFFERED": "1",
            "HOLDFAST_INGRESS": ingress,
            "HOLDFAST_ADMIN": admin,
            "HOLDFAST_INGRESS_URL": f"http://{ingress}",
            "HOLDFAST_ADMIN_URL": f"http://{admin}",
            "AWS_EC2_METADATA_DISABLED": "true",
            "COLUMNS": "120",
            "NO_COLOR": "1",
        }

    def run(self) -> None:
        """Raises: PageError, for the first block that does not do what the page says."""
        before, path = dict(sys.modules), list(sys.path)
        sys.path.insert(0, str(self._folder))
        sys.modules["page"] = self._module
        try:
            for item in parse(self._page):
                if isinstance(item, Action):
                    self._act(item)
                else:
                    self._block(item)
            self._test_files()
        finally:
            self._runner.close()
            sys.path[:] = path
            for name in set(sys.modules) - set(before):
                if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(self._folder)) or name == "page":
                    del sys.modules[name]
            for process in self._running:
                process.end(signal.SIGKILL)
            for group in self._groups:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)

    # What stands between blocks

    def _act(self, action: Action) -> None:
        if action.name == "tested-by":
            return
        if not self._running:
            raise action.error(f"`{action.name}`: nothing runs in the background")
        process = self._running[-1]
        if action.name == "wait":
            if (instead := process.await_text(action.value)) is not None:
                raise action.error(f"it did not print {action.value!r}, but\n{instead}")
            return
        self._running.pop().end(signal.SIGKILL if action.name == "kill" else signal.SIGTERM)

    # Blocks

    def _block(self, block: Block) -> None:
        if "no-run" in block.marks:
            self._parsed_only(block)
        elif "output" in block.marks:
            self._compare(block, block.source, self._printed)
        elif "excerpt" in block.marks:
            self._excerpt(block)
        elif block.language == "console":
            self._console(block)
        elif block.language in SHELLS:
            self._shell(block, block.source)
        elif block.file is not None:
            self._write(block, block.file)
        elif block.language == "python":
            self._python(block)

    def _parsed_only(self, block: Block) -> None:
        if not block.marks["no-run"].startswith(REASONS):
            raise block.error(f"`no-run` needs a reason that begins with one of: {'; '.join(REASONS)}")
        if block.language == "python":
            self._attempt(block, lambda: compile(block.source, shown_source(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))

    def _excerpt(self, block: Block) -> None:
        name = block.marks["excerpt"]
        if name not in self._written:
            raise block.error(f"excerpt of {name}, which the page has not shown yet")
        rest = [line.strip() for line in self._written[name].source.splitlines()]
        wanted = [line.strip() for line in textwrap.dedent(block.source).strip().splitlines()]
        for start in range(len(rest) - len(wanted) + 1):
            if rest[start : start + len(wanted)] == wanted:
                return
        raise block.error(f"these lines do not stand in {name}")

    def _write(self, block: Block, name: str) -> None:
        file = self._folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self._with_ports(block.source))
        self._written[name] = block
        if file.suffix == ".py" and not file.name.startswith("test_"):
            module = name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
            self._attempt(block, lambda: self._import(module))

    def _import(self, module: str) -> None:
        importlib.invalidate_caches()
        sys.modules.pop(module, None)
        importlib.import_module(module)

    def _python(self, block: Block) -> None:
        self._attempt(block, lambda: self._execute(block))

    def _execute(self, block: Block) -> None:
        # Blank lines in front: tracebacks then name the line of the page, and show it.
        source = "\n" * (block.line - 1) + self._with_ports(block.source)
        code = compile(source, str(block.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, self._module.__dict__)
        if inspect.iscoroutine(result):
            self._runner.run(result)

    def _attempt(self, block: Block, action: Callable[[], object]) -> None:
        """Do it, keep what it prints, and compare how it ends with what the page says."""
        printed = io.StringIO()
        expected = block.marks.get("raises")
        try:
            with contextlib.redirect_stdout(printed), contextlib.chdir(self._folder):
                action()
        except Exception as error:
            if type(error).__name__ != expected:
                raise block.error(self._traceback(error) + _indented(printed.getvalue())) from error
        else:
            if expected is not None:
                raise block.error(f"{expected} was expected, nothing was raised")
        self._printed = printed.getvalue()

    def _traceback(self, error: BaseException) -> str:
        """Without the lines of this file, and with those of the page instead of those of its files."""
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__ and "importlib" not in frame.filename
        ]
        lines = [f"{type(error).__name__}: {error}"]
        for frame in frames:
            where = f"{frame.filename}:{frame.lineno}"
            for name, block in self._written.items():
                if frame.filename == str(self._folder / name):
                    where = f"{shown(block.page)}:{block.line + (frame.lineno or 1) - 1} ({name})"
            lines.append(f"    {where} in {frame.name}: {frame.line}")
        return "\n".join(lines)

    # Shell

    def _shell(self, block: Block, source: str) -> None:
        expected = int(block.marks.get("exit", "0"))
        command = self._command(block, source)
        if "background" in block.marks:
            process = Background(command, self._folder, self._environment)
            self._running.append(process)
            if (instead := process.await_text(block.marks["background"])) is not None:
                raise block.error(f"it did not print {block.marks['background']!r}, but\n{_indented(instead)}")
            return
        code, self._printed = self._finish(block, command)
        if code != expected:
            raise block.error(f"exit code {code}, expected {expected}\n{_indented(self._printed + self._errors)}")

    def _console(self, block: Block) -> None:
        """`$ command` lines, each with what it prints."""
        steps: list[tuple[str, list[str]]] = []
        for line in block.source.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            elif not steps:
                raise block.error("a console block begins with `$ `")
            elif line.startswith("> "):
                steps[-1] = (f"{steps[-1][0]}\n{line[2:]}", [])
            else:
                steps[-1][1].append(line)
        for number, (command, wanted) in enumerate(steps):
            expected = int(block.marks.get("exit", "0")) if number == len(steps) - 1 else 0
            code, self._printed = self._finish(block, self._command(block, command))
            if code != expected:
                raise block.error(f"$ {command}\nexit code {code}, expected {expected}\n{_indented(self._printed + self._errors)}")
            if any(line.strip() for line in wanted):
                self._compare(block, "\n".join(wanted), self._printed, self._printed + self._errors)

    def _command(self, block: Block, source: str) -> list[str]:
        shell = "bash" if block.language == "bash" else "sh"
        state = self._folder / _STATE
        # As in one terminal, variables and the folder stay from block to block.
        head = f'[ ! -f "{state}" ] || . "{state}"\n'
        tail = "" if "background" in block.marks else f'trap \'(export -p; echo cd "$PWD") >"{state}"\' EXIT\n'
        return [shell, "-c", f"{head}{tail}set -eua\n{self._with_ports(source)}"]

    def _finish(self, block: Block, command: list[str]) -> tuple[int, str]:
        out, err = self._folder / ".stdout", self._folder / ".stderr"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            code = self._wait(block, command, stdout, stderr)
        self._errors = self._without_ports(err.read_text(errors="replace"))
        return code, self._without_ports(out.read_text(errors="replace"))

    def _wait(self, block: Block, command: list[str], stdout: IO[bytes], stderr: IO[bytes]) -> int:
        process = subprocess.Popen(
            command, cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
        )
        try:
            return process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise block.error(f"not done after {PATIENCE_S:g} s; is it to run in the background?") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 0)  # something of it goes on: it ends with the page
                self._groups.append(process.pid)

    # What is printed

    def _compare(self, block: Block, wanted: str, *printed: str) -> None:
        """With one of what was printed: programs are free to add remarks on standard error when they are not in a terminal."""
        expected = ".*?".join(re.escape(part) for part in _squeezed(wanted).split("..."))
        if not any(re.fullmatch(expected, _squeezed(each), re.DOTALL) for each in printed):
            raise block.error(f"this was printed instead\n{_indented(printed[-1])}")

    def _with_ports(self, text: str) -> str:
        return _PORT.sub(lambda match: match[1] + self._ports[match[2]], text)

    def _without_ports(self, text: str) -> str:
        for documented, used in self._ports.items():
            text = re.sub(rf"\b{used}\b", documented, text)
        return text

    # At the end

    def _test_files(self) -> None:
        """Test files are run together, unless the page itself has shown how."""
        tests = [name for name in self._written if Path(name).name.startswith("test_")]
        shells = " ".join(block.source for block in blocks(self._page) if block.language in SHELLS)
        if not tests or "pytest" in shells:
            return
        block = self._written[tests[0]]
        # None of the plugins that happen to be installed: they take longer than the tests.
        python = [
            "env",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1",
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "pytest_asyncio.plugin",
            "-p",
            "holdfast.testing.plugin",
        ]
        options = ["-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
        code, printed = self._finish(block, [*python, "--rootdir", str(self._folder), *options, *tests])
        if code != 0:
            raise block.error(f"the tests of this page fail\n{_indented(printed + self._errors)}")


def shown_source(block: Block) -> str:
    return f"{shown(block.page)} from line {block.line}"


def _squeezed(text: str) -> str:
    """Spaces in a row count as one, and none at the ends of lines, because tables are as wide as what is in them."""
    return "\n".join(re.sub(r"[ \t]+", " ", line).strip() for line in text.strip().splitlines())


def _indented(text: str) -> str:
    return textwrap.indent(text.rstrip(), "    ")


__all__ = ["Page", "PageError"]
