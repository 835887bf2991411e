"""What content-type and body a handler accepts, and what content-type its result gets (http-api §1.5,
§1.6). Pure.

A request passes if one rule accepts it; the message is that of the last rule. JSON schemas never validate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from holdfast.protocol.manifest import HandlerManifest

Rule = Callable[[str | None, bool], str | None]

PREFIX: Final = "input validation error: "


class InputRules:
    """The compiled rules of one handler. `check` remembers its answers: clients send few different
    content-types.
    """

    __slots__ = ("_answers", "_rules")

    def __init__(self, manifest: HandlerManifest) -> None:
        self._rules = _compile(manifest)
        self._answers: dict[tuple[bytes | None, bool], str | None] = {}

    def check(self, content_type: bytes | None, empty: bool) -> str | None:
        """None: accepted. Otherwise the message for the caller. `empty`: the body has no bytes."""
        try:
            return self._answers[content_type, empty]
        except KeyError:
            answer = self._ask(content_type, empty)
            if len(self._answers) < 64:  # the header is the caller's: do not let it fill the memory
                self._answers[content_type, empty] = answer
            return answer

    def _ask(self, content_type: bytes | None, empty: bool) -> str | None:
        text = None if content_type is None else content_type.decode("latin-1")
        problem = None
        for rule in self._rules:
            problem = rule(text, empty)
            if problem is None:
                return None
        return None if problem is None else PREFIX + problem


def _compile(manifest: HandlerManifest) -> Sequence[Rule]:
    given = manifest.input
    if given is None:
        return (_nothing, _any)
    if given.content_type is None:
        return (_nothing,)
    typed = _typed(given.content_type, needs_body=given.json_schema is not None)
    return (typed,) if given.required else (_nothing, typed)


def _nothing(content_type: str | None, empty: bool) -> str | None:
    if content_type is None and empty:
        return None
    shown = "None" if content_type is None else f'Some("{content_type}")'
    return f"Expected body and content-type to be empty, but wasn't with content-type '{shown}'"


def _any(content_type: str | None, empty: bool) -> str | None:
    return "Empty content-type" if content_type is None else None


def _typed(expected: str, *, needs_body: bool) -> Rule:
    kind, _, subtype = expected.partition("/")

    def matches(content_type: str) -> bool:
        found = content_type.partition(";")[0].strip()
        if expected == "*/*":
            return True
        if subtype == "*":
            return found.partition("/")[0] == kind
        return found == expected

    def rule(content_type: str | None, empty: bool) -> str | None:
        if content_type is None:
            return "Empty content-type"
        if not matches(content_type):
            return f"Content-type '{content_type}' does not match '{expected}'"
        return "Empty body not allowed" if needs_body and empty else None

    return rule


def result_content_type(manifest: HandlerManifest) -> tuple[str | None, bool]:
    """(content-type of results or None for never, whether an empty result has it too)."""
    given = manifest.output
    if given is None:
        return "application/json", False
    return given.content_type, bool(given.set_content_type_if_empty)
