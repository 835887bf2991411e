"""Who may speak to a surface: `Authorization: Bearer <token>` (RFC 6750), with any of a few tokens, so that they can be exchanged.

Health checks are open, because load balancers cannot know a secret.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from holdfast_runtime.surfaces.asgi import App, Receive, Scope, Send

SHORTEST: Final = 16
_SCHEME: Final = b"bearer "
CHALLENGE: Final = (b"www-authenticate", b"Bearer")
REFUSAL: Final = "expected a valid token in the header 'Authorization: Bearer ...'"


class BearerTokens:
    """What admits. Comparing takes the same time whatever was given."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token.encode() for token in tokens]

    @classmethod
    def read(cls, file: Path) -> Self:
        """One token a line; empty lines and lines that begin with # do not count. Raises ValueError."""
        try:
            lines = [line.strip() for line in file.read_text().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ValueError(f"the file of tokens {file} cannot be read: {reason}") from error
        tokens = {number: line for number, line in enumerate(lines, 1) if line and not line.startswith("#")}
        if not tokens:
            raise ValueError(f"the file of tokens {file} holds none; write one a line, such as `openssl rand -hex 24` makes them")
        for number, token in tokens.items():
            if len(token) < SHORTEST or not token.isascii():
                raise ValueError(f"{file}:{number}: a token has at least {SHORTEST} ASCII characters; `openssl rand -hex 24` makes one")
        return cls(list(tokens.values()))

    def admits(self, authorization: bytes | None) -> bool:
        """`authorization`: the value of the header."""
        if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
            return False
        given = authorization[len(_SCHEME) :].strip()
        return sum(hmac.compare_digest(given, token) for token in self._tokens) > 0


def guarded(app: App, tokens: BearerTokens, *, open_paths: Sequence[str]) -> App:
    """`app` for those who have a token, and its `open_paths` for all. Errors are JSON with `message`, as the command line expects them."""
    body = json.dumps({"message": REFUSAL, "restate_code": None}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), CHALLENGE]

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in open_paths:
            given = next((value for name, value in scope["headers"] if name == b"authorization"), None)
            if not tokens.admits(given):
                await send({"type": "http.response.start", "status": 401, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
        await app(scope, receive, send)

    return guard
