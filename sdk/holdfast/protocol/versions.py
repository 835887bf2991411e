"""Versions of the service protocol and their content types (service protocol §1.1).

Rules: 5 and 6 are spoken; 7 and later are recognised in a content type, never selected.
"""

import re
from typing import Final

MIN_VERSION: Final = 5
MAX_VERSION: Final = 6

_PREFIX: Final = "application/vnd.restate.invocation.v"
_CONTENT_TYPE: Final = re.compile(r"application/vnd\.restate\.invocation\.v([1-9][0-9]{0,2})")


def content_type(version: int) -> str:
    """The content type of request and response bodies in this version."""
    return f"{_PREFIX}{version}"


def parse_content_type(text: str) -> int | None:
    """The version an invocation content type names, whether spoken or not; None for any other type.

    Letter case and parameters (`; charset=...`) do not matter.
    """
    match = _CONTENT_TYPE.fullmatch(text.partition(";")[0].strip().lower())
    return int(match[1]) if match else None


def select_version(minimum: int, maximum: int, ours: tuple[int, int] = (MIN_VERSION, MAX_VERSION)) -> int | None:
    """The newest version both sides speak, from the range of a manifest; None when the ranges do not meet."""
    newest = min(maximum, ours[1])
    return newest if newest >= max(minimum, ours[0]) else None
