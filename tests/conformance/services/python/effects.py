"""What handlers leave behind for a test to see: files, the same for every process, and they survive kills.

- `count(name)` appends one byte to a file and answers its new size: how often a closure ran.
- `note(name, text)` writes a text, as an awakeable's id, for the test to read.
- `passed(name)` waits until the test has opened the gate of that name.
- `raised(name)` tells whether the test has raised the flag of that name.

The folder comes from the environment variable `CONFORMANCE_EFFECTS`.
"""

import asyncio
import os
from pathlib import Path

FOLDER = Path(os.environ["CONFORMANCE_EFFECTS"])


def count(name: str) -> int:
    descriptor = os.open(FOLDER / f"{name}.count", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    try:
        os.write(descriptor, b"x")
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def note(name: str, text: str) -> None:
    draft = FOLDER / f"{name}.draft.{os.getpid()}"
    draft.write_text(text)
    draft.rename(FOLDER / f"{name}.note")


def raised(name: str) -> bool:
    return (FOLDER / f"{name}.flag").exists()


async def passed(name: str) -> None:
    while not (FOLDER / f"{name}.gate").exists():  # noqa: ASYNC110 - the other side is another process
        await asyncio.sleep(0.01)
