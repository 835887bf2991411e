"""Setting a table up and looking at one: what `holdfast store init` and `holdfast store check` do.

1. Both are safe to repeat. Setting up writes nothing that is there already; checking leaves nothing behind.
2. The number of shards is fixed by the first setup: it says where every invocation lives.
3. Checking tries every operation that the coordinator uses, in its least harmful form, because a policy can only be
   known by trying.

Synchronous boto3 and PynamoDB: for the command line and tests.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from statistics import median
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from holdfast_runtime.adapters import dynamodb_items as items
from holdfast_runtime.adapters.aws_access import REGION_VARIABLE, bad_configuration, bad_endpoint
from holdfast_runtime.adapters.dynamodb_models import TTL_ATTRIBUTE, TableItem, bound
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.s3_blobs import object_key
from holdfast_runtime.ports.store import ShardRecord, StoreBroken
from holdfast_runtime.ports.system import Clock

MAX_SHARDS: Final = 256  # storage design §12
DEFAULT_SHARDS: Final = 8
KEYS: Final = {"pk": "HASH", "sk": "RANGE"}
SLOW_MS: Final = 30.0  # of a small write; in the table's own region it takes 3 to 10
SKEW_S: Final = 30.0
REFUSED_SKEW_S: Final = 240.0  # the service refuses signatures that are 5 minutes off
SAMPLES: Final = 10
BEYOND: Final = 10**9  # positions; a shard's log gets so many in two months at the most. There are sixteen digits for them
CHECK_NAME: Final = "holdfast-store-check"
_UNSUPPORTED: Final = frozenset({"UnknownOperationException", "UnrecognizedOperationException", "InvalidAction", "NotImplemented", "501"})


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `detail`: what was found; for a warning or error also what to do."""

    subject: str
    level: Level
    detail: str


class Setup:
    """One table. Raises StoreBroken where nothing can be done or said."""

    def __init__(self, table: DynamoDbTable, clock: Clock) -> None:
        self._table = table.name
        self._clock = clock
        try:
            self._region = table.region or os.environ.get(REGION_VARIABLE) or boto3.Session().region_name
            if not self._region:
                raise StoreBroken(f"no AWS region is known; set AWS_REGION, or name it: dynamodb://{table.name}?region=...")
            self._client: Any = boto3.client("dynamodb", region_name=self._region)
        except BotoCoreError as problem:
            raise StoreBroken(bad_configuration(problem)) from problem
        except ValueError as problem:
            raise StoreBroken(bad_endpoint("dynamodb", problem)) from problem

    # -- set up

    def init(self, shards: int | None, bucket: str | None, *, accept_lost_log: bool = False) -> Iterator[str]:
        """Bring the table into the state that the store needs; yields what was done or found, step by step.

        shards: None takes those of a table that is set up, or the default. bucket: for large values; None keeps what is set.
        accept_lost_log: let shards be taken although their owner died so long ago that part of their log may have expired.
        """
        wanted = DEFAULT_SHARDS if shards is None else shards
        if not 1 <= wanted <= MAX_SHARDS:
            raise StoreBroken(f"a store has 1 to {MAX_SHARDS} shards; found {wanted}")
        yield self._create()
        yield self._expire()
        yield self._back_up()
        yield self._set_up(shards, wanted, bucket)
        yield self._add_shards()
        if accept_lost_log:
            yield self._accept_lost_log()

    def _create(self) -> str:
        if self._describe() is None:
            _ask(lambda: bound(TableItem, self._table, self._region).create_table(wait=True))
            return f"table {self._table} created, on demand"
        wrong = self._wrong_keys()
        if wrong:
            raise StoreBroken(f"{wrong}; choose another table name")
        return f"table {self._table} exists"

    def _expire(self) -> str:
        if self._ttl() == TTL_ATTRIBUTE:
            return "time to live is on"
        wanted = {"Enabled": True, "AttributeName": TTL_ATTRIBUTE}
        self._ask("update_time_to_live", TimeToLiveSpecification=wanted)
        return "time to live turned on"

    def _back_up(self) -> str:
        state = self._backups()
        if state == "ENABLED":
            return "point-in-time recovery is on"
        if state is None:
            return "point-in-time recovery is not offered here"
        wanted = {"PointInTimeRecoveryEnabled": True}
        try:
            self._client.update_continuous_backups(TableName=self._table, PointInTimeRecoverySpecification=wanted)
        except ClientError as error:
            if _code(error) == "ContinuousBackupsUnavailableException":  # of a table made a moment ago
                return "point-in-time recovery is not available yet; run this again in a minute"
            raise _broken(error) from error
        return "point-in-time recovery turned on"

    def _set_up(self, asked: int | None, wanted: int, bucket: str | None) -> str:
        there = self._setup()
        if there is None:
            self._put_absent(items.setup_item(wanted, bucket))
            there = self._setup()
            assert there is not None
        found = items.int_of(there, "n")
        if asked is not None and asked != found:
            raise StoreBroken(f"the store has {found} shards, fixed when it was set up; leave --shards out, or choose another table")
        if bucket is not None and items.text_of(there, "bucket") != bucket:
            self._ask(
                "update_item",
                Key={"pk": there["pk"], "sk": there["sk"]},
                UpdateExpression="SET #b = :b",
                ExpressionAttributeNames={"#b": "bucket"},
                ExpressionAttributeValues={":b": items.text(bucket)},
            )
            return f"{found} shards; large values now go to bucket {bucket}"
        return f"{found} shards; large values go to " + (items.text_of(there, "bucket") or "the table")

    def _add_shards(self) -> str:
        setup = self._setup()
        assert setup is not None
        now_s = self._clock.now_ms() // 1000
        added = [self._put_absent(items.shard_item(ShardRecord(n, 0, "", 1, 1), now_s=now_s)) for n in range(items.int_of(setup, "n"))]
        return f"{added.count(True)} shard records added" if any(added) else "every shard record is there"

    def _accept_lost_log(self) -> str:
        """Where the log has a gap it ends: the pages stand as they were written back. Numbers go on far behind all that were ever given, so
        that what is left of the log, or lands late, never meets what comes."""
        stale = set(self._too_old())
        found = [items.shard_of(item) for item in self._partition(items.SHARDS_KEY) if item["sk"]["S"] != items.SETUP]
        lost = {record.shard for record in found if self._has_gap(record)}
        for record in found:
            if record.shard not in stale | lost:
                continue
            position = record.tip + BEYOND if record.shard in lost else record.checkpoint
            self._ask(
                "update_item",
                Key=items.shard_key(record.shard),
                UpdateExpression="SET #a = :a, cp = :p, tip = :t",
                ConditionExpression="e = :e",
                ExpressionAttributeNames={"#a": "at"},
                ExpressionAttributeValues={
                    ":a": items.number(self._clock.now_ms() // 1000),
                    ":p": items.number(position),
                    ":t": items.number(max(position, record.tip)),
                    ":e": items.number(record.epoch),
                },
            )
        if not stale | lost:
            return "no shard's log may have expired"
        text = f"shards {sorted(stale | lost)} may be taken with what is left of their logs"
        return text + (f"; of {sorted(lost)} that is nothing, their last minutes are lost" if lost else "")

    def _has_gap(self, record: ShardRecord) -> bool:
        """Is a position missing between the checkpoint and where the log reached at least?"""
        wanted = range(record.checkpoint, record.tip)
        for first in range(record.checkpoint // items.POSITIONS_PER_KEY * items.POSITIONS_PER_KEY, record.tip, items.POSITIONS_PER_KEY):
            there = {int(item["sk"]["S"]) for item in self._partition(items.log_partition(record.shard, first))}
            if any(position in wanted and position not in there for position in range(first, first + items.POSITIONS_PER_KEY)):
                return True
        return False

    def _too_old(self) -> list[int]:
        """Shards whose owner died so long ago that their log ahead of the checkpoint may have begun to expire."""
        limit = self._clock.now_ms() // 1000 - items.SURE_S
        found = [item for item in self._partition(items.SHARDS_KEY) if item["sk"]["S"] != items.SETUP]
        return [items.shard_of(item).shard for item in found if items.text_of(item, "owner") and items.int_of(item, "at") <= limit]

    def _put_absent(self, item: items.Item) -> bool:
        try:
            self._client.put_item(TableName=self._table, Item=_raw(item), ConditionExpression="attribute_not_exists(pk)")
        except ClientError as error:
            if _code(error) == "ConditionalCheckFailedException":
                return False
            raise _broken(error) from error
        except BotoCoreError as error:
            raise _broken(error) from error
        return True

    # -- check

    def check(self) -> Iterator[Finding]:
        """Everything that a coordinator will need of the table, one finding at a time."""
        described = self._describe()
        if described is None:
            where = f" in {self._client.meta.region_name}"
            yield Finding("table", Level.ERROR, f"{self._table} does not exist{where}; create it with `holdfast store init`")
            return
        wrong = self._wrong_keys()
        if wrong:
            yield Finding("table", Level.ERROR, f"{wrong}; choose another table")
            return
        yield self._check_table(described)
        yield self._check_ttl()
        yield self._check_backups()
        setup = self._setup()
        if setup is None:
            yield Finding("setup", Level.ERROR, "the table is not set up; run `holdfast store init`")
            return
        yield self._check_setup(setup)
        yield from self._check_owners()
        yield from self._check_operations()
        bucket = items.text_of(setup, "bucket")
        if bucket:
            yield self._check_bucket(bucket)
        yield from self._check_speed_and_clock()

    def _check_table(self, described: dict[str, Any]) -> Finding:
        status = described["TableStatus"]
        if status != "ACTIVE":
            return Finding("table", Level.WARNING, f"{self._table} is {status}; wait until it is ACTIVE")
        billing = described.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")
        if billing != "PAY_PER_REQUEST":
            return Finding("table", Level.WARNING, f"{self._table} has provisioned capacity and will be throttled by it; make it on demand")
        return Finding("table", Level.OK, f"{self._table} is active, on demand, about {described.get('ItemCount', 0)} items")

    def _check_ttl(self) -> Finding:
        attribute = self._ttl()
        if attribute == TTL_ATTRIBUTE:
            return Finding("time to live", Level.OK, f"on, attribute {attribute}")
        found = f"it is on attribute {attribute}" if attribute else "it is off"
        return Finding("time to live", Level.ERROR, f"{found}: the log would grow without end; run `holdfast store init`")

    def _check_backups(self) -> Finding:
        state = self._backups()
        if state == "ENABLED":
            return Finding("point-in-time recovery", Level.OK, "on")
        if state is None:
            return Finding("point-in-time recovery", Level.WARNING, "not offered here, as by emulators")
        return Finding("point-in-time recovery", Level.WARNING, "off; `holdfast store init` turns it on")

    def _check_setup(self, setup: items.Item) -> Finding:
        version, shards = items.int_of(setup, "v"), items.int_of(setup, "n")
        if version != items.SCHEMA_VERSION:
            return Finding("setup", Level.ERROR, f"schema version {version}, this program knows {items.SCHEMA_VERSION}; use its program")
        missing = sorted(set(range(shards)) - {record.shard for record in self._records()})
        if missing:
            return Finding("setup", Level.ERROR, f"shard records are missing: {missing}; run `holdfast store init`")
        return Finding("setup", Level.OK, f"schema version {version}, {shards} shards")

    def _check_owners(self) -> Iterator[Finding]:
        """Shards in the name of a process that is gone: what their logs hold must be taken over before it expires."""
        members = {item["sk"]["S"] for item in self._partition(items.MEMBERS_KEY)}
        owned = [item for item in self._partition(items.SHARDS_KEY) if items.text_of(item, "owner")]
        orphans = [item for item in owned if items.text_of(item, "owner") not in members]
        if too_old := self._too_old():
            wrong = "were not handed over, and their logs may have expired since"
            what = "restore the table to a moment before, or `holdfast store init --accept-lost-log`"
            yield Finding("owners", Level.ERROR, f"shards {too_old} {wrong}; {what}")
        elif orphans:
            oldest = min(items.int_of(item, "at") for item in orphans) + items.SURE_S
            day = datetime.fromtimestamp(oldest, UTC).strftime("%Y-%m-%d %H:%M UTC")
            shards = [items.shard_of(item).shard for item in orphans]
            yield Finding("owners", Level.WARNING, f"shards {shards} were not handed over; start a coordinator before {day}")
        else:
            yield Finding("owners", Level.OK, f"{len(members)} processes known, {len(owned)} shards owned")

    def _check_operations(self) -> Iterator[Finding]:
        """Each with an item of our own that is removed again, or under a condition that cannot hold."""
        key = {"pk": items.text(items.REGISTRY_KEY), "sk": items.text(CHECK_NAME)}
        never = {"ConditionExpression": "attribute_not_exists(pk) AND attribute_exists(pk)"}
        tries: dict[str, Callable[[], Any]] = {
            "PutItem": lambda: self._client.put_item(TableName=self._table, Item=key),
            "GetItem": lambda: self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True),
            "BatchGetItem": lambda: self._client.batch_get_item(RequestItems={self._table: {"Keys": [key], "ConsistentRead": True}}),
            "UpdateItem": lambda: self._client.update_item(TableName=self._table, Key=key, UpdateExpression="SET v = v", **never),
            "DeleteItem": lambda: self._client.delete_item(TableName=self._table, Key=key),
        }
        refused = [problem for name, attempt in tries.items() if (problem := _refusal(name, attempt))]
        if refused:
            yield Finding("permissions", Level.ERROR, "; ".join(refused) + "; allow them on the table (docs/dynamodb.md has the policy)")
        else:
            yield Finding("permissions", Level.OK, ", ".join([*tries, "Query"]))
        if no_scan := _refusal("Scan", lambda: self._client.scan(TableName=self._table, Limit=1)):
            yield Finding("sweeps", Level.WARNING, f"{no_scan}; large values that are not needed any more stay (docs/dynamodb.md)")

    def _check_bucket(self, bucket: str) -> Finding:
        s3 = boto3.client("s3", region_name=self._client.meta.region_name)
        target = {"Bucket": bucket, "Key": object_key(CHECK_NAME)}
        tries: dict[str, Callable[[], Any]] = {
            "PutObject": lambda: s3.put_object(Body=b"check", **target),
            "GetObject": lambda: s3.get_object(**target),
            "DeleteObject": lambda: s3.delete_object(**target),
        }
        refused = [problem for name, attempt in tries.items() if (problem := _refusal(name, attempt))]
        if refused:
            return Finding("bucket", Level.ERROR, f"{bucket}: {'; '.join(refused)}; allow them below blob/, or correct its name")
        if no_list := _refusal("ListBucket", lambda: s3.list_objects_v2(Bucket=bucket, Prefix=target["Key"], MaxKeys=1)):
            text = f"{bucket}: {no_list}; large values that are not needed any more stay (docs/dynamodb.md)"
            return Finding("bucket", Level.WARNING, text)
        return Finding("bucket", Level.OK, f"{bucket}: {', '.join([*tries, 'ListBucket'])}")

    def _check_speed_and_clock(self) -> Iterator[Finding]:
        key = {"pk": items.text(items.REGISTRY_KEY), "sk": items.text(CHECK_NAME)}
        took: list[float] = []
        date = None
        for _ in range(SAMPLES):
            began = self._clock.monotonic()
            answer = self._ask("put_item", Item=key)
            took.append((self._clock.monotonic() - began) * 1000)
            date = answer["ResponseMetadata"]["HTTPHeaders"].get("date", date)
        self._ask("delete_item", Key=key)
        typical, worst = median(took), max(took)
        shown = f"a write takes {typical:.1f} ms, at most {worst:.1f} ms of {SAMPLES}"
        slow = typical > SLOW_MS
        yield Finding(
            "latency", Level.WARNING if slow else Level.OK, shown + ("; run the coordinator in the table's region" if slow else "")
        )
        if date is not None:
            yield _clock_finding(parsedate_to_datetime(date).timestamp() - self._clock.now_ms() / 1000)

    # -- asking

    def _describe(self) -> dict[str, Any] | None:
        try:
            described: dict[str, Any] = self._client.describe_table(TableName=self._table)["Table"]
            return described
        except ClientError as error:
            if _code(error) == "ResourceNotFoundException":
                return None
            raise _broken(error) from error
        except BotoCoreError as error:
            raise _broken(error) from error

    def _wrong_keys(self) -> str | None:
        described = self._describe() or {}
        keys = {key["AttributeName"]: key["KeyType"] for key in described.get("KeySchema", [])}
        kinds = {one["AttributeName"]: one["AttributeType"] for one in described.get("AttributeDefinitions", [])}
        if keys == KEYS and all(kinds.get(name) == "S" for name in KEYS):
            return None
        return f"table {self._table} has the keys {keys or 'of nothing'}; expected are the strings pk (HASH) and sk (RANGE)"

    def _ttl(self) -> str | None:
        found = self._ask("describe_time_to_live").get("TimeToLiveDescription", {})
        if found.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
            return None
        name: str | None = found.get("AttributeName")
        return name

    def _backups(self) -> str | None:
        """None: the service does not know of backups."""
        try:
            found = self._client.describe_continuous_backups(TableName=self._table)["ContinuousBackupsDescription"]
        except ClientError as error:
            if _code(error) in _UNSUPPORTED:
                return None
            raise _broken(error) from error
        state: str = found.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus", "DISABLED")
        return state

    def _setup(self) -> items.Item | None:
        key = {"pk": items.text(items.SHARDS_KEY), "sk": items.text(items.SETUP)}
        found: items.Item | None = self._ask("get_item", Key=key, ConsistentRead=True).get("Item")
        return found

    def _records(self) -> list[ShardRecord]:
        return [items.shard_of(item) for item in self._partition(items.SHARDS_KEY) if item["sk"]["S"] != items.SETUP]

    def _partition(self, name: str) -> list[items.Item]:
        found: list[items.Item] = []
        more: dict[str, Any] = {}
        while True:
            answer = self._ask(
                "query", KeyConditionExpression="pk = :p", ExpressionAttributeValues={":p": items.text(name)}, ConsistentRead=True, **more
            )
            found += answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return found
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = _ask(lambda: getattr(self._client, operation)(TableName=self._table, **arguments))
        return answer


def _ask(call: Callable[[], Any]) -> Any:
    from pynamodb.exceptions import PynamoDBException

    try:
        return call()
    except (ClientError, BotoCoreError, PynamoDBException) as error:
        raise _broken(error) from error


def _broken(error: Exception) -> StoreBroken:
    code = _code(error) if isinstance(error, ClientError) else ""
    denied = "; allow it to the role that runs this command (docs/dynamodb.md has the policy)" if code.startswith("AccessDenied") else ""
    return StoreBroken(f"DynamoDB: {error}{denied}")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _refusal(name: str, attempt: Callable[[], Any]) -> str | None:
    try:
        attempt()
    except ClientError as error:
        return None if _code(error) == "ConditionalCheckFailedException" else f"{name} is refused ({_code(error)})"
    except BotoCoreError as error:
        return f"{name} failed ({error})"
    return None


def _clock_finding(off_s: float) -> Finding:
    off_s = off_s if abs(off_s) > 1 else 0.0  # the service's own answer has whole seconds
    if abs(off_s) <= SKEW_S:
        return Finding("clock", Level.OK, "agrees with the service's")
    level = Level.ERROR if abs(off_s) > REFUSED_SKEW_S else Level.WARNING
    return Finding("clock", level, f"is {off_s:+.0f} s off the service's; set it by a time service (NTP)")


def _raw(item: items.Item) -> dict[str, Any]:
    """Only texts and numbers: the form is the same for boto3."""
    assert all("B" not in value for value in item.values())
    return dict(item)
