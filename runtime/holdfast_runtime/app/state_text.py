"""State as text that people read and edit: JSON where a value is JSON, `{"$text": ...}` where it is other text, else `{"$base64": ...}`.

Rules: a value that an edit leaves alone keeps its exact bytes, however they were spaced; what cannot be read back the same way is never
shown as JSON.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

State = dict[str, bytes]

TEXT, BASE64 = "$text", "$base64"
_MARKERS: Final = frozenset({TEXT, BASE64})


class NotState(ValueError):
    """What is wrong with an edited text, as a sentence."""


def shown(value: bytes) -> Any:
    """As a member of a JSON document."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return {BASE64: base64.b64encode(value).decode()}
    try:
        found = json.loads(text, parse_constant=_refuse, parse_float=_exact, object_pairs_hook=_once)
        json.dumps(found, ensure_ascii=False).encode()
    except ValueError:  # also of half a character, as \\ud800
        return {TEXT: text}
    if isinstance(found, dict) and _MARKERS & found.keys():
        return {TEXT: text}
    return found


def line(value: bytes) -> str:
    """For a table."""
    found = shown(value)
    if isinstance(found, dict) and found.keys() == {BASE64}:
        return f"base64:{found[BASE64]}"
    return value.decode()


def to_text(state: Mapping[str, bytes]) -> str:
    return json.dumps({name: shown(value) for name, value in sorted(state.items())}, indent=2, ensure_ascii=False) + "\n"


def from_text(text: str, before: Mapping[str, bytes]) -> State:
    """Raises NotState."""
    try:
        found = json.loads(text, parse_constant=_refuse, parse_float=_exact, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise NotState(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except ValueError as error:
        raise NotState(str(error)) from error
    if not isinstance(found, dict):
        raise NotState(f"expected an object of names and values, found {type(found).__name__}")
    return {name: _stored(name, value, before.get(name)) for name, value in found.items()}


def _stored(name: str, value: Any, before: bytes | None) -> bytes:
    if before is not None and _same(shown(before), value):
        return before
    if isinstance(value, dict) and _MARKERS & value.keys():
        return _marked(name, value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _marked(name: str, value: Mapping[str, Any]) -> bytes:
    (kind, content), *more = value.items()
    if more or not isinstance(content, str):
        raise NotState(f'\'{name}\': expected {{"{TEXT}": "..."}} or {{"{BASE64}": "..."}} and nothing beside it')
    if kind == TEXT:
        return content.encode()
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise NotState(f"'{name}' is not base64 ({error})") from error


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1, 1.0 and true are three values, and the order of members counts."""
    return json.dumps(one) == json.dumps(other)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"'{twice}' stands there twice")
    return found


def _exact(number: str) -> float:
    if Decimal(number) != Decimal(repr(float(number))):
        raise ValueError(f'{number} cannot be kept exactly; write {{"{TEXT}": "{number}"}} for these very digits')
    return float(number)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def version_of(state: Mapping[str, bytes]) -> str:
    """The hash by which clients name a state (http-api §2.7)."""
    digest = hashlib.sha256()
    for number, (name, value) in enumerate(sorted(state.items(), key=lambda item: item[0].encode())):
        digest.update(number.to_bytes(8, "big") + b"\x01" + name.encode() + b"\x02" + value + b"\x03")
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()


def differences(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """(`added`, `changed` or `removed`, name), by name."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            found.append(("removed", name))
        elif name not in before:
            found.append(("added", name))
        elif before[name] != after[name]:
            found.append(("changed", name))
    return found
