"""Every table by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from holdfast_runtime.surfaces.introspection import flow_tables as flow
from holdfast_runtime.surfaces.introspection import invocation_tables as invocation
from holdfast_runtime.surfaces.introspection import journal_tables as journal
from holdfast_runtime.surfaces.introspection import keyed_tables as keyed
from holdfast_runtime.surfaces.introspection import registry_tables as registry
from holdfast_runtime.surfaces.introspection.tables import Table

TABLES: Final[Mapping[str, Table]] = {
    table.name: table
    for table in (
        invocation.SYS_INVOCATION,
        invocation.SYS_INVOCATION_STATUS,
        invocation.SYS_INVOCATION_STATE,
        journal.SYS_JOURNAL,
        journal.SYS_JOURNAL_EVENTS,
        keyed.STATE,
        keyed.SYS_INBOX,
        keyed.SYS_KEYED_SERVICE_STATUS,
        keyed.SYS_PROMISE,
        keyed.SYS_LOCKS,
        registry.SYS_DEPLOYMENT,
        registry.SYS_SERVICE,
        flow.SYS_RULES,
        flow.SYS_USER_LIMITS,
        flow.SYS_SCHEDULER,
        flow.SYS_VQUEUES,
        flow.SYS_VQUEUE_META,
        flow.SYS_VQUEUE_ENTRY_STATUS,
    )
}
