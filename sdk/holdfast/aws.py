"""The Lambda entry point.

Rules: one event is one request of the service protocol (§5.1), base64 both ways; the event loop lives as long as
the execution environment, so that clients bound to it survive; plain handlers run in Lambda's own thread, without
a loop. Powertools objects are used when they are given, and never imported.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from holdfast._attempt import Attempt
from holdfast.endpoint import Answer, AttemptReport, Endpoint
from holdfast.logs import Log
from holdfast.service import ServiceBase

if TYPE_CHECKING:
    import asyncio

# Above this many bytes of frames the response is compressed, where the runtime accepts it: Lambda's limit of
# 6 MB holds after base64.
COMPRESS_ABOVE_BYTES = 3_000_000


class Tracer(Protocol):
    """What is needed of the Powertools tracer."""

    @property
    def provider(self) -> Any:
        """Of X-Ray's recorder: `in_subsegment(name=...)`, whose subsegment takes `put_annotation(key, value)`."""
        ...


class Metrics(Protocol):
    """What is needed of the Powertools metrics."""

    def add_dimension(self, name: str, value: str) -> None: ...

    def add_metric(self, name: str, unit: Any, value: float) -> None: ...

    def flush_metrics(self, raise_on_empty_metrics: bool = False) -> None: ...


def lambda_handler(
    *services: ServiceBase,
    logger: Log | None = None,
    tracer: Tracer | None = None,
    metrics: Metrics | None = None,
    identity_keys: Sequence[str] = (),
) -> Callable[[Mapping[str, Any], object], dict[str, Any]]:
    """The function Lambda calls: `handler = lambda_handler(orders, carts)`.

    `logger`, `tracer`, `metrics`: Powertools objects (or alike). The logger carries the invocation id as
    correlation id; the tracer gets a subsegment per attempt, annotated with invocation and handler; the metrics
    are attempts, replayed and new entries and cold starts. Nothing else may write to this metrics object: what it
    holds is emitted when an attempt ends.
    `identity_keys`: `publickeyv1_...` of the runtimes that may call; needs the `cryptography` package.
    """
    observer = _Observer(logger, tracer, metrics)
    zstd = _find_zstd()
    endpoint = Endpoint(
        services,
        logger=logger,
        identity_keys=identity_keys,
        on_attempt=observer.attempted,
        compression="zstd" if zstd is not None else None,
    )
    loop = _Loop()
    if any(handler.is_async for service in services for handler in service.handlers.values()):
        loop.prepare()  # in the init phase, where it costs least

    def handle(event: Mapping[str, Any], context: object) -> dict[str, Any]:
        method, path, headers, body = _request(event)
        if headers.get("content-encoding") == "zstd":
            if zstd is None:
                raise ValueError("the request is zstd-compressed, though discovery did not offer that")
            body = zstd.decompress(body)
        observer.begin(headers)
        with observer.span(path):
            answer = endpoint.handle_blocking(method, path, headers, body)
            if isinstance(answer, Attempt):
                answer = endpoint.answered(answer, loop.run(answer))
        if zstd is not None and len(answer[2]) > COMPRESS_ABOVE_BYTES and "zstd" in headers.get("accept-encoding", ""):
            status, answered, content = answer
            answer = status, {**answered, "content-encoding": "zstd"}, zstd.compress(content)
        return _response(answer)

    return handle


def _request(event: Mapping[str, Any]) -> tuple[str, str, dict[str, str], bytes]:
    """Method, path, lower-case headers and body of an envelope; also of a function URL or an HTTP API."""
    http = (event.get("requestContext") or {}).get("http") or {}
    path = event.get("path") or event.get("rawPath")
    if not path:
        raise ValueError(
            "expected an invocation envelope with `path`, `httpMethod`, `headers` and `body`, found the members "
            f"{', '.join(sorted(event)) or 'none'}; register this function with the runtime instead of calling it"
        )
    body = event.get("body") or ""
    content = base64.b64decode(body) if event.get("isBase64Encoded") else str(body).encode()
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    default = "POST" if "/invoke/" in path else "GET"
    return event.get("httpMethod") or http.get("method") or default, path, headers, content


def _response(answer: Answer) -> dict[str, Any]:
    status, headers, content = answer
    return {
        "statusCode": status,
        "headers": headers,
        "isBase64Encoded": True,
        "body": base64.b64encode(content).decode("ascii"),
    }


class _Loop:
    """One event loop per execution environment."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def prepare(self) -> None:
        import asyncio

        from holdfast import _drive  # noqa: F401

        self._loop = asyncio.new_event_loop()

    def run(self, attempt: Attempt) -> bytes:
        """Drives an async handler to the end of the attempt."""
        from holdfast import _drive

        if self._loop is None:
            self.prepare()
        assert self._loop is not None
        return self._loop.run_until_complete(_drive.drive(attempt))


class _Observer:
    """Hands facts about attempts to the Powertools objects that were given."""

    def __init__(self, logger: Log | None, tracer: Tracer | None, metrics: Metrics | None) -> None:
        self._logger: Any = logger
        self._tracer = tracer
        self._metrics = metrics
        self._subsegment: Any = None
        self._cold = True

    def begin(self, headers: Mapping[str, str]) -> None:
        """Before the handler starts: its own log lines carry the invocation id."""
        invocation_id = headers.get("x-restate-invocation-id")
        if invocation_id and hasattr(self._logger, "set_correlation_id"):
            self._logger.set_correlation_id(invocation_id)

    def span(self, path: str) -> AbstractContextManager[Any]:
        """Around an attempt: a subsegment, because the segment of a function is Lambda's own and takes no annotations."""
        if self._tracer is None or "/invoke/" not in path:
            return nullcontext()
        return self._tracing(self._tracer, "/".join(path.split("/")[-2:]))

    @contextmanager
    def _tracing(self, tracer: Tracer, target: str) -> Iterator[None]:
        with tracer.provider.in_subsegment(name=f"## {target}") as subsegment:
            self._subsegment = subsegment
            try:
                yield
            finally:
                self._subsegment = None

    def attempted(self, report: AttemptReport) -> None:
        """After an attempt."""
        cold, self._cold = self._cold, False
        if self._subsegment is not None:
            for key, value in (
                ("invocation_id", report.invocation_id),
                ("handler", f"{report.service}/{report.handler}"),
                ("attempt", report.attempt),
                ("replayed_entries", report.replayed_entries),
                ("new_entries", report.new_entries),
                ("cold_start", cold),
            ):
                self._subsegment.put_annotation(key, value)
        if self._metrics is not None:
            self._metrics.add_dimension("service_handler", f"{report.service}/{report.handler}")
            for name, value in (
                ("Attempts", 1),
                ("ReplayedEntries", report.replayed_entries),
                ("NewEntries", report.new_entries),
                ("ColdStarts", int(cold)),
            ):
                self._metrics.add_metric(name, "Count", value)
            self._metrics.flush_metrics()


def _find_zstd() -> Any:
    """The standard library's zstd (Python 3.14), or its backport, or None."""
    from importlib import import_module
    from importlib.util import find_spec

    for name in ("compression.zstd", "backports.zstd"):
        try:
            if find_spec(name) is not None:
                return import_module(name)
        except ImportError:
            continue
    return None
