"""What a coordinator on AWS has beside its table: a port for its peers, the inbox queue, wake-ups.

Rules: peers are only needed where several processes may share the store, which is where it is a table; each part that is configured must
be there at the start, because a coordinator that silently takes no messages is worse than one that does not start.
"""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from holdfast_runtime.adapters.peers import PeerNetwork, PeerServer, Serve, cluster_secret
from holdfast_runtime.adapters.scheduler import SchedulerTarget, SchedulerWakeups
from holdfast_runtime.adapters.sqs import SqsInbox
from holdfast_runtime.ports.store import Store
from holdfast_runtime.ports.system import Clock, Entropy
from holdfast_runtime.surfaces.server import Listener, bind

# Never asked: connecting a datagram socket only looks up the route (an address for documentation, RFC 5737).
_FAR_AWAY = ("192.0.2.1", 9)


class PartMissing(Exception):
    """Something is configured without what it needs; an operator must act."""


@dataclass(frozen=True, slots=True)
class AwsConfig:
    """peers: where other replicas reach this one. peers_advertised: the host:port they are told; None: derived from where it listens.

    wakeup_schedule_group, wakeup_role_arn: of EventBridge Scheduler, both or none; they need the queue.
    """

    peers: Listener = field(default_factory=Listener)
    peers_advertised: str | None = None
    inbox_queue_url: str | None = None
    wakeup_schedule_group: str | None = None
    wakeup_role_arn: str | None = None


async def open_peers(config: AwsConfig, store: Store, entropy: Entropy, serve: Serve, ending: AsyncExitStack) -> tuple[PeerNetwork, str]:
    """How to ask the others, and where they ask us. Raises AddressUnavailable, StoreUnavailable."""
    bound = bind(config.peers)
    ending.callback(bound.close)
    secret = await cluster_secret(store.registry, entropy)
    network = PeerNetwork(secret, entropy)
    ending.push_async_callback(network.close)
    server = PeerServer(secret, entropy, serve)
    await server.start(bound)
    ending.push_async_callback(server.close)
    return network, config.peers_advertised or _address_of(bound)


async def open_inbox(config: AwsConfig, ending: AsyncExitStack) -> SqsInbox | None:
    """Raises InboxUnavailable."""
    if config.inbox_queue_url is None:
        return None
    queue = SqsInbox(config.inbox_queue_url)
    ending.push_async_callback(queue.close)
    await queue.open()
    return queue


async def open_wakeups(config: AwsConfig, queue: SqsInbox | None, clock: Clock, ending: AsyncExitStack) -> SchedulerWakeups | None:
    """Raises PartMissing, WakeupsUnavailable."""
    group, role = config.wakeup_schedule_group, config.wakeup_role_arn
    if group is None and role is None:
        return None
    if group is None or role is None or queue is None:
        raise PartMissing("wake-ups need all of wakeup-schedule-group, wakeup-role-arn and inbox-queue-url; set the others, too, or none")
    wakeups = SchedulerWakeups(SchedulerTarget(group, queue.arn, role), clock)
    ending.push_async_callback(wakeups.close)
    await wakeups.open()
    return wakeups


def _address_of(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - comparing, not binding
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_FAR_AWAY)
            host = probe.getsockname()[0]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
