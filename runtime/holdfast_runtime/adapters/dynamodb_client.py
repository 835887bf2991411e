"""Calls to DynamoDB: signed, sent, tried again within a budget, counted.

1. One thin client for every data operation. Measured (`bench/bench_dynamodb.py client`): a conditional put costs 0.14 to
   0.25 ms of CPU here and 1.24 in aiobotocore on the same machine, five to nine times as much, and puts are what
   bounds a process. aioboto3 still says who we are and where the service answers (`aws_access`), so
   `AWS_ENDPOINT_URL[_DYNAMODB]`, profiles and roles work as everywhere.
2. Every try is signed anew, with the service's time: when it says that our clock is off, the difference is kept. The
   service refuses what was signed more than some minutes ago, so no try lands later than that.
3. A connection that breaks before the answer is replaced at once, twice at most: idle ones are closed by the service
   now and then. The outcome is unknown then, and every write here recognises its own first try. Everything else
   waits, doubling, with jitter, within `patience_s`. The coordinator tries again by itself where it appends, loads
   and flushes; there the patience is 0.
4. What is spent, throttled or refused is StoreUnavailable, with what to do in its text. Also when only an operator
   can mend it: the process goes on trying, and heals when the permission or the table is back. Opening and checking
   a store raise StoreBroken for the same (`Refused`).

Sources: DynamoDB API reference, "Error handling"; General reference, "Signature Version 4".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

from holdfast_runtime.adapters.aws_access import AccessFailed, AwsAccess
from holdfast_runtime.adapters.http_endpoint import Origin, Target, parse_uri
from holdfast_runtime.adapters.http_exchange import ExchangeFailed, Outgoing, TimedOut
from holdfast_runtime.adapters.sigv4 import Signer
from holdfast_runtime.ports.endpoint import EndpointResponse, HttpVersion
from holdfast_runtime.ports.metrics import Metrics
from holdfast_runtime.ports.store import StoreUnavailable
from holdfast_runtime.ports.system import Clock, Entropy

FIRST_DELAY_S: Final = 0.025
MAX_DELAY_S: Final = 1.0
REPLACED_CONNECTIONS: Final = 2
IDLE_CONNECTIONS: Final = 128

OLD_ITEM: Final = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}  # of every conditional request that may meet its own first try
CONDITION_FAILED: Final = "ConditionalCheckFailedException"
_THROTTLED: Final = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "Throttling",
        "ThrottledException",
        "RequestLimitExceeded",
        "LimitExceededException",
    }
)
_TRANSIENT: Final = frozenset(
    {
        "InternalServerError",
        "InternalFailure",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "TransactionConflictException",
        "ReplicatedWriteConflictException",
        "ExpiredTokenException",  # the credentials are renewed by then
    }
)
_SKEWED: Final = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"})
_SKEW_WORDS: Final = ("Signature expired", "Signature not yet current")
_ADVICE: Final = {
    "ResourceNotFoundException": "create it with `holdfast store init`, or correct its name or region",
    "AccessDeniedException": "allow the operation on the table to the coordinator's role (docs/dynamodb.md lists them)",
    "UnrecognizedClientException": "the credentials are not valid; correct AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "InvalidSignatureException": "the secret key does not belong to the access key; correct the credentials",
    "ValidationException": "the table has another schema or the program a fault; `holdfast store check` tells which",
}


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. try_s: for one answer; three tries fit into a lease of 10 s, the service's own p99 is some 20 ms.

    call_s: how long tries may go on for whoever does not try again by itself; heartbeats come every 2 s.
    """

    try_s: float = 3.0
    call_s: float = 2.0


class Refused(StoreUnavailable):
    """The service understood and refused: only an operator (or a correction of the program) helps."""


class LostRace(NamedTuple):
    """The condition did not hold.

    item: what is there, in the service's own form; None when nothing is. repeated: an earlier try of the same call may
    have been done, so what is there may be our own.
    """

    item: dict[str, Any] | None
    repeated: bool = False


class Meter:
    """Calls and capacity units by (operation, kind of item): what the service says it has charged.

    Kinds: log, page, `page <first part of its id>` when written, lease, member, registry, blob.
    """

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.units: Counter[tuple[str, str]] = Counter()

    def count(self, operation: str, kind: str, units: float) -> None:
        self.calls[operation, kind] += 1
        self.units[operation, kind] += units  # type: ignore[assignment]  # a Counter counts in floats, too


class _Again(Exception):
    """Nothing is wrong with the request: another try may do. `at_once`: the connection broke."""

    def __init__(self, reason: str, *, at_once: bool = False) -> None:
        super().__init__(reason)
        self.at_once = at_once


class DynamoDbClient:
    """Use on one event loop. meter: filled when given; the service is asked for the units then."""

    def __init__(
        self,
        table: str,
        *,
        clock: Clock,
        entropy: Entropy,
        access: AwsAccess,
        region: str,
        meter: Meter | None = None,
        patience: Patience | None = None,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        metrics: Metrics | None = None,
    ) -> None:
        self.table = table
        self.region = region
        self._clock = clock
        self._entropy = entropy
        self._access = access
        self._meter = meter
        self._metrics = metrics or Metrics()
        self.patience = patience or Patience()
        self._tls = tls
        self._signer = Signer("dynamodb", region)
        self._place: tuple[Origin, Target] | None = None
        self.skew_ms = 0  # what must be added to our clock to have the service's

    def now_ms(self) -> int:
        """Milliseconds since 1970 by the service's clock, as far as known."""
        return self._clock.now_ms() + self.skew_ms

    async def call(
        self, operation: str, kind: str, request: dict[str, Any], *, patience_s: float = 0.0, before_each: Callable[[], None] | None = None
    ) -> dict[str, Any]:
        """The answer of an operation without a condition. Raises StoreUnavailable, Refused.

        kind: of the items, for the meter. patience_s: how long tries may go on. before_each: runs before every try.
        """
        answer = await self.attempt(operation, kind, request, patience_s=patience_s, before_each=before_each)
        assert not isinstance(answer, LostRace), "only a request with a condition can lose"
        return answer

    async def attempt(
        self, operation: str, kind: str, request: dict[str, Any], *, patience_s: float = 0.0, before_each: Callable[[], None] | None = None
    ) -> dict[str, Any] | LostRace:
        """The answer of an operation that may have a condition."""
        if self._meter is not None:
            request = {**request, "ReturnConsumedCapacity": "TOTAL"}
        body = json.dumps(request, separators=(",", ":")).encode()
        delay, over = FIRST_DELAY_S, self._clock.monotonic() + patience_s
        broken, repeated = 0, False
        while True:
            if before_each is not None:
                before_each()
            try:
                answer = await self._try(operation, kind, body)
                return answer._replace(repeated=repeated) if isinstance(answer, LostRace) else answer
            except _Again as failed:
                repeated = True
                if failed.at_once and broken < REPLACED_CONNECTIONS:
                    broken += 1
                    continue
                if self._clock.monotonic() + delay > over:
                    raise StoreUnavailable(f"{operation} on table {self.table}: {failed}") from failed
            await self._clock.sleep(delay * (0.5 + 0.5 * self._entropy.fraction()))
            delay = min(delay * 2, MAX_DELAY_S)

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)

    async def close(self) -> None:
        if self._place is not None:
            self._place[0].close()

    # -- one try

    async def _try(self, operation: str, kind: str, body: bytes) -> dict[str, Any] | LostRace:
        try:
            reply = await self._exchange(operation, body)
        except TimedOut:
            raise _Again(f"no answer within {self.patience.try_s:g} s") from None
        except ExchangeFailed as failed:
            raise _Again(str(failed), at_once=True) from failed
        except AccessFailed as failed:
            raise Refused(f"{operation} on table {self.table}: {failed}") from failed
        if reply.broken is not None:
            raise _Again(f"{reply.broken} in the middle of the answer", at_once=True)
        checksum = reply.headers.get("x-amz-crc32")
        if checksum is not None and checksum != str(zlib.crc32(reply.body)):
            raise _Again("the answer was damaged on its way", at_once=True)
        answer = _parsed(reply)
        if reply.status == 200:
            self._count(operation, kind, answer)
            return answer
        return self._refusal(operation, kind, reply, answer)

    async def _exchange(self, operation: str, body: bytes) -> EndpointResponse:
        deadline = asyncio.get_running_loop().time() + self.patience.try_s
        try:
            async with asyncio.timeout_at(deadline):  # credentials may be due for renewal at any call
                origin, target = self._place or await self._found()
                credentials = await self._access.credentials(self.region, None)
        except TimeoutError:
            raise TimedOut from None
        headers = {
            "host": target.authority,
            "content-type": "application/x-amz-json-1.0",
            "x-amz-target": f"DynamoDB_20120810.{operation}",
        }
        path = target.base_path + "/"
        headers |= self._signer.sign("POST", path, headers, body, credentials, now_ms=self.now_ms())
        outgoing = Outgoing(target.scheme, "POST", target.authority, path, list(headers.items()), body)
        return await origin.exchange(outgoing, timeout_s=max(0.0, deadline - asyncio.get_running_loop().time()))

    async def _found(self) -> tuple[Origin, Target]:
        target = parse_uri(await self._access.endpoint("dynamodb", self.region))
        context = None
        if target.scheme == "https":
            context = self._tls()
            context.set_alpn_protocols(["http/1.1"])
        if self._place is None:  # two first calls: the one that waited less made it
            self._place = Origin(target, HttpVersion.HTTP_1_1, context, idle_limit=IDLE_CONNECTIONS, resend=False), target
        return self._place

    def _count(self, operation: str, kind: str, answer: Mapping[str, Any]) -> None:
        if self._meter is not None:
            consumed = answer.get("ConsumedCapacity") or {}
            each = consumed if isinstance(consumed, list) else [consumed]
            self._meter.count(operation, kind, sum(float(one.get("CapacityUnits", 0)) for one in each))

    def _refusal(self, operation: str, kind: str, reply: EndpointResponse, answer: dict[str, Any]) -> LostRace:
        code = str(answer.get("__type", "")).rpartition("#")[2]
        message = str(answer.get("message") or answer.get("Message") or "")
        if code == CONDITION_FAILED:
            self._count(operation, kind, answer)
            return LostRace(answer.get("Item"))
        if code in _SKEWED or any(words in message for words in _SKEW_WORDS):
            self._correct_clock(reply.headers.get("date"))
            raise _Again(f"our clock is {-self.skew_ms / 1000:+.0f} s off the service's; corrected for requests, set the system's clock")
        if code in _THROTTLED:
            self._metrics.store_throttles += 1
        if code in _THROTTLED or code in _TRANSIENT or reply.status >= 500:
            raise _Again(f"{code or reply.status} {message}".rstrip())
        advice = f"; {_ADVICE[code]}" if code in _ADVICE else ""
        raise Refused(f"{operation} on table {self.table} in {self.region} was refused: {code or reply.status}: {message}{advice}")

    def _correct_clock(self, date: str | None) -> None:
        with contextlib.suppress(ValueError):  # no date, or none that can be read
            self.skew_ms = int(parsedate_to_datetime(date or "").timestamp() * 1000) - self._clock.now_ms()


def _parsed(reply: EndpointResponse) -> dict[str, Any]:
    try:
        answer = json.loads(reply.body)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer
    if reply.status == 200:
        raise _Again("the answer is no JSON object; is the address that of DynamoDB?")
    return {"message": reply.body[:300].decode("utf-8", "replace")}


async def read_partition(client: DynamoDbClient, kind: str, partition: str, *, keys_only: bool = False) -> list[dict[str, Any]]:
    """Every item of a partition, in the order of `sk`."""
    request: dict[str, Any] = {
        "TableName": client.table,
        "ConsistentRead": True,
        "KeyConditionExpression": "pk = :p",
        "ExpressionAttributeValues": {":p": {"S": partition}},
    }
    if keys_only:
        request["ProjectionExpression"] = "pk, sk"
    found: list[dict[str, Any]] = []
    while True:
        answer = await client.call("Query", kind, request, patience_s=client.patience.call_s)
        found += answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return found
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
