"""Requests of the command line to a server: the standard library only, so that commands start quickly."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from holdfast_runtime.app.config.resolving import client_value
from holdfast_runtime.app.errors import CliError, Unreachable, misuse

TIMEOUT_S: Final = 35.0  # the server answers within 30, if only to say that it cannot
QUICK_S: Final = 5.0
_ADVICE_401: Final = "; set HOLDFAST_TOKEN to one that the server's file of tokens holds"
_CODE_TWICE: Final = re.compile(r"^(\[\w+\] )\1")  # as discovery errors must have it
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            shown = self.body[:80].decode("utf-8", "replace")
            raise CliError(f"expected JSON from the server, found '{shown}'; is this a Holdfast server?") from None

    def message(self) -> str:
        """What an error answer says."""
        try:
            found = json.loads(self.body)
        except ValueError:
            found = None
        if isinstance(found, dict) and isinstance(found.get("message"), str):
            advice = _ADVICE_401 if self.status == 401 and "www-authenticate" in self.headers else ""
            return _CODE_TWICE.sub(r"\1", found["message"]) + advice
        return self.body.decode("utf-8", "replace").strip() or f"the server answered with status {self.status} and no reason"


class Api:
    """One base URL. `what` and `option` name it in errors. timeout_s None: as long as it takes."""

    def __init__(self, base_url: str, *, what: str, option: str, timeout_s: float | None = TIMEOUT_S, token: str | None = None) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise misuse(f"{option} expects a URL such as http://127.0.0.1:9070; found '{base_url}'")
        self._base = base_url.rstrip("/")
        self._what, self._option, self._timeout_s = what, option, timeout_s
        self._own_headers = {} if token is None else {"authorization": f"Bearer {token}"}
        # A proxy cannot know what listens on this machine.
        proxies: dict[str, str] | None = {} if parts.hostname in _LOOPBACK else None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies), _NoRedirect)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any status is an answer. Raises CliError when there is none."""
        wanted = {name: value for name, value in (query or {}).items() if value is not None}
        url = f"{self._base}{path}" + (f"?{urlencode(wanted)}" if wanted else "")
        request = urllib.request.Request(url, data=body, method=method, headers={**self._own_headers, **(headers or {})})
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                return _answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as refused:
            return _answer(refused.code, refused.headers, refused.read())
        except (OSError, HTTPException) as error:
            raise self._unreachable(error) from error

    def request_json(self, method: str, path: str, document: object, *, query: Mapping[str, Any] | None = None) -> Answer:
        """document: None for no body. Any status is an answer."""
        body = None if document is None else json.dumps(document).encode()
        headers = {} if document is None else {"content-type": "application/json"}
        return self.request(method, path, query=query, body=body, headers=headers)

    def get(self, path: str, **query: Any) -> Any:
        return self.asked("GET", path, query=query).json()

    def asked(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, document: object = None) -> Answer:
        """The answer of a request that succeeded. Raises CliError with the server's own words."""
        answer = self.request_json(method, path, document, query=query)
        if answer.status >= 400:
            raise CliError(answer.message())
        return answer

    def _unreachable(self, error: Exception) -> CliError:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError):
            return Unreachable(
                f"{self._what} at {self._base} did not answer within {self._timeout_s:.0f} seconds; try again, or ask for less"
            )
        text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        return Unreachable(
            f"{self._what} at {self._base} cannot be reached ({text}); start a server with `holdfast dev` or "
            f"`holdfast serve`, or say where it is with {self._option}"
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A redirect is an answer like any other."""


def _answer(status: int, headers: Message, body: bytes) -> Answer:
    return Answer(status, {name.lower(): value for name, value in headers.items()}, body)


def admin_api(url: str) -> Api:
    return Api(url, what="the admin API", option="--admin-url or HOLDFAST_ADMIN_URL", token=_token())


def quick_api(url: str) -> Api:
    """For asking whether it is there."""
    return Api(url, what="the admin API", option="--admin-url or HOLDFAST_ADMIN_URL", timeout_s=QUICK_S, token=_token())


def ingress_api(url: str) -> Api:
    return Api(url, what="the ingress", option="--ingress-url or HOLDFAST_INGRESS_URL", timeout_s=None, token=_token())


def _token() -> str | None:
    found: str | None = client_value("token", os.environ, Path.cwd())
    return found
