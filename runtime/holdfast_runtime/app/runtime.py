"""Wiring: one coordinator process over one store, with its surfaces.

Rules: addresses are bound before the store is opened, so that a port in use costs nothing; handlers in this process
are registered before anything is served; whatever was started is ended by `stop`, also when starting failed half way.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.endpoints import Endpoints
from holdfast_runtime.adapters.http_exchange import DEFAULT_LIMITS, Limits
from holdfast_runtime.adapters.in_process import Handle
from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.adapters.sqlite import open_sqlite_store
from holdfast_runtime.adapters.system import SystemClock, SystemEntropy
from holdfast_runtime.app.aws_parts import AwsConfig, open_inbox, open_peers, open_wakeups
from holdfast_runtime.app.metrics_emf import EmbeddedMetrics
from holdfast_runtime.app.sweeping import WeeklySweep, in_a_process
from holdfast_runtime.coordinator.coordinator import Coordinator
from holdfast_runtime.coordinator.deployments import Deployments
from holdfast_runtime.coordinator.gauges import Gauges, gauges
from holdfast_runtime.coordinator.node import Node
from holdfast_runtime.coordinator.registry_document import default_settings
from holdfast_runtime.coordinator.requests import Reply, Request
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.ports.metrics import Metrics
from holdfast_runtime.ports.store import Store, StoreUnavailable
from holdfast_runtime.surfaces.admin import AdminSettings, admin_app
from holdfast_runtime.surfaces.bearer import BearerTokens
from holdfast_runtime.surfaces.http1_connection import IDLE_S
from holdfast_runtime.surfaces.inbox import InboxDrain
from holdfast_runtime.surfaces.ingress import Ingress, IngressSettings
from holdfast_runtime.surfaces.introspection.engine import Engine, QueryLimits
from holdfast_runtime.surfaces.introspection.routes import query_routes
from holdfast_runtime.surfaces.metrics import metrics_routes
from holdfast_runtime.surfaces.server import Listener, Server, bind, serve_on

log = logging.getLogger("holdfast.runtime")

GRACE_S: Final = 1.0  # callers that wait for a suspended invocation would wait for days: they are let go after this
READY_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """store: path of the embedded store's file, a table, or None for one in memory (lost at exit).

    shards: of an embedded store that is created now; a table is set up beforehand (`holdfast store init`).

    ingress, admin: where to listen, or sockets that are bound already. advertised_ingress: where clients reach the ingress, None: where
    it listens. grace_s: how long requests in flight may go on once it stops. ingress_idle_s: for which a connection
    to the ingress may be without a request. external_id: for roles that deployments have us assume.
    """

    store: Path | DynamoDbTable | None
    ingress: Listener | socket.socket = field(default_factory=lambda: Listener(port=8080))
    admin: Listener | socket.socket = field(default_factory=lambda: Listener(port=9070))
    shards: int = 4
    settings: Settings = field(default_factory=lambda: Settings(exclusive_store=True))
    request_identity_private_key_pem_file: Path | None = None
    request_identity_valid_s: int = 60
    cluster_name: str = "holdfast"
    advertised_ingress: str | None = None
    grace_s: float = GRACE_S
    ingress_idle_s: float = IDLE_S
    ingress_settings: IngressSettings = field(default_factory=IngressSettings)
    query_limits: QueryLimits = field(default_factory=QueryLimits)
    call_limits: Limits = DEFAULT_LIMITS
    external_id: str | None = None
    aws: AwsConfig = field(default_factory=AwsConfig)
    ingress_token_file: Path | None = None
    admin_token_file: Path | None = None
    metrics_emf: bool = False
    blob_sweep: bool = True


class TokensUnusable(Exception):
    """A configured file of tokens is none; the message says what is wrong and what to do."""


class IdentityKeyUnusable(Exception):
    """The configured private key for request identity is none; the message says what is wrong and what to do."""


class Runtime:
    """Start with `start`; end with `stop`, which hands everything over."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._started = AsyncExitStack()  # what to end, last started first
        self._ingress: Server
        self._admin: Server
        self.clock = SystemClock()
        self.metrics = Metrics()
        headers = {"x-restate-cluster-name": config.cluster_name}  # service protocol §5.1; official SDKs show it in their logs
        self.endpoints = Endpoints(self.clock, limits=config.call_limits, external_id=config.external_id, headers=headers)
        self.deployments: Deployments
        self.node: Node
        self.coordinator: Coordinator

    async def start(self, handlers: Mapping[str, Handle] | None = None) -> None:
        """handlers: in-process endpoints by name.

        Raises AddressUnavailable, IdentityKeyUnusable, TokensUnusable, StoreBroken, StoreUnavailable, RegistrationError, PartMissing,
        InboxUnavailable, WakeupsUnavailable, TimeoutError.
        """
        try:
            await self._start(handlers or {})
        except BaseException:
            await self.stop()
            raise

    async def _start(self, handlers: Mapping[str, Handle]) -> None:
        config = self._config
        self._load_identity()
        ingress_tokens, admin_tokens = _tokens(config.ingress_token_file), _tokens(config.admin_token_file)
        ingress, admin = self._bound(config.ingress), self._bound(config.admin)
        store = await self._open_store()
        self._started.push_async_callback(self.endpoints.close)
        entropy = SystemEntropy()
        settings = config.settings
        self.deployments = Deployments(
            store.registry,
            self.endpoints,
            self.clock,
            entropy,
            default_settings(settings),
            discovery_timeout_s=settings.discovery_timeout_s,
        )
        for name, handle in handlers.items():
            self.endpoints.in_process.register(name, handle)
        await self.deployments.load()
        queue = await open_inbox(config.aws, self._started)
        wakeups = await open_wakeups(config.aws, queue, self.clock, self._started)
        peers, address = None, ""
        if self._is_shared:
            peers, address = await open_peers(config.aws, store, entropy, self._serve_peer, self._started)
        self.node = Node(
            store=store,
            endpoint=self.endpoints,
            clock=self.clock,
            entropy=entropy,
            registry=lambda: self.deployments.view,
            settings=replace(settings, exclusive_store=False) if self._is_shared else settings,
            peers=peers,
            address=address,
            wakeups=wakeups,
            metrics=self.metrics,
        )
        self.coordinator = Coordinator(self.node, self.deployments)
        for name in handlers:
            await self.deployments.register_in_process(name)
        self._started.push_async_callback(self.node.stop)
        await self.node.start()
        await self.node.until_ready(timeout_s=READY_TIMEOUT_S)
        engine = Engine(self.coordinator, config.query_limits)
        self._started.push_async_callback(engine.close)
        self._started.push_async_callback(self._close_surfaces)
        calls = Ingress(self.coordinator, replace(config.ingress_settings, tokens=ingress_tokens), self.metrics)
        self._ingress = await serve_on(calls, ingress, grace_s=config.grace_s, idle_s=config.ingress_idle_s)
        about = AdminSettings(config.advertised_ingress or self._ingress.url, config.cluster_name, tokens=admin_tokens)
        counted = metrics_routes(self._measure, version=about.holdfast_version, cluster=config.cluster_name)
        self._admin = await serve_on(admin_app(self.coordinator, about, [query_routes(engine), counted]), admin, grace_s=config.grace_s)
        if queue is not None:
            drain = InboxDrain(self.coordinator, queue, self.clock, self.metrics)
            drain.start()
            self._started.push_async_callback(drain.close)
        self._keep_going(self._refresh())
        if isinstance(config.store, DynamoDbTable) and config.blob_sweep:
            weekly = WeeklySweep(store.registry, lambda: self.node.shards, self.clock, partial(in_a_process, config.store))
            self._keep_going(weekly.run())
        if config.metrics_emf:
            self._keep_going(EmbeddedMetrics(self._measure, cluster=config.cluster_name, clock=self.clock).run())
        _calm_garbage_collector()

    def _load_identity(self) -> None:
        file = self._config.request_identity_private_key_pem_file
        if file is None:
            return
        from holdfast_runtime.adapters.request_identity import load_identity  # loads `cryptography`

        try:
            self.endpoints.identity = load_identity(file, self.clock, valid_s=self._config.request_identity_valid_s)
        except ValueError as error:
            raise IdentityKeyUnusable(str(error)) from error
        log.info("request_identity.loaded", extra={"public_key": self.endpoints.identity.public_key})

    @property
    def public_key(self) -> str | None:
        """What users give to their SDK as identity key; None: requests are not signed."""
        return self.endpoints.identity.public_key if self.endpoints.identity is not None else None

    @property
    def ingress_url(self) -> str:
        return self._ingress.url

    @property
    def admin_url(self) -> str:
        return self._admin.url

    async def stop(self) -> None:
        """Close the surfaces, hand the shards over, close the store. May be called twice."""
        await self._started.aclose()

    def _bound(self, wanted: Listener | socket.socket) -> socket.socket:
        bound = bind(wanted) if isinstance(wanted, Listener) else wanted
        self._started.callback(bound.close)
        return bound

    async def _close_surfaces(self) -> None:
        """Both at once: each gives its requests in flight the grace."""
        running = [getattr(self, name) for name in ("_ingress", "_admin") if hasattr(self, name)]
        await asyncio.gather(*(server.close() for server in running))

    @property
    def _is_shared(self) -> bool:
        """Any number of processes may share a table."""
        return isinstance(self._config.store, DynamoDbTable)

    async def _open_store(self) -> Store:
        if self._config.store is None:
            return memory_store(self._config.shards)
        if isinstance(self._config.store, DynamoDbTable):
            from holdfast_runtime.adapters.dynamodb import open_dynamodb_store

            table = await open_dynamodb_store(self._config.store, clock=self.clock, metrics=self.metrics)
            self._started.push_async_callback(table.close)
            return table.store
        opened = await open_sqlite_store(self._config.store, shards=self._config.shards, clock=self.clock)
        self._started.push_async_callback(opened.close)
        return opened.store

    async def _serve_peer(self, request: Request) -> Reply:
        return await self.node.serve_peer(request)  # nobody knows our address before the node has joined

    def _keep_going(self, work: Coroutine[Any, Any, None]) -> None:
        """Until the process stops."""
        task = asyncio.create_task(work)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._started.push_async_callback(end)

    def _measure(self) -> tuple[Metrics, Gauges]:
        return self.metrics, gauges(self.node)

    async def _refresh(self) -> None:
        """Adopt deployments that another process has registered."""
        while True:
            await asyncio.sleep(self._config.settings.registry_refresh_s)
            try:
                await self.deployments.refresh()
            except StoreUnavailable as error:
                log.warning("registry.refresh_failed", extra={"error": str(error)})


def _tokens(file: Path | None) -> BearerTokens | None:
    try:
        return None if file is None else BearerTokens.read(file)
    except ValueError as error:
        raise TokensUnusable(str(error)) from error


def _calm_garbage_collector() -> None:
    """Fewer, younger collections: what was loaded at start never goes, pages live long and hold no cycles. -18 % CPU per call measured."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 1_000)
