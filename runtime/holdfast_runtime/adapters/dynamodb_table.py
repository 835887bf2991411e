"""Which table: `dynamodb://table?region=eu-central-1`. Imports nothing heavy, for whoever reads options."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

SCHEME: Final = "dynamodb"
EXPECTED: Final = f"{SCHEME}://TABLE or {SCHEME}://TABLE?region=REGION, with 3 to 255 letters, digits, '_', '-' and '.' as table name"
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{3,255}").fullmatch
_REGION: Final = re.compile(r"[a-z0-9-]+").fullmatch


@dataclass(frozen=True, slots=True)
class DynamoDbTable:
    """Where a store is. region: None takes the one of the environment or profile."""

    name: str
    region: str | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ValueError."""
        parts = urlsplit(url)
        query = parse_qs(parts.query, keep_blank_values=True)
        name = url.partition("://")[2].partition("?")[0].rstrip("/")
        region = query.pop("region", [None])[0]
        if parts.scheme != SCHEME or not _NAME(name) or query or (region is not None and not _REGION(region)):
            raise ValueError(f"expected {EXPECTED}; found '{url}'")
        return cls(name, region)

    def __str__(self) -> str:
        return f"{SCHEME}://{self.name}" + (f"?region={self.region}" if self.region else "")
