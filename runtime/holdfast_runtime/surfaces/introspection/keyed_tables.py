"""What belongs to a key: its state, its queue, who holds it, its promises (http-api §4.3)."""

from __future__ import annotations

from typing import Final

from holdfast.protocol.ids import keyed_partition_key
from holdfast_runtime.surfaces.introspection.tables import Derived, Table, columns


def _utf8(value: bytes | None) -> str | None:
    """None for what is not text."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


_PARTITION_KEY: Final = Derived(("service_key",), keyed_partition_key)
_KEY: Final = frozenset({"service_name", "service_key"})

STATE: Final = Table(
    "state",
    columns(
        """
        partition_key:u64 scope:s- service_name:s service_key:s key:s key_length:u64 value_utf8:s value:bin value_length:u64
        """,
        {
            "partition_key": _PARTITION_KEY,
            "key_length": Derived(("key",), lambda key: len(key.encode())),
            "value_utf8": Derived(("value",), _utf8),
        },
    ),
    source="state",
    filters=_KEY | {"key"},
    identity=("service_name", "service_key", "key"),
)

SYS_INBOX: Final = Table(
    "sys_inbox",
    columns(
        "partition_key:u64 service_name:s service_key:s id:s sequence_number:u64 created_at:ts",
        {"partition_key": _PARTITION_KEY},
    ),
    source="inbox",
    filters=_KEY | {"id"},
    identity=("id",),
)

SYS_KEYED_SERVICE_STATUS: Final = Table(
    "sys_keyed_service_status",
    columns("partition_key:u64 service_name:s service_key:s invocation_id:s", {"partition_key": _PARTITION_KEY}),
    source="locks",
    filters=_KEY | {"invocation_id"},
    identity=("invocation_id",),
)

SYS_PROMISE: Final = Table(
    "sys_promise",
    columns(
        """
        partition_key:u64 scope:s- service_name:s service_key:s key:s completed:b
        completion_success_value:bin completion_success_value_utf8:s completion_failure:s
        """,
        {
            "partition_key": _PARTITION_KEY,
            "completion_success_value_utf8": Derived(("completion_success_value",), _utf8),
        },
    ),
    source="promises",
    filters=_KEY | {"key"},
    identity=("service_name", "service_key", "key"),
)

SYS_LOCKS: Final = Table(
    "sys_locks",
    columns(
        "partition_key:u64 scope:s- lock_name:s acquired_at:ts acquired_by:s=invocation_id",
        {
            "partition_key": _PARTITION_KEY,
            "lock_name": Derived(("service_name", "service_key"), lambda service, key: f"{service}/{key}"),
        },
    ),
    source="locks",
    filters=frozenset({"invocation_id"}),
    identity=("invocation_id",),
)
