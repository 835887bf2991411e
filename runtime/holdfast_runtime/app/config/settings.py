"""Every setting, declared once: from here come parsing, options of the command line, `holdfast config`, and docs/configuration.md.

Rules: one name, three spellings: `--flush-interval`, `HOLDFAST_FLUSH_INTERVAL`, `flush-interval` in TOML; what has no effect is not
listed; a default is the value the part itself has (a test compares). To add one: a line here, its use in `wiring.py`, a test of
its effect, and `python -m holdfast_runtime.app.config.docs` for the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from holdfast_runtime.app.config.kinds import (
    EXTERNAL_ID,
    HEADERS,
    HOST_AND_PORT,
    NAME,
    ROLE_ARN,
    TOKEN,
    Address,
    Choice,
    Duration,
    File,
    Kind,
    Place,
    Real,
    Size,
    Url,
    Whole,
)

SECOND: Final = 1000  # durations are in milliseconds, sizes in bytes
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

PREFIX: Final = "HOLDFAST_"
OFFICIAL_PREFIX: Final = "RESTATE_"


@dataclass(frozen=True, slots=True)
class Setting:
    """default: None when it is `absent`, which is the word for having no value. meaning: half a sentence.

    official: path of the same option in the official server's configuration, whose variable is understood too (http-api §5.1).
    also: further variables. client: used by commands that ask a server, hence no option of the server.
    """

    group: str
    name: str
    kind: Kind
    default: Any
    meaning: str
    official: str | None = None
    absent: str | None = None
    also: tuple[str, ...] = ()
    client: bool = False
    secret: bool = False

    @property
    def option(self) -> str:
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        return PREFIX + self.name.replace("-", "_").upper()

    @property
    def variables(self) -> tuple[str, ...]:
        """The first that is set counts."""
        official = () if self.official is None else (OFFICIAL_PREFIX + self.official.replace(".", "__").replace("-", "_").upper(),)
        return (self.variable, *official, *self.also)

    @property
    def expected(self) -> str:
        return self.kind.expected if self.absent is None else f"{self.kind.expected}, or '{self.absent}'"

    def read(self, given: object) -> Any:
        """Raises ValueError."""
        if self.absent is not None and given == self.absent:
            return None
        return self.kind.read(given)

    def read_toml(self, given: object) -> Any:
        """Where numbers are no texts. Raises ValueError."""
        if isinstance(given, str) and given != self.absent and isinstance(self.kind, Whole | Real):
            raise ValueError
        return self.read(given)

    def write(self, value: Any) -> str | int | float:
        if value is None:
            assert self.absent is not None
            return self.absent
        return self.kind.write(value)

    def shown(self, value: Any) -> str:
        return "***" if self.secret and value is not None else str(self.write(value))


_STORE: Final = "Store"
_SURFACES: Final = "Surfaces"
_HANDLERS: Final = "Calls to handlers"
_SERVICES: Final = "What services get and may ask for"
_AWS: Final = "On AWS"
_SQL: Final = "SQL"
_WORK: Final = "Inside"
_LOGS: Final = "Logs"
_CLIENT: Final = "Commands that ask a server"

GROUPS: Final = {
    _STORE: "",
    _SURFACES: "",
    _HANDLERS: "",
    _SERVICES: "Precedence: handler, service, default; then the maximum.",
    _AWS: "Peers: only where the store is a table. The template sets what is needed.",
    _SQL: "Each statement runs in a process of its own.",
    _WORK: "Set with care: the defaults belong together.",
    _LOGS: "",
    _CLIENT: "Options of those commands (`token`, `colour`: file and variable only); in a file for the server they do no harm.",
}

SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(_STORE, "store", Place(), Path(".holdfast/store.sqlite"), "file of the embedded store, made if need be; or a table on AWS"),
    Setting(_STORE, "shards", Whole(1, 256), 4, "shards of an embedded store that is made now; an existing store keeps its number"),
    # -- Surfaces
    Setting(_SURFACES, "ingress", Address(), ("127.0.0.1", 8080), "where calls enter; port 0 takes a free one", "ingress.bind-address"),
    Setting(
        _SURFACES,
        "admin",
        Address(),
        ("127.0.0.1", 9070),
        "the admin API; open to all without tokens",
        "admin.bind-address",
    ),
    Setting(_SURFACES, "ingress-token-file", File(), None, "tokens, one a line: each call has to bring one", absent="none"),
    Setting(
        _SURFACES,
        "admin-token-file",
        File(),
        None,
        "the same for the admin API",
        absent="none",
    ),
    Setting(
        _SURFACES,
        "ingress-advertised-address",
        Url(),
        None,
        "where clients reach the ingress, as tools are told",
        "ingress.advertised-address",
        absent="derived",
    ),
    Setting(_SURFACES, "cluster-name", NAME, "holdfast", "sent to handlers as x-restate-cluster-name and shown to tools", "cluster-name"),
    Setting(
        _SURFACES,
        "ingress-request-size-limit",
        Size(KIB, GIB),
        32 * MIB,
        "longer bodies of calls get 413",
        "ingress.request-size-limit",
    ),
    Setting(
        _SURFACES,
        "ingress-concurrent-requests-limit",
        Whole(1, 1_000_000),
        None,
        "more calls at the same time get 429",
        "ingress.concurrent-api-requests-limit",
        absent="unlimited",
    ),
    Setting(
        _SURFACES,
        "ingress-idle-timeout",
        Duration(SECOND, 24 * HOUR),
        75 * SECOND,
        "connections without a call are closed after this; keep it above the idle timeout of a load balancer in front: it answers 502 else",
    ),
    Setting(_SURFACES, "shutdown-grace", Duration(0, HOUR), SECOND, "how long callers may wait for their answer once the server stops"),
    # -- Calls to handlers
    Setting(
        _HANDLERS,
        "concurrent-invocations-limit",
        Whole(1, 1_000_000),
        1_000,
        "attempts at the same time in one process; more wait their turn",
        "worker.invoker.concurrent-invocations-limit",
    ),
    Setting(
        _HANDLERS,
        "deployment-concurrency-limit",
        Whole(1, 1_000_000),
        None,
        "of these, attempts at one deployment; more wait for it. Without a value four fifths of 100 and more, so that others always get "
        "some. A deployment registered with metadata `holdfast.concurrency` has its own",
        absent="derived",
    ),
    Setting(
        _HANDLERS,
        "connect-timeout",
        Duration(1, HOUR),
        10 * SECOND,
        "for name, TCP and TLS of a new connection",
        "worker.invoker.connect-timeout",
    ),
    Setting(
        _HANDLERS,
        "discovery-timeout",
        Duration(100, HOUR),
        20 * SECOND,
        "one try of asking an endpoint what it serves; a cold Lambda function may take 10 s to begin",
    ),
    Setting(_HANDLERS, "connection-idle-timeout", Duration(1, HOUR), 30 * SECOND, "unused connections are closed after this"),
    Setting(
        _HANDLERS,
        "message-size-limit",
        Size(KIB, 32 * MIB),
        32 * MIB,
        "one message of a handler, such as a result",
        "worker.invoker.message-size-limit",
    ),
    Setting(_HANDLERS, "response-size-limit", Size(KIB, GIB), 64 * MIB, "everything a handler answers to one attempt"),
    Setting(
        _HANDLERS,
        "eager-state-size-limit",
        Size(0, 32 * MIB),
        256 * KIB,
        "state of a key sent along with an attempt; what is beyond is asked for by the handler",
        "worker.invoker.eager-state-size-limit",
    ),
    Setting(
        _HANDLERS,
        "request-compression-threshold",
        Size(0, 4 * MIB),  # larger ones do not fit into an event uncompressed
        4 * MIB,
        "from this size on, requests to Lambda are compressed when the function understands it",
        "worker.invoker.request-compression-threshold",
    ),
    Setting(
        _HANDLERS,
        "request-identity-private-key-pem-file",
        File(),
        None,
        "Ed25519 key (PKCS#8, PEM) that signs every request to handlers",
        "worker.invoker.request-identity-private-key-pem-file",
        absent="none",
    ),
    Setting(
        _HANDLERS,
        "request-identity-expiration",
        Duration(3 * SECOND, HOUR),
        MINUTE,
        "how long a signature is valid",
        "worker.invoker.request-identity-expiration",
    ),
    Setting(
        _HANDLERS,
        "aws-assume-role-external-id",
        EXTERNAL_ID,
        None,
        "external id for roles that deployments have the server assume",
        "worker.invoker.aws-assume-role-external-id",
        absent="none",
        also=("AWS_EXTERNAL_ID",),
    ),
    # -- Services
    Setting(
        _SERVICES,
        "default-abort-timeout",
        Duration(1),
        10 * MINUTE,
        "one attempt; longer ones are cut off and repeated",
        "worker.invoker.abort-timeout",
    ),
    Setting(
        _SERVICES, "default-journal-retention", Duration(), DAY, "how long journals stay after completion", "default-journal-retention"
    ),
    Setting(
        _SERVICES,
        "default-idempotency-retention",
        Duration(),
        DAY,
        "how long results of calls stay",
        "default-idempotency-retention",
    ),
    Setting(
        _SERVICES,
        "default-workflow-completion-retention",
        Duration(),
        DAY,
        "how long a finished workflow stays",
        "default-workflow-completion-retention",
    ),
    Setting(
        _SERVICES, "max-journal-retention", Duration(), None, "the most a service may ask for", "max-journal-retention", absent="unlimited"
    ),
    Setting(
        _SERVICES,
        "max-idempotency-retention",
        Duration(),
        None,
        "the most a service may ask for",
        "max-idempotency-retention",
        absent="unlimited",
    ),
    Setting(
        _SERVICES,
        "max-workflow-completion-retention",
        Duration(),
        None,
        "the most a service may ask for",
        "max-workflow-completion-retention",
        absent="unlimited",
    ),
    Setting(
        _SERVICES,
        "default-retry-policy-initial-interval",
        Duration(1),
        500,
        "delay after the first failed attempt",
        "default-retry-policy.initial-interval",
    ),
    Setting(
        _SERVICES,
        "default-retry-policy-exponentiation-factor",
        Real(1, 1_000),
        2.0,
        "what each further delay is multiplied with",
        "default-retry-policy.exponentiation-factor",
    ),
    Setting(
        _SERVICES,
        "default-retry-policy-max-interval",
        Duration(1),
        MINUTE,
        "the longest delay",
        "default-retry-policy.max-interval",
    ),
    Setting(
        _SERVICES,
        "default-retry-policy-max-attempts",
        Whole(1, 1_000_000_000),
        70,
        "attempts before giving up, the first included",
        "default-retry-policy.max-attempts",
        absent="unlimited",
    ),
    Setting(
        _SERVICES,
        "default-retry-policy-on-max-attempts",
        Choice(("pause", "kill")),
        "pause",
        "what giving up means",
        "default-retry-policy.on-max-attempts",
    ),
    Setting(
        _SERVICES,
        "max-retry-policy-max-attempts",
        Whole(1, 1_000_000_000),
        None,
        "the most attempts a service may ask for",
        "max-retry-policy-max-attempts",
        absent="unlimited",
    ),
    Setting(
        _SERVICES,
        "deployment-routing-headers",
        HEADERS,
        None,
        "headers by which deployments of one address are told apart",
        "admin.deployment-routing-headers",
        absent="none",
    ),
    # -- On AWS
    Setting(_AWS, "peers", Address(), ("127.0.0.1", 0), "where other replicas on the same table reach this one"),
    Setting(
        _AWS, "peers-advertised-address", HOST_AND_PORT, None, "what the others are told instead of where it listens", absent="derived"
    ),
    Setting(_AWS, "inbox-queue-url", Url(), None, "SQS queue that requests and events are taken from", absent="none"),
    Setting(
        _AWS,
        "wakeup-schedule-group",
        NAME,
        None,
        "group of EventBridge Scheduler for far timers, so that they fall due also when nobody runs",
        absent="none",
    ),
    Setting(
        _AWS,
        "blob-sweep",
        Choice(("weekly", "off")),
        "weekly",
        "large values that nothing refers to any more are removed from table or bucket; one process reads the whole table for that",
    ),
    Setting(
        _AWS,
        "metrics-emf",
        Choice(("off", "on")),
        "off",
        "`on`: a line a minute on standard error in CloudWatch's embedded metric format, for alarms",
    ),
    Setting(_AWS, "wakeup-role-arn", ROLE_ARN, None, "role by which Scheduler sends to the inbox queue", absent="none"),
    # -- SQL
    Setting(
        _SQL,
        "query-memory-limit",
        Size(MIB, 64 * GIB),
        256 * MIB,
        "memory of a statement's operators",
        "admin.query-engine.memory-size",
    ),
    Setting(_SQL, "query-timeout", Duration(1, HOUR), 12 * SECOND, "a statement; the official command line gives up after 13 s"),
    Setting(_SQL, "query-concurrency-limit", Whole(1, 64), 2, "statements at the same time; each is a process"),
    # -- Inside
    Setting(
        _WORK, "page-memory-limit", Size(MIB, 64 * GIB), 12 * MIB, "pages kept in memory, as stored; as objects they take four times that"
    ),
    Setting(_WORK, "log-size-limit", Size(MIB, 64 * GIB), 16 * MIB, "log that recovery may have to read; beyond, everything is flushed"),
    Setting(_WORK, "flush-interval", Duration(SECOND, DAY), 5 * MINUTE, "changed pages are written back after this"),
    Setting(_WORK, "checkpoint-interval", Duration(SECOND, HOUR), 10 * SECOND, "how often the log is given free up to what is flushed"),
    Setting(_WORK, "acknowledge-timeout", Duration(100, HOUR), 30 * SECOND, "a request that is not safely stored by then gets 503"),
    Setting(
        _WORK, "registry-refresh-interval", Duration(100, HOUR), 5 * SECOND, "how often deployments that others registered are looked for"
    ),
    Setting(_WORK, "heartbeat-interval", Duration(100, HOUR), 2 * SECOND, "how often a process says that it lives"),
    Setting(
        _WORK,
        "presumed-dead-after",
        Duration(100, HOUR),
        8 * SECOND,
        "silence after which a process's shards are taken, where several share a store",
    ),
    Setting(_WORK, "lease-duration", Duration(100, HOUR), 10 * SECOND, "silence of the store after which an owner stops working"),
    # -- Logs
    Setting(
        _LOGS,
        "log-format",
        Choice(("human", "json")),
        "human",
        "how log and ready line are written: for people, or one JSON object each",
    ),
    Setting(_LOGS, "log-level", Choice(("debug", "info", "warning", "error")), "info", "the least important lines to write"),
    # -- Clients
    Setting(_CLIENT, "admin-url", Url(), "http://127.0.0.1:9070", "where the admin API is", also=("RESTATE_ADMIN_URL",), client=True),
    Setting(_CLIENT, "ingress-url", Url(), "http://127.0.0.1:8080", "where `call` goes", also=("RESTATE_INGRESS_URL",), client=True),
    Setting(
        _CLIENT,
        "token",
        TOKEN,
        None,
        "sent as `Authorization: Bearer`, to servers that ask for it",
        absent="none",
        also=("RESTATE_AUTH_TOKEN",),
        client=True,
        secret=True,
    ),
    Setting(_CLIENT, "colour", Choice(("auto", "always", "never")), "auto", "`auto`: in a terminal, unless NO_COLOR is set", client=True),
)

BY_NAME: Final = {setting.name: setting for setting in SETTINGS}

# Not settings, but ours.
OTHER_VARIABLES: Final = {
    "HOLDFAST_CONFIG": "the configuration file, as `--config` does",
    "HOLDFAST_DEBUG": "a stack trace for errors that are faults of Holdfast",
    "HOLDFAST_DEMO_LEDGER": "where the services of `holdfast demo` note their side effects",
    "HOLDFAST_EDITOR": "what `holdfast state edit` opens, before VISUAL and EDITOR",
}
