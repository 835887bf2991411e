"""From the configuration to what the parts take. Imports the runtime, so only commands that start one import this."""

from __future__ import annotations

import socket

from holdfast_runtime.adapters.http_exchange import Limits
from holdfast_runtime.app.aws_parts import AwsConfig
from holdfast_runtime.app.config.resolving import Configuration
from holdfast_runtime.app.runtime import RuntimeConfig
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.engine.registry import OnMaxAttempts, RetryPolicy
from holdfast_runtime.surfaces.ingress import IngressSettings
from holdfast_runtime.surfaces.introspection.engine import QueryLimits
from holdfast_runtime.surfaces.server import Listener


def runtime_config(found: Configuration, sockets: tuple[socket.socket, socket.socket] | None = None) -> RuntimeConfig:
    """sockets: of ingress and admin API, when they are bound already."""
    return RuntimeConfig(
        store=found["store"],
        ingress=sockets[0] if sockets is not None else Listener(*found["ingress"]),
        admin=sockets[1] if sockets is not None else Listener(*found["admin"]),
        shards=found["shards"],
        settings=coordinator_settings(found),
        request_identity_private_key_pem_file=found["request-identity-private-key-pem-file"],
        request_identity_valid_s=round(found.seconds("request-identity-expiration")),
        cluster_name=found["cluster-name"],
        advertised_ingress=found["ingress-advertised-address"],
        grace_s=found.seconds("shutdown-grace"),
        ingress_idle_s=found.seconds("ingress-idle-timeout"),
        ingress_settings=IngressSettings(found["ingress-request-size-limit"], found["ingress-concurrent-requests-limit"]),
        query_limits=QueryLimits(found.seconds("query-timeout"), found["query-concurrency-limit"], found["query-memory-limit"]),
        call_limits=Limits(
            connect_timeout_s=found.seconds("connect-timeout"),
            idle_timeout_s=found.seconds("connection-idle-timeout"),
            response_bytes=found["response-size-limit"],
            compress_from_bytes=found["request-compression-threshold"],
        ),
        external_id=found["aws-assume-role-external-id"],
        ingress_token_file=found["ingress-token-file"],
        admin_token_file=found["admin-token-file"],
        blob_sweep=found["blob-sweep"] == "weekly",
        metrics_emf=found["metrics-emf"] == "on",
        aws=AwsConfig(
            peers=Listener(*found["peers"]),
            peers_advertised=found["peers-advertised-address"],
            inbox_queue_url=found["inbox-queue-url"],
            wakeup_schedule_group=found["wakeup-schedule-group"],
            wakeup_role_arn=found["wakeup-role-arn"],
        ),
    )


def coordinator_settings(found: Configuration) -> Settings:
    return Settings(
        heartbeat_s=found.seconds("heartbeat-interval"),
        presumed_dead_s=found.seconds("presumed-dead-after"),
        lease_s=found.seconds("lease-duration"),
        exclusive_store=True,
        flush_after_s=found.seconds("flush-interval"),
        log_limit_bytes=found["log-size-limit"],
        checkpoint_interval_s=found.seconds("checkpoint-interval"),
        memory_limit_bytes=found["page-memory-limit"],
        max_attempts_in_flight=found["concurrent-invocations-limit"],
        max_attempts_per_deployment=found["deployment-concurrency-limit"],
        eager_state_bytes=found["eager-state-size-limit"],
        max_message_bytes=found["message-size-limit"],
        acknowledge_timeout_s=found.seconds("acknowledge-timeout"),
        registry_refresh_s=found.seconds("registry-refresh-interval"),
        discovery_timeout_s=found.seconds("discovery-timeout"),
        default_abort_timeout_ms=found["default-abort-timeout"],
        default_journal_retention_ms=found["default-journal-retention"],
        default_idempotency_retention_ms=found["default-idempotency-retention"],
        default_workflow_completion_retention_ms=found["default-workflow-completion-retention"],
        default_retry_policy=RetryPolicy(
            initial_interval_ms=found["default-retry-policy-initial-interval"],
            factor=found["default-retry-policy-exponentiation-factor"],
            max_interval_ms=found["default-retry-policy-max-interval"],
            max_attempts=found["default-retry-policy-max-attempts"],
            on_max_attempts=OnMaxAttempts(found["default-retry-policy-on-max-attempts"].capitalize()),
        ),
        max_journal_retention_ms=found["max-journal-retention"],
        max_idempotency_retention_ms=found["max-idempotency-retention"],
        max_workflow_completion_retention_ms=found["max-workflow-completion-retention"],
        max_retry_policy_max_attempts=found["max-retry-policy-max-attempts"],
        deployment_routing_headers=tuple(name.strip() for name in (found["deployment-routing-headers"] or "").split(",") if name),
    )
