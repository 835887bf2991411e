"""Is an answer the captured one, apart from what varies? (http-api, Appendix A, "Comparing")

Ids are matched one to one and consistently through a whole scenario: where the capture names the same invocation twice, so must we. Varying
are ids (unless a pure function of their coordinates), instants, and stack traces. Arrays have no order, unless the statement that asked for
them has one. Everything else must be equal: status, headers, types, members, texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import pyarrow as pa

from tests.golden.live.exchanges import Exchange
from tests.surfaces.http import Answer

ID: Final = r"inv_1[0-9a-zA-Z]{33}|(?:dp|sub)_1[0-9a-zA-Z]{22}|sign_1[0-9a-zA-Z_-]{38}"
_INSTANT: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)"
_GENERATED_KEY: Final = r"01[0-9A-HJKMNP-TV-Z]{24}"  # a ULID: the idempotency key the reference makes up
_HTTP_DATE: Final = r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"
_TOKENS: Final = re.compile(f"({ID}|{_INSTANT}|{_HTTP_DATE}|{_GENERATED_KEY})")
_ANY_ID: Final = re.compile(ID)
_TOTAL_ORDER: Final = re.compile(r"ORDER BY (?:inv\.)?(created_at|name|index|pattern|table_name)\b[^()]*$")
# Free texts of other libraries, behind what we reproduce; a refused connection is told by each in its own words.
_FOREIGN: Final = re.compile(
    r"(as JSON: |target type: (?:[a-z_]+: )?|(?:h2 pool connection|connect) error: |Datafusion error: .* at Line).*", re.DOTALL
)
_REPEATED_HEADERS: Final = re.compile(r"(?<=Response headers: )\{.*?\}(?=\. Body: )")
_TRACEBACK: Final = re.compile(r"\nTraceback .*|\n\s+File \".*", re.DOTALL)
_EARLIEST_MS, _LATEST_MS = 1_700_000_000_000, 2_200_000_000_000

# Headers that vary, and those of which only the presence is a fact.
_DATE: Final = {"date", "connection"}
# `features` lists flags of the reference's own development; `members` its metadata cluster.
_LEFT_OUT: Final = {"features", "metadata_cluster_health", "holdfast_version"}
# How often a handler that always fails had been tried when it was looked at.
_COUNTS: Final = {"num_retries", "retry_count"}

Difference = str


class Ids:
    """Which of our ids stands for which captured one."""

    def __init__(self, known: dict[str, str] | None = None) -> None:
        self.ours: dict[str, str] = dict(known or {})

    def copy(self) -> Ids:
        return Ids(self.ours)

    def match(self, captured: str, ours: str) -> bool:
        """True when they are, or from now on shall be, the same thing."""
        if captured in self.ours:
            return self.ours[captured] == ours
        if ours in self.ours.values() or captured.partition("_1")[0] != ours.partition("_1")[0]:
            return False
        self.ours[captured] = ours
        return True

    def translated(self, text: str) -> str:
        """The text of a captured request with our ids in it."""
        return _ANY_ID.sub(lambda found: self.ours.get(found[0], found[0]), text)


def in_order(text: str) -> list[str]:
    """The distinct ids of a text, in the order they appear."""
    return list(dict.fromkeys(_ANY_ID.findall(text)))


def differences(exchange: Exchange, answer: Answer, ids: Ids, *, same_ids: bool, ties: bool = False) -> list[Difference]:
    """Nothing when the answer is the captured one. `same_ids`: ids must be the very same. `ties`: the order that is
    asked for is not total.
    """
    expected = exchange.answer
    if answer.status != expected.status:
        return [f"status: {expected.status} captured, {answer.status} answered: {answer.body[:600]!r}"]
    ordered = not ties and _TOTAL_ORDER.search(exchange.statement) is not None
    comparison = _Comparison(ids, ordered=ordered, same_ids=same_ids, same_prefix=exchange.key_prefix)
    return [
        *_header_differences(expected, answer, comparison),
        *comparison.of(_content(expected), _content(answer), "body"),
    ]


def _header_differences(expected: Answer, answer: Answer, comparison: _Comparison) -> Iterator[Difference]:
    present, wanted = set(answer.headers) - _DATE, set(expected.headers) - _DATE
    if not answer.body:
        present, wanted = present - {"content-length"}, wanted - {"content-length"}  # the reference sometimes leaves out a zero
    if present != wanted:
        yield f"headers: {sorted(wanted - present)} missing, {sorted(present - wanted)} too many"
    for name in sorted(wanted & present - {"content-length"}):
        yield from comparison.of(expected.headers[name], answer.headers[name], f"header {name}")


def _content(answer: Answer) -> Any:
    """What a body says: an Arrow stream as schema and rows, JSON as its value, else text."""
    if answer.body[:4] == b"\xff\xff\xff\xff":
        table = pa.ipc.open_stream(answer.body).read_all()
        columns = [f"{field.name} {field.type}{'' if field.nullable else ' not null'}" for field in table.schema]
        return {"columns in this order": "\n".join(columns), "rows": table.to_pylist()}
    try:
        return json.loads(answer.body)
    except ValueError:
        return answer.body.decode("latin-1")


class _Comparison:
    def __init__(self, ids: Ids, *, ordered: bool, same_ids: bool, same_prefix: bool) -> None:
        self.ids, self.ordered, self.same_ids, self.same_prefix = ids, ordered, same_ids, same_prefix

    def of(self, expected: Any, found: Any, where: str) -> list[Difference]:
        if isinstance(expected, dict) and isinstance(found, dict):
            return self._objects(expected, found, where)
        if isinstance(expected, list) and isinstance(found, list):
            return self._arrays(expected, found, where)
        if isinstance(expected, str) and isinstance(found, str):
            return self._texts(expected, found, where)
        if _is_instant(expected) and _is_instant(found):
            return []
        if type(expected) is type(found) and expected == found:
            return []
        return [f"{where}: {expected!r} captured, {found!r} answered"]

    def _objects(self, expected: dict[str, Any], found: dict[str, Any], where: str) -> list[Difference]:
        expected, found = ({name: value for name, value in item.items() if name not in _LEFT_OUT} for item in (expected, found))
        told = [f"{where}.{name}: missing, {expected[name]!r} captured" for name in expected if name not in found]
        told += [f"{where}.{name}: not captured, {found[name]!r} answered" for name in found if name not in expected]
        for name in expected.keys() & found.keys():
            if name in _COUNTS and expected[name] > 1 and isinstance(found[name], int) and found[name] > 0:
                continue
            told += self.of(expected[name], found[name], f"{where}.{name}")
        return told

    def _arrays(self, expected: list[Any], found: list[Any], where: str) -> list[Difference]:
        if len(expected) != len(found):
            return [f"{where}: {len(expected)} captured, {len(found)} answered: {_short(expected)} and {_short(found)}"]
        if self.ordered or all(isinstance(item, int) for item in expected):
            return [
                told for i, (one, other) in enumerate(zip(expected, found, strict=True)) for told in self.of(one, other, f"{where}[{i}]")
            ]
        return self._unordered(expected, list(found), where)

    def _unordered(self, expected: list[Any], left: list[Any], where: str) -> list[Difference]:
        """Each captured item takes the first of ours that equals it; one that finds none is told with the nearest."""
        told: list[Difference] = []
        for i, item in enumerate(expected):
            nearest: list[Difference] | None = None
            for candidate in left:
                before = dict(self.ids.ours)
                found = self.of(item, candidate, f"{where}[{i}]")
                if not found:
                    left.remove(candidate)
                    nearest = None
                    break
                self.ids.ours = before
                nearest = found if nearest is None or len(found) < len(nearest) else nearest
            told += nearest or []
        return told

    def _texts(self, expected: str, found: str, where: str) -> list[Difference]:
        if expected.startswith("{") and found.startswith("{") and (documents := _both(json.loads, expected, found)) is not None:
            return self.of(*documents, where)  # JSON inside JSON: `entry_json`
        expected, found = _plain(expected), _plain(found)
        parts, ours = _TOKENS.split(expected), _TOKENS.split(found)
        if len(parts) == len(ours) and all(self._same(i % 2 == 1, *pair) for i, pair in enumerate(zip(parts, ours, strict=True))):
            return []
        return [f"{where}: {expected!r} captured, {found!r} answered"]

    def _same(self, is_token: bool, expected: str, found: str) -> bool:
        if not is_token:
            return expected == found
        if _ANY_ID.fullmatch(expected):
            return self._same_id(expected, found)
        if re.fullmatch(_INSTANT, expected):
            return _shape(expected) == _shape(found)
        kind = _HTTP_DATE if re.fullmatch(_HTTP_DATE, expected) else _GENERATED_KEY
        return re.fullmatch(kind, found) is not None

    def _same_id(self, expected: str, found: str) -> bool:
        if expected in self.ids.ours or not expected.startswith("inv_"):
            return self.ids.match(expected, found)
        if self.same_ids and expected != found:
            return False
        if self.same_prefix and expected[:16] != found[:16]:
            return False
        return self.ids.match(expected, found)


def _plain(text: str) -> str:
    """Without what other libraries say, stack traces, and the order of the headers a message repeats."""
    text = _TRACEBACK.sub("", _FOREIGN.sub(r"\1...", text)).replace("h2 pool connection error:", "connect error:")
    return _REPEATED_HEADERS.sub(lambda found: json.dumps(json.loads(found[0]), sort_keys=True), text)


def _shape(instant: str) -> tuple[bool, bool]:
    return bool(re.search(r"\.\d{9}Z", instant)), instant.endswith("Z")


def _is_instant(value: Any) -> bool:
    return isinstance(value, int) and _EARLIEST_MS < value < _LATEST_MS


def _both(read: Callable[[str], Any], one: str, other: str) -> tuple[Any, Any] | None:
    try:
        return read(one), read(other)
    except ValueError:
        return None


def _short(value: Any) -> str:
    return json.dumps(value, default=str)[:1500]
