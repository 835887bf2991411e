"""What importing costs, and what type checkers see."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout.strip()


def test_the_sdk_loads_neither_the_kit_nor_the_runtime() -> None:
    modules = "import sys, holdfast, holdfast.aws, holdfast.asgi, holdfast.sync, holdfast.endpoint, holdfast._drive"
    found = python(
        f"{modules}; print([name for name in sys.modules if name.startswith(('holdfast.testing', 'holdfast_runtime', 'pytest'))])"
    )
    assert found == "[]"


def test_the_plugin_loads_nothing_before_a_fixture_asks() -> None:
    found = python("import sys, holdfast.testing.plugin; print([name for name in sys.modules if name.startswith('holdfast_runtime')])")
    assert found == "[]"


def test_the_kit_needs_what_its_extra_says_and_no_more() -> None:
    code = """
import sys
before = {name.split('.')[0] for name in sys.modules}
import holdfast.testing.sync, importlib.metadata
owners = importlib.metadata.packages_distributions()
loaded = {name.split('.')[0] for name in sys.modules} - before
print(sorted({owner for name in loaded for owner in owners.get(name, []) if owner not in ('holdfast', 'setuptools')}))
"""
    assert python(code) == "['msgpack', 'protobuf', 'xxhash']"


def test_the_kit_without_the_runtime_says_what_to_install() -> None:
    code = """
import sys
sys.modules['msgpack'] = None  # as if it were not installed
try:
    from holdfast.testing import TestRuntime
except ModuleNotFoundError as error:
    print(error)
"""
    assert "pip install 'holdfast[testing]'" in python(code)


def test_the_typing_sample_is_clean_and_every_ignored_error_is_one() -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "tests/testing/typing_sample.py"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
