"""The table as PynamoDB models: one description for setting it up, for checking it and for tests.

The hot path serialises by itself (`dynamodb_items`); `tests/adapters/test_dynamodb_models.py` holds both to the same
shapes. A model is bound to a table by `bound`, because the table's name is the user's to choose. Synchronous: for the
command line and tests, never on the coordinator's event loop.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from pynamodb.attributes import BinaryAttribute, BooleanAttribute, NumberAttribute, UnicodeAttribute
from pynamodb.constants import PAY_PER_REQUEST_BILLING_MODE
from pynamodb.models import Model

TTL_ATTRIBUTE: Final = "ttl"


class TableItem(Model):
    """What every item has. `ttl`: seconds since 1970 after which the service may delete it."""

    class Meta:
        table_name = ""
        billing_mode = PAY_PER_REQUEST_BILLING_MODE

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    ttl = NumberAttribute(null=True)


class LogEntry(TableItem):
    epoch = NumberAttribute(attr_name="e")
    nonce = BinaryAttribute(attr_name="w", legacy_encoding=False)
    first = NumberAttribute(attr_name="f", null=True)
    part = NumberAttribute(attr_name="i", null=True)
    parts = NumberAttribute(attr_name="n", null=True)
    plain = BinaryAttribute(attr_name="b", null=True, legacy_encoding=False)
    packed = BinaryAttribute(attr_name="z", null=True, legacy_encoding=False)


class PageItem(TableItem):
    lsn = NumberAttribute(attr_name="l")
    plain = BinaryAttribute(attr_name="b", null=True, legacy_encoding=False)
    packed = BinaryAttribute(attr_name="z", null=True, legacy_encoding=False)
    is_tombstone = BooleanAttribute(attr_name="d", null=True)
    expires_at_ms = NumberAttribute(attr_name="x", null=True)


class ShardItem(TableItem):
    epoch = NumberAttribute(attr_name="e")
    owner = UnicodeAttribute()
    checkpoint = NumberAttribute(attr_name="cp")
    tip = NumberAttribute()
    alive_at = NumberAttribute(attr_name="at")


class SetupItem(TableItem):
    version = NumberAttribute(attr_name="v")
    shards = NumberAttribute(attr_name="n")
    bucket = UnicodeAttribute(null=True)


class MemberItem(TableItem):
    counter = NumberAttribute(attr_name="c")
    address = UnicodeAttribute(attr_name="addr")


class RegistryItem(TableItem):
    version = NumberAttribute(attr_name="v")
    plain = BinaryAttribute(attr_name="b", null=True, legacy_encoding=False)
    packed = BinaryAttribute(attr_name="z", null=True, legacy_encoding=False)


class BlobPart(TableItem):
    stream = UnicodeAttribute(attr_name="h")
    parts = NumberAttribute(attr_name="n")
    put_at = NumberAttribute(attr_name="at", null=True)
    plain = BinaryAttribute(attr_name="b", null=True, legacy_encoding=False)
    packed = BinaryAttribute(attr_name="z", null=True, legacy_encoding=False)


M = TypeVar("M", bound=TableItem)


def bound(model: type[M], table: str, region: str | None = None) -> type[M]:
    """`model` in the table of that name. Endpoint and credentials are those of the environment."""
    meta: dict[str, Any] = {"table_name": table, "billing_mode": PAY_PER_REQUEST_BILLING_MODE, "max_retry_attempts": 5}
    if region is not None:
        meta["region"] = region
    return type(model.__name__, (model,), {"Meta": type("Meta", (), meta)})
