"""`sys_invocation` and the two tables it joins in the reference: the durable record, and what the executor knows (http-api §4.3)."""

from __future__ import annotations

from typing import Final

from holdfast_runtime.surfaces.introspection.tables import Table, columns

_FILTERS: Final = frozenset(
    {
        "id",
        "target",
        "status",
        "raw_status",
        "target_service_name",
        "target_service_key",
        "target_handler_name",
        "target_service_ty",
        "completion_result",
        "pinned_deployment_id",
        "last_attempt_deployment_id",
        "idempotency_key",
        "invoked_by_id",
    }
)

SYS_INVOCATION: Final = Table(
    "sys_invocation",
    columns(
        """
        id:s vqueue_id:s- target:s target_service_name:s target_service_key:s target_handler_name:s target_service_ty:s
        scope:s- limit_key:s- idempotency_key:s
        invoked_by:s invoked_by_service_name:s invoked_by_id:s invoked_by_subscription_id:s- invoked_by_target:s restarted_from:s
        pinned_deployment_id:s pinned_service_protocol_version:u32 trace_id:s journal_size:u32 journal_commands_size:u32
        created_at:ts created_using_restate_version:s- modified_at:ts inboxed_at:ts scheduled_at:ts scheduled_start_at:ts running_at:ts
        completed_at:ts completion_retention:dur journal_retention:dur
        suspended_waiting_for_completions:[u32] suspended_waiting_for_signals:[u32] suspended_waiting_future_json:s
        retry_count:u64 last_start_at:ts next_retry_at:ts last_attempt_deployment_id:s last_attempt_server:s
        last_failure:s last_failure_error_code:s
        last_failure_related_entry_index:u64- last_failure_related_entry_name:s- last_failure_related_entry_type:s-
        last_failure_related_command_index:u64 last_failure_related_command_name:s last_failure_related_command_type:s
        last_awaiting_on_future_json:s- status:s! completion_result:s completion_failure:s
        """
    ),
    source="invocations",
    filters=_FILTERS,
    identity=("id",),
    is_timed=True,
)

SYS_INVOCATION_STATUS: Final = Table(
    "sys_invocation_status",
    columns(
        """
        partition_key:u64 id:s vqueue_id:s- status:s=raw_status completion_result:s completion_failure:s
        target:s target_service_name:s target_service_key:s target_handler_name:s target_service_ty:s
        scope:s- limit_key:s- idempotency_key:s
        invoked_by:s invoked_by_id:s invoked_by_subscription_id:s- invoked_by_service_name:s invoked_by_target:s restarted_from:s
        pinned_deployment_id:s pinned_service_protocol_version:u32 trace_id:s journal_size:u32 journal_commands_size:u32
        created_at:ts created_using_restate_version:s- modified_at:ts inboxed_at:ts scheduled_at:ts scheduled_start_at:ts running_at:ts
        completed_at:ts completion_retention:dur journal_retention:dur
        suspended_waiting_for_completions:[u32] suspended_waiting_for_signals:[u32] suspended_waiting_future_json:s
        """
    ),
    source="invocations",
    filters=_FILTERS,
    identity=("id",),
    is_timed=True,
)

SYS_INVOCATION_STATE: Final = Table(
    "sys_invocation_state",
    columns(
        """
        partition_key:u64 id:s in_flight:b retry_count:u64 last_start_at:ts last_attempt_deployment_id:s last_attempt_server:s
        next_retry_at:ts last_failure:s last_failure_error_code:s
        last_failure_related_command_index:u64 last_failure_related_command_name:s last_failure_related_command_type:s
        last_failure_related_entry_index:u64- last_failure_related_entry_name:s- last_failure_related_entry_type:s-
        last_awaiting_on_future_json:s-
        """
    ),
    source="invocations",
    filters=frozenset({"id"}),
    identity=("id",),
    only={"raw_status": ("invoked",)},
)
