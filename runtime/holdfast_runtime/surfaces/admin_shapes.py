"""What the admin API reads and writes, as declarations: `GET /openapi` is made from them, tests hold answers against them.

Members that may be missing are NotRequired. Durations are texts such as `1h 30m`; instants are RFC 3339.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

Duration = Annotated[str, "A duration: `10s`, `1h 30m`, `PT10S`."]
Strings = dict[str, str]


class Problem(TypedDict):
    """Why a request was refused. `restate_code`: a code to search for, or null."""

    message: str
    restate_code: str | None


class Version(TypedDict):
    """What tools need to know of the server. `version` is the one of the official server that this one behaves like."""

    version: str
    holdfast_version: str
    min_admin_api_version: int
    max_admin_api_version: int
    ingress_endpoint: str | None
    features: dict[str, bool]


class ClusterHealth(TypedDict):
    """The name of the cluster; one process has no metadata cluster."""

    cluster_name: str
    metadata_cluster_health: Any


# ---- Services


class Info(TypedDict):
    """A hint about settings that do not apply as given."""

    code: str
    message: str


class RetryPolicy(TypedDict):
    """How failed attempts are repeated. `max_attempts` null: without limit."""

    initial_interval: NotRequired[Duration]
    exponentiation_factor: NotRequired[float]
    max_attempts: int | None
    max_interval: NotRequired[Duration]
    on_max_attempts: NotRequired[Literal["Pause", "Kill"]]


class Handler(TypedDict):
    """A handler with what it sets itself; the rest it has from its service."""

    name: str
    ty: NotRequired[Literal["Exclusive", "Shared", "Workflow"]]
    documentation: NotRequired[str]
    metadata: NotRequired[Strings]
    idempotency_retention: NotRequired[Duration]
    journal_retention: NotRequired[Duration]
    inactivity_timeout: NotRequired[Duration]
    abort_timeout: NotRequired[Duration]
    enable_lazy_state: NotRequired[bool]
    public: bool
    input_description: str
    output_description: str
    input_json_schema: NotRequired[Any]
    output_json_schema: NotRequired[Any]
    retry_policy: RetryPolicy
    info: NotRequired[list[Info]]


class Service(TypedDict):
    """The active revision of a service, with effective settings."""

    name: str
    ty: Literal["Service", "VirtualObject", "Workflow"]
    handlers: list[Handler]
    documentation: NotRequired[str]
    metadata: NotRequired[Strings]
    deployment_id: str
    revision: int
    public: bool
    idempotency_retention: Duration
    workflow_completion_retention: NotRequired[Duration]
    journal_retention: NotRequired[Duration]
    inactivity_timeout: Duration
    abort_timeout: Duration
    enable_lazy_state: bool
    retry_policy: RetryPolicy
    info: NotRequired[list[Info]]


class Services(TypedDict):
    """All services, in no order."""

    services: list[Service]


class Handlers(TypedDict):
    """All handlers of a service, in no order."""

    handlers: list[Handler]


class ServicePatch(TypedDict):
    """Settings to change until the next revision; null or missing: as it is."""

    public: NotRequired[bool | None]
    idempotency_retention: NotRequired[Duration | None]
    workflow_completion_retention: NotRequired[Duration | None]
    journal_retention: NotRequired[Duration | None]
    inactivity_timeout: NotRequired[Duration | None]
    abort_timeout: NotRequired[Duration | None]


class StateEdit(TypedDict):
    """Replaces the whole state of a key, if it still has this version."""

    object_key: str
    new_state: dict[str, list[int] | str]
    version: NotRequired[str | None]


# ---- Deployments


class Registration(TypedDict):
    """Where handlers are: either `uri` or `arn`."""

    uri: NotRequired[Annotated[str, "Absolute URI of an HTTP endpoint; a base path is allowed."]]
    arn: NotRequired[Annotated[str, "Qualified ARN of a Lambda function, with version or alias."]]
    assume_role_arn: NotRequired[str | None]
    additional_headers: NotRequired[Strings | None]
    metadata: NotRequired[Strings | None]
    use_http_11: NotRequired[bool | None]
    force: NotRequired[Annotated[bool | None, "Overwrite the deployment of this address."]]
    breaking: NotRequired[Annotated[bool | None, "Allow services to change their type."]]
    dry_run: NotRequired[Annotated[bool | None, "Discover and validate, store nothing."]]


class DeploymentUpdate(TypedDict):
    """Where a deployment's handlers are now; null or missing: as it is. Invocations under way follow the id."""

    uri: NotRequired[str | None]
    arn: NotRequired[str | None]
    assume_role_arn: NotRequired[str | None]
    additional_headers: NotRequired[Annotated[Strings | None, "Replaces all headers."]]
    use_http_11: NotRequired[bool | None]
    overwrite: NotRequired[Annotated[bool | None, "Replace the descriptions of services, too."]]
    dry_run: NotRequired[bool | None]


class Registered(TypedDict):
    """A registered deployment with what it serves."""

    id: str
    services: list[Service]
    min_protocol_version: int
    max_protocol_version: int
    sdk_version: NotRequired[str]
    info: NotRequired[list[Info]]


class ServiceName(TypedDict):
    """A service of a deployment, with its revision there."""

    name: str
    revision: int


class DeploymentListed(TypedDict):
    """A deployment behind HTTP (`uri`) or on AWS Lambda (`arn`), with the names of its services."""

    id: str
    uri: NotRequired[str]
    protocol_type: NotRequired[Literal["BidiStream", "RequestResponse"]]
    http_version: NotRequired[str]
    arn: NotRequired[str]
    assume_role_arn: NotRequired[str]
    compression: NotRequired[str]
    additional_headers: NotRequired[Strings]
    metadata: NotRequired[Strings]
    created_at: str
    min_protocol_version: int
    max_protocol_version: int
    sdk_version: NotRequired[str]
    services: list[ServiceName]


class Deployment(TypedDict):
    """A deployment behind HTTP (`uri`) or on AWS Lambda (`arn`), with its services."""

    id: str
    uri: NotRequired[str]
    protocol_type: NotRequired[Literal["BidiStream", "RequestResponse"]]
    http_version: NotRequired[str]
    arn: NotRequired[str]
    assume_role_arn: NotRequired[str]
    compression: NotRequired[str]
    additional_headers: NotRequired[Strings]
    metadata: NotRequired[Strings]
    created_at: str
    min_protocol_version: int
    max_protocol_version: int
    sdk_version: NotRequired[str]
    services: list[Service]


class Deployments(TypedDict):
    """All deployments, in no order."""

    deployments: list[DeploymentListed]


# ---- Invocations


class Restarted(TypedDict):
    """The id of the invocation that starts anew."""

    new_invocation_id: str


class Batch(TypedDict):
    """At most 1000 invocations. `deployment`: `Keep`, `Latest` or an id, where the operation moves them."""

    invocation_ids: list[str]
    deployment: NotRequired[str | None]


class BatchFailure(TypedDict):
    """Why one invocation of a batch was left as it is."""

    invocation_id: str
    error: str


class BatchDone(TypedDict):
    """What became of each: ids, or pairs of old and new ids for restarts."""

    succeeded: list[Any]
    failed: list[BatchFailure]


class Statement(TypedDict):
    """One SQL statement over the tables of the server."""

    query: str


class Rows(TypedDict):
    """Rows as objects; without `accept: application/json` the answer is an Arrow IPC stream."""

    rows: list[dict[str, Any]]


# ---- Kafka and flow control, which this server does not do


class Subscription(TypedDict):
    """A Kafka topic and the handler it feeds."""

    source: str
    sink: str
    options: NotRequired[Strings | None]


class Subscriptions(TypedDict):
    """Always empty."""

    subscriptions: list[Subscription]


class KafkaCluster(TypedDict):
    """Connection properties of a Kafka cluster."""

    name: str
    properties: Strings


class KafkaClusters(TypedDict):
    """Always empty."""

    clusters: list[KafkaCluster]


class Rule(TypedDict):
    """A limit of flow control."""

    pattern: str
    limits: NotRequired[dict[str, int]]
    description: NotRequired[str | None]
    disabled: NotRequired[bool]
