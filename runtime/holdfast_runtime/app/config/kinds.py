"""What values of settings look like: read from a text (environment, command line) or from a TOML value, written back as either.

Rules: `read(write(value)) == value`; a text in TOML is no number; errors are ValueErrors that say what was expected and what was found.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol
from urllib.parse import urlsplit

from holdfast_runtime.adapters.dynamodb_table import SCHEME, DynamoDbTable
from holdfast_runtime.surfaces.durations import MAX_DURATION_MS, format_duration, parse_duration

_UNITS: Final[dict[str, int]] = {
    "b": 1,
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
}
_SIZE: Final = re.compile(r"(\d+)(\.\d+)?\s*([a-z]*)", re.ASCII | re.IGNORECASE)
MAX_SIZE: Final = 1024**4


class Kind(Protocol):
    """metavar: a word for what is given. expected: continues "expects ...". python: the type of its values, for readers."""

    @property
    def metavar(self) -> str: ...
    @property
    def expected(self) -> str: ...

    def read(self, given: object) -> Any:
        """Raises ValueError; its text, when it has one, continues the sentence with what is wrong."""

    def write(self, value: Any) -> str | int | float:
        """As TOML has it; str() of it is what `read` understands in a text."""


@dataclass(frozen=True, slots=True)
class Text:
    """What matches the pattern."""

    pattern: str
    expected: str
    metavar: str = "TEXT"

    def read(self, given: object) -> str:
        if not isinstance(given, str) or not re.fullmatch(self.pattern, given, re.ASCII):
            raise ValueError
        return given

    def write(self, value: str) -> str:
        return value


NAME: Final = Text(r"[\w.-]{1,100}", "a name of letters, digits, '-', '_' and '.', at most 100 of them", "NAME")
HEADERS: Final = Text(r"[\w!#$%&'*+.^`|~-]+(\s*,\s*[\w!#$%&'*+.^`|~-]+)*", "names of headers, separated by commas", "NAMES")
TOKEN: Final = Text(r"[\x21-\x7e]{1,1000}", "a token without spaces", "TOKEN")
HOST_AND_PORT: Final = Text(r"([\w.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}", "HOST:PORT", "HOST:PORT")
ROLE_ARN: Final = Text(
    r"arn:[\w-]+:iam::\d{12}:role/[\w+=,.@/-]+", "the ARN of a role, such as arn:aws:iam::123456789012:role/wakeups", "ARN"
)
EXTERNAL_ID: Final = Text(r"[\w+=,.@:/-]{2,1224}", "2 to 1224 characters: letters, digits and _+=,.@:/-")


@dataclass(frozen=True, slots=True)
class File:
    """A path; relative ones start in the working directory, wherever they were written."""

    metavar: ClassVar[str] = "FILE"
    expected: ClassVar[str] = "the path of a file"

    def read(self, given: object) -> Path:
        if not isinstance(given, str) or not given.strip() or "\0" in given:
            raise ValueError
        given.encode()  # UnicodeEncodeError, which is a ValueError: a name that no file of text can hold
        return Path(given)

    def write(self, value: Path) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Place(File):
    """Where a store is: a file, or a DynamoDB table."""

    metavar: ClassVar[str] = "PLACE"
    expected: ClassVar[str] = "the path of a file, or dynamodb://TABLE, or dynamodb://TABLE?region=REGION"

    def read(self, given: object) -> Path | DynamoDbTable:  # type: ignore[override]  # a place more
        if isinstance(given, str) and given.partition(":")[0] == SCHEME:
            try:
                return DynamoDbTable.parse(given)
            except ValueError:
                raise ValueError from None  # what is expected is said already
        if isinstance(given, str) and "://" in given:
            raise ValueError  # a misspelt scheme; as a path it would be a new store on this disk
        return File.read(self, given)

    def write(self, value: Path | DynamoDbTable) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: (host, port)."""

    metavar: ClassVar[str] = "HOST:PORT"
    expected: ClassVar[str] = "HOST:PORT with a port from 0 to 65535, such as 127.0.0.1:8080"

    def read(self, given: object) -> tuple[str, int]:
        """`HOST:PORT`, `[IPv6]:PORT`, `:PORT` or `PORT`."""
        if not isinstance(given, str):
            raise ValueError
        host, _, port = given.strip().rpartition(":")
        host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
        if not (port.isascii() and port.isdecimal() and int(port) < 65536) or not re.fullmatch(r"[\w.:%-]+", host):
            raise ValueError
        return host, int(port)

    def write(self, value: tuple[str, int]) -> str:
        host, port = value
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Url:
    metavar: ClassVar[str] = "URL"
    expected: ClassVar[str] = "a URL such as http://127.0.0.1:9070"

    def read(self, given: object) -> str:
        if not isinstance(given, str) or not given.isprintable() or " " in given:
            raise ValueError
        parts = urlsplit(given)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError
        _ = parts.port  # ValueError when it is none
        return given

    def write(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    names: tuple[str, ...]

    @property
    def metavar(self) -> str:
        return "|".join(self.names)

    @property
    def expected(self) -> str:
        return "one of " + ", ".join(self.names)

    def read(self, given: object) -> str:
        if given not in self.names:
            raise ValueError
        return str(given)

    def write(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class Whole:
    low: int
    high: int
    metavar: ClassVar[str] = "NUMBER"

    @property
    def expected(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def read(self, given: object) -> int:
        if isinstance(given, str) and re.fullmatch(r"\d{1,18}", given.strip(), re.ASCII):
            given = int(given)
        if isinstance(given, bool) or not isinstance(given, int) or not self.low <= given <= self.high:
            raise ValueError
        return given

    def write(self, value: int) -> int:
        return value


@dataclass(frozen=True, slots=True)
class Real:
    low: float
    high: float
    metavar: ClassVar[str] = "NUMBER"

    @property
    def expected(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"

    def read(self, given: object) -> float:
        if isinstance(given, str) and re.fullmatch(r"\d{1,18}(\.\d{1,18})?(e[+-]?\d{1,3})?", given.strip(), re.ASCII):
            given = float(given)
        if isinstance(given, bool) or not isinstance(given, int | float) or math.isnan(given) or not self.low <= given <= self.high:
            raise ValueError
        return float(given)

    def write(self, value: float) -> float:
        return value


@dataclass(frozen=True, slots=True)
class Duration:
    """Whole milliseconds; written as in http-api §0.3."""

    low_ms: int = 0
    high_ms: int = MAX_DURATION_MS
    metavar: ClassVar[str] = "DURATION"

    @property
    def expected(self) -> str:
        high = f" to {format_duration(self.high_ms)}" if self.high_ms < MAX_DURATION_MS else " or more" if self.low_ms else ""
        low = f" of {format_duration(self.low_ms)}" if self.low_ms or high else ""
        return f"a duration{low}{high}, such as 10s or 1h 30m"

    def read(self, given: object) -> int:
        if not isinstance(given, str):
            raise ValueError
        try:
            ms = parse_duration(given)
        except ValueError:
            raise ValueError from None
        if not self.low_ms <= ms <= self.high_ms:
            raise ValueError
        return ms

    def write(self, value: int) -> str:
        return format_duration(value)


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes."""

    low: int = 1
    high: int = MAX_SIZE
    metavar: ClassVar[str] = "SIZE"

    @property
    def expected(self) -> str:
        return f"a size from {format_size(self.low)} to {format_size(self.high)}, such as 32 MiB"

    def read(self, given: object) -> int:
        size = parse_size(given) if isinstance(given, str) else given
        if isinstance(size, bool) or not isinstance(size, int) or not self.low <= size <= self.high:
            raise ValueError
        return size

    def write(self, value: int) -> str:
        return format_size(value)


def parse_size(text: str) -> int:
    """Bytes. `32 MiB`, `1.5GiB`, `10 MB` (millions), `4096`. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[3].lower() or "b") if match is not None else None
    if match is None or unit is None or len(match[1]) > 19 or len(match[2] or "") > 10:
        raise ValueError(f"expected a size such as '32 MiB', found '{text}'")
    fraction = match[2] or ".0"
    scale: int = 10 ** len(fraction[1:])
    whole, rest = divmod(int(fraction[1:]) * unit, scale)
    if rest:
        raise ValueError(f"expected a whole number of bytes, found '{text}'")
    return int(match[1]) * unit + whole


def format_size(size: int) -> str:
    """The largest unit that says it exactly."""
    for name, unit in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"
