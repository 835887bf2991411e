"""`sys_journal` and `sys_journal_events`. The source gives frames; what tools show of them is made here, in the engine's process."""

from __future__ import annotations

from typing import Any, Final

from holdfast.protocol import messages
from holdfast.protocol.messages import MessageType
from holdfast_runtime.surfaces.introspection import journal_json
from holdfast_runtime.surfaces.introspection.tables import Derived, Table, columns


def _entry_type(type_: int) -> str:
    kind = "Command" if messages.is_command(type_) else "Notification"
    return f"{kind}: {journal_json.name_of(type_)}"


def _name(type_: int, raw: bytes) -> str | None:
    """What the user called a command; notifications have no name."""
    if not messages.is_command(type_):
        return None
    message: Any = messages.parse(type_, raw)
    name: str = message.entry_name if type_ == MessageType.SEND_SIGNAL_COMMAND else message.name
    return name


SYS_JOURNAL: Final = Table(
    "sys_journal",
    columns(
        """
        partition_key:u64 id:s index:u32 entry_type:s name:s completed:b- invoked_id:s- invoked_target:s- sleep_wakeup_at:ts-
        promise_name:s- raw:bin raw_length:u64 version:u32 entry_json:s entry_lite_json:s appended_at:ts
        """,
        {
            "entry_type": Derived(("type",), _entry_type),
            "name": Derived(("type", "raw"), _name),
            "version": Derived(("type",), lambda _: 2),
            "entry_json": Derived(("type", "raw", "call"), journal_json.entry_json),
            "entry_lite_json": Derived(("type", "raw"), journal_json.entry_lite_json),
        },
    ),
    source="journal",
    filters=frozenset({"id"}),
    identity=("id", "index"),
)

SYS_JOURNAL_EVENTS: Final = Table(
    "sys_journal_events",
    columns(
        "partition_key:u64 id:s after_journal_entry_index:u32 appended_at:ts event_type:s event_json:s",
        {"event_json": Derived(("event_type", "failure"), journal_json.event_json)},
    ),
    source="events",
    filters=frozenset({"id"}),
    identity=("id", "event_type"),
    only={"raw_status": ("invoked", "paused")},
)
