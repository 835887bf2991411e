"""What travels between handlers and tests, and the settings of both flavours."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Final, TypedDict

from pydantic import BaseModel

from holdfast import RetryPolicy

MOMENT: Final = timedelta(milliseconds=100)
LONG: Final = timedelta(hours=10)
SOON: Final = RetryPolicy(initial_interval=timedelta(milliseconds=20))
QUICKLY: Final = RetryPolicy(initial_interval=timedelta(milliseconds=20), max_attempts=3)
AT_ONCE: Final = RetryPolicy(initial_interval=timedelta(0), max_duration=timedelta(0))
NO_MORE: Final = RetryPolicy(max_attempts=1, on_max_attempts="pause")
ONE_MORE: Final = RetryPolicy(initial_interval=timedelta(milliseconds=20), max_attempts=2, on_max_attempts="kill")


@dataclass
class Order:
    id: str
    items: list[str]


@dataclass
class Receipt:
    order: Order
    total: int


class Line(TypedDict):
    sku: str
    count: int


class Colour(Enum):
    RED = "red"


class Profile(BaseModel):
    name: str
    born: datetime


@dataclass
class Everything:
    """Every kind of type that travels, in one."""

    line: Line
    profile: Profile
    colour: Colour
    pair: tuple[int, str]
    maybe: int | None
    amount: Decimal
    data: bytes
    tags: set[str]


@dataclass
class Facts:
    invocation_id: str
    service: str
    handler: str
    key: str
    attempt: int
    header: str | None
    body: str


@dataclass
class Called:
    """What the handler `calls` found out."""

    totals: list[int]
    refusal: tuple[str, int, dict[str, str]]
    facts: Facts
    same_id: bool
    plain: list[str]


@dataclass
class User:
    name: str
    patience_ms: int


class Reversed:
    """A serde of one's own."""

    content_type: str | None = "text/reversed"

    def serialize(self, value: str) -> bytes:
        return value[::-1].encode()

    def deserialize(self, content: bytes) -> str:
        return content.decode()[::-1]
