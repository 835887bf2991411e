"""A Lambda function that does nothing."""

from typing import Any


def handler(_event: Any, _context: Any) -> dict[str, Any]:
    return {}
