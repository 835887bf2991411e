"""AWS Signature Version 4 for one service and region: what botocore's SigV4Auth computes, in less time.

The signing key depends on the day and the credentials only, so it is kept. Source: AWS General Reference,
"Signature Version 4".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote


class Credentials(NamedTuple):
    access_key: str
    secret_key: str
    token: str | None


class Signer:
    """Signs requests whose path is already percent-encoded once, as it stands in the request line."""

    def __init__(self, service: str, region: str) -> None:
        self._service = service
        self._region = region
        self._key: tuple[tuple[str, str, str], bytes] | None = None  # ((access key, secret, day), signing key)

    def sign(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        credentials: Credentials,
        *,
        now_ms: int,
        query: str = "",
    ) -> dict[str, str]:
        """The headers to add: x-amz-date, authorization, with a session also x-amz-security-token.

        `headers` (lower-case names, `host` among them) are all signed. `query` is canonical: encoded and
        sorted.
        """
        moment = datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
        day = moment[:8]
        added = {"x-amz-date": moment}
        if credentials.token is not None:
            added["x-amz-security-token"] = credentials.token
        signed = sorted({**headers, **added}.items())
        names = ";".join(name for name, _ in signed)
        canonical = "\n".join(
            (
                method,
                _encoded_again(path),
                query,
                *(f"{name}:{' '.join(value.split())}" for name, value in signed),
                "",
                names,
                hashlib.sha256(body).hexdigest(),
            )
        )
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._signing_key(credentials, day), text.encode(), "sha256").hex()
        added["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return added

    def _signing_key(self, credentials: Credentials, day: str) -> bytes:
        wanted = (credentials.access_key, credentials.secret_key, day)
        if self._key is None or self._key[0] != wanted:
            key = f"AWS4{credentials.secret_key}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = (wanted, key)
        return self._key[1]


@lru_cache(maxsize=4096)  # one path per function
def _encoded_again(path: str) -> str:
    """Every service but S3 wants the canonical path encoded twice."""
    return quote(path, safe="/~")
