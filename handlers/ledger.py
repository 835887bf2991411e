"""Stands in for the outside world of the samples: a ledger of side effects, one JSON object per line.

Where HOLDFAST_DEMO_LEDGER names a file, every effect is appended to it, so that a demonstration can count how often
each one really happened. Otherwise effects vanish.
"""

import json
import os
from pathlib import Path


def record(effect: str, **fields: object) -> None:
    """Appends one effect. A single short append is atomic, so several processes may share the file."""
    path = os.environ.get("HOLDFAST_DEMO_LEDGER")
    if path:
        line = json.dumps({"effect": effect, **fields}, separators=(",", ":"))
        with Path(path).open("a", encoding="utf-8") as ledger:
            ledger.write(line + "\n")
