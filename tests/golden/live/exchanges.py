"""The captured exchanges (http-api, Appendix A): what was asked of the reference, and what it answered."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.surfaces.http import Answer

FOLDER: Final = Path(__file__).parents[1] / "http_examples"
NAMES: Final = sorted(path.stem for path in FOLDER.glob("*.json"))


@dataclass(frozen=True)
class Exchange:
    """`surface` is `ingress` or `admin`. Header names are lower case."""

    name: str
    surface: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    answer: Answer

    @property
    def statement(self) -> str:
        """The SQL of a `POST /query`, else nothing."""
        if not self.path.endswith("/query") or self.body is None:
            return ""
        return str(json.loads(self.body).get("query", ""))

    @property
    def is_derived(self) -> bool:
        """Whether the ids in it are pure functions of the request, so that they must be the very same (http-api §0.2)."""
        path = self.path.partition("?")[0]
        by_target = self.body is not None and b'"target": "idempotentInvocation"' in self.body
        return (
            "idempotency-key" in self.headers
            or by_target
            or path.startswith(("/restate/workflow/", "/restate/lookup"))
            or (path.startswith("/restate/invocation/") and path.count("/") > 4)
            or path.endswith(("/run", "/run/send"))
        )

    @property
    def key_prefix(self) -> bool:
        """Whether the ids in it begin with the hash of an object key, which is a pure function too."""
        return self.surface == "ingress" and self.path.startswith(("/ApiCounter/", "/ApiFlow/", "/restate/call/ApiCounter/"))


def load(name: str) -> Exchange:
    document = json.loads((FOLDER / f"{name}.json").read_text())
    request, response = document["request"], document["response"]
    body = request["body"]
    if isinstance(body, dict) and "length" in body:
        body = '"' + "a" * (body["length"] - 2) + '"'  # described instead of stored
    return Exchange(
        name,
        # The clients' captures were taken of the ingress, the CLI's of the admin API.
        document["surface"],
        request["method"],
        request["path"],
        {header.lower(): value for header, value in request["headers"].items()},
        _octets(body),
        Answer(response["status"], response["headers"], _octets(response["body"]) or b""),
    )


def _octets(body: Any) -> bytes | None:
    if body is None:
        return None
    return base64.b64decode(body["base64"]) if isinstance(body, dict) else str(body).encode()
