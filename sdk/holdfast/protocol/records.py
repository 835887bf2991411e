"""Frozen records that cost nothing to define.

A dataclass generates and compiles its methods when its module is loaded, about 0.7 ms each: a dozen of them were a sixth of a cold start.
"""

import sys
from typing import Any, ClassVar, NoReturn, Self, dataclass_transform


@dataclass_transform(frozen_default=True)
class Record:
    """Fields are the annotated names of the class itself, with defaults as in a dataclass; compared by value and class."""

    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        found = cls.__annotations__ if sys.version_info >= (3, 14) else vars(cls).get("__annotations__", {})
        cls.__match_args__ = tuple(found)  # type: ignore[misc]  # mypy takes the class for a dataclass

    def __init__(self, *values: Any, **named: Any) -> None:
        if named or len(values) != len(self.__match_args__):
            named = self._completed(values, named)
            values = tuple(named[name] for name in self.__match_args__)
        self.__dict__.update(zip(self.__match_args__, values, strict=True))

    def _completed(self, values: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        """All fields, defaults included; raises TypeError when the arguments are not the fields."""
        fields = self.__match_args__
        found = {**dict(zip(fields, values, strict=False)), **named}
        missing = [name for name in fields if name not in found and not hasattr(type(self), name)]
        if missing or len(found) != len(values) + len(named) or not found.keys() <= set(fields):
            raise TypeError(f"{type(self).__name__} takes {', '.join(fields) or 'nothing'}; found {len(values)} values and {sorted(named)}")
        return {name: found[name] if name in found else getattr(type(self), name) for name in fields}

    def but(self, **changes: Any) -> Self:
        """A copy with other values."""
        return type(self)(**{**self.__dict__, **changes})

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *(self.__dict__[name] for name in self.__match_args__)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={self.__dict__[name]!r}' for name in self.__match_args__)})"
