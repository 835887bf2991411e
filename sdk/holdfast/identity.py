"""Request identity: is this request signed by a runtime we trust? (service protocol §5.6)

Rules: without configured keys nothing is checked and this module is not loaded; with keys, every request must
carry a valid, timely token for exactly its path. Needs the `cryptography` package.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError as error:  # pragma: no cover
    raise ImportError("identity_keys need the `cryptography` package; add it to the deployment, or drop the keys") from error

SCHEME_HEADER: Final = "x-restate-signature-scheme"
TOKEN_HEADER: Final = "x-restate-jwt-v1"  # noqa: S105  # a header name
_PREFIX: Final = "publickeyv1_"
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def verifier(keys: Sequence[str], clock: Callable[[], float] = time.time) -> Callable[[str, Mapping[str, str]], str | None]:
    """A function (path, lower-case headers) -> what is wrong, or None. Raises ValueError for bad keys."""
    trusted = [parse_key(key) for key in keys]

    def verify(path: str, headers: Mapping[str, str]) -> str | None:
        scheme = headers.get(SCHEME_HEADER)
        if scheme != "v1":
            return f"{SCHEME_HEADER} must be v1, found {scheme!r}: unsigned requests are refused here"
        token = headers.get(TOKEN_HEADER)
        if not token:
            return f"{TOKEN_HEADER} is missing"
        return _check(token, path, trusted, clock())

    return verify


def parse_key(text: str) -> Ed25519PublicKey:
    """From `publickeyv1_` and the base58 of 32 bytes."""
    digits = text.removeprefix(_PREFIX)
    number = 0
    try:
        if digits == text:
            raise ValueError("no prefix")
        for digit in digits:
            number = number * 58 + _BASE58.index(digit)
        zeros = len(digits) - len(digits.lstrip("1"))
        raw = b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
        return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError as error:
        raise ValueError(f"an identity key is {_PREFIX} and the base58 of 32 bytes, found {text!r}; copy it from the runtime") from error


def _check(token: str, path: str, trusted: Sequence[Ed25519PublicKey], now: float) -> str | None:
    try:
        head, payload, signature = token.split(".")
        header, claims = _json(head), _json(payload)
        signed = _decode(signature)
    except (ValueError, binascii.Error):
        return "the identity token is not a JWT"
    if header.get("alg") != "EdDSA":
        return f"the identity token must be signed with EdDSA, found {header.get('alg')!r}"
    if not any(_signed_by(key, signed, f"{head}.{payload}".encode()) for key in trusted):
        return "the identity token is not signed by a configured key"
    return _check_claims(claims, path, now)


def _check_claims(claims: Mapping[str, Any], path: str, now: float) -> str | None:
    expires, begins = claims.get("exp"), claims.get("nbf")
    if not isinstance(expires, int | float) or not isinstance(begins, int | float):
        return "the identity token must carry exp and nbf"
    if not begins <= now < expires:
        return "the identity token is not valid now; check the clocks of both sides"
    if claims.get("aud") != path:
        return f"the identity token is for {claims.get('aud')!r}, the request for {path!r}"
    return None


def _signed_by(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _json(part: str) -> dict[str, Any]:
    value = json.loads(_decode(part))
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _decode(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
