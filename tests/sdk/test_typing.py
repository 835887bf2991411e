"""`ctx.call`, `ctx.run` and their like are checked by mypy and by pyright, both strict; the sample services are clean under both."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "sdk" / "typing_sample.py"
NODE = ROOT / "tools" / "node_modules" / ".bin" / "node"
PYRIGHT = ROOT / "tools" / "node_modules" / "pyright" / "index.js"


def test_mypy_finds_the_sample_clean_and_every_ignored_error_one() -> None:
    # Strict mode reports an ignore that hides nothing, so each ignore in the sample asserts an error.
    command = [sys.executable, "-m", "mypy", "--strict", "tests/sdk/typing_sample.py", "handlers"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_pyright_finds_the_same_errors_and_no_other() -> None:
    if not PYRIGHT.exists():
        pytest.skip("pyright is not installed; `python tests/conformance/setup.py` puts it into tools/")
    command = [str(NODE), str(PYRIGHT), "-p", str(SAMPLE.with_name("pyrightconfig.json")), "--pythonpath", sys.executable, "--outputjson"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    report = json.loads(checked.stdout)
    assert report["summary"]["filesAnalyzed"] == 1 + len(list((ROOT / "handlers").glob("*.py")))
    found: dict[str, set[int]] = {}
    for item in report["generalDiagnostics"]:
        found.setdefault(Path(item["file"]).name, set()).add(item["range"]["start"]["line"] + 1)
    expected = {number for number, line in enumerate(SAMPLE.read_text().splitlines(), 1) if "# type: ignore" in line}
    assert found == {SAMPLE.name: expected}, report["generalDiagnostics"]
