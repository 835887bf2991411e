"""`ctx.call`, `ctx.run` and their like are checked by mypy in strict mode."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_typing_sample_is_clean_and_every_ignored_error_is_one() -> None:
    # Strict mode reports an ignore that hides nothing, so each ignore in the sample asserts an error.
    command = [sys.executable, "-m", "mypy", "--strict", "tests/sdk/typing_sample.py"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
