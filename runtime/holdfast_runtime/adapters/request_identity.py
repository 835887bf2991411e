"""Request identity: every request to an endpoint says, signed, that it comes from this runtime (service protocol §5.6, http-api §5.3).

Rules: the token is for one path below the deployment's base path and, with a keyed target, for its key; it is valid for a minute
before and after it is made, which forgives clocks that differ. Tokens are kept for a few seconds, because signing costs more
than the rest of a request's headers; a kept token is as good as a new one, since it names a path and not a request.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from holdfast_runtime.ports.endpoint import EndpointRequest
from holdfast_runtime.ports.system import Clock

VALID_S: Final = 60  # before and after now; endpoints give no leeway of their own
REUSED_S: Final = (
    20  # a token is used at most so long, and a third of its time: two thirds are left for clocks that differ and requests that queue
)
MAX_KEPT: Final = 1024  # tokens, about 700 bytes each; keys of objects are many

_KEY_HEADER: Final = "x-restate-service-key"
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_MAKE_ONE: Final = "make one with `openssl genpkey -algorithm ed25519 -out identity.pem`"


class RequestIdentity:
    """`public_key` is what users give to their SDK. valid_s: of a token, from when it is made."""

    def __init__(self, key: Ed25519PrivateKey, clock: Clock, *, valid_s: int = VALID_S) -> None:
        self._key = key
        self._valid_s = valid_s
        self._reused_s = min(REUSED_S, valid_s / 3)
        self._clock = clock
        self._kept: dict[tuple[str, str | None], tuple[float, Mapping[str, str]]] = {}
        self.public_key = f"publickeyv1_{base58(key.public_key().public_bytes_raw())}"
        self._head = _part({"typ": "JWT", "alg": "EdDSA", "kid": self.public_key})

    def signed(self, request: EndpointRequest) -> EndpointRequest:
        """The request with identity headers."""
        return replace(request, headers={**request.headers, **self.headers(request.path, request.headers.get(_KEY_HEADER))})

    def headers(self, path: str, key: str | None) -> Mapping[str, str]:
        """`path`: below the base path; `key`: of the target, percent-encoded as in its header, or None."""
        now_s = self._clock.now_ms() / 1000
        kept = self._kept.get((path, key))
        if kept is not None and 0 <= now_s - kept[0] < self._reused_s:  # a clock that was set back makes a new one
            return kept[1]
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        headers = {"x-restate-signature-scheme": "v1", "x-restate-jwt-v1": self._token(path, key, int(now_s))}
        self._kept[path, key] = now_s, headers
        return headers

    def _token(self, path: str, key: str | None, now_s: int) -> str:
        claims: dict[str, str | int] = {"aud": path, "exp": now_s + self._valid_s, "iat": now_s, "nbf": now_s - VALID_S}
        if key is not None:
            claims["sub"] = unquote(key)
        content = f"{self._head}.{_part(claims)}"
        return f"{content}.{_base64(self._key.sign(content.encode()))}"


def load_identity(file: Path, clock: Clock, *, valid_s: int = VALID_S) -> RequestIdentity:
    """From an Ed25519 private key, PKCS#8 in PEM. Raises ValueError saying what is wrong with the file and what to do."""
    try:
        pem = file.read_bytes()
    except OSError as error:
        raise ValueError(f"the key for request identity cannot be read from {file}: {error.strerror or error}") from error
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise ValueError(f"the key for request identity in {file} is encrypted; expected one without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"expected an Ed25519 private key, PKCS#8 in PEM, in {file}, found something else; {_MAKE_ONE}") from error
    if not isinstance(key, Ed25519PrivateKey):
        kind = type(key).__name__.removeprefix("_").removesuffix("PrivateKey")
        raise ValueError(f"expected an Ed25519 private key in {file}, found one of another kind ({kind}); {_MAKE_ONE}")
    return RequestIdentity(key, clock, valid_s=valid_s)


def base58(raw: bytes) -> str:
    """In the alphabet of Bitcoin; a leading zero byte is a leading 1."""
    number, digits = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + digits


def _part(document: Mapping[str, str | int]) -> str:
    return _base64(json.dumps(document, separators=(",", ":")).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
