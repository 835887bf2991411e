"""Events of other AWS services as invocations.

What an event is called, so that a handler can ask for it by a pattern in its metadata (`holdfast.event`, with `*` and `?`):

    s3:<bucket>/<object key>         an S3 notification, one per object (through the queue itself, SNS or EventBridge)
    sns:<topic name>                 a message published to a topic
    events:<source>/<detail-type>    anything an EventBridge rule routes here

`holdfast.event.key` says where the key of an object or workflow stands in the document, such as `detail.orderId`. The handler gets the
document as JSON: the S3 record, the SNS message, the whole EventBridge event. Every handler whose pattern matches is invoked, once per
event id: deliveries that are repeated find the idempotency key they made the first time.

A message without all this names its target in its own attributes: holdfast-service, holdfast-handler, holdfast-key, holdfast-id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final
from urllib.parse import unquote_plus

from holdfast_runtime.engine.registry import RegistryView
from holdfast_runtime.ports.inbox import Event, MessageMalformed, Received, shape

PATTERN: Final = "holdfast.event"
KEY_PATH: Final = "holdfast.event.key"
ATTRIBUTE: Final = "holdfast-"  # of SQS messages that name their target themselves


@dataclass(frozen=True, slots=True)
class Happened:
    """`name`: what patterns are compared with. `id`: unique to the event within its source."""

    name: str
    id: str
    document: Any


@dataclass(frozen=True, slots=True)
class Subscription:
    pattern: str
    service: str
    handler: str
    key_path: str | None  # None exactly for plain services


def subscriptions(view: RegistryView) -> Sequence[Subscription]:
    """What the handlers of the newest revisions ask for."""
    return [
        Subscription(pattern, service.name, handler.name, metadata.get(KEY_PATH))
        for service in view.services.values()
        for handler in service.handlers.values()
        if (pattern := (metadata := handler.manifest.metadata or {}).get(PATTERN)) is not None
    ]


def events(received: Received, document: Any, wanted: Sequence[Subscription], view: RegistryView) -> list[Event]:
    """The invocations a message of another service asks for; none for S3's test message. Raises MessageMalformed."""
    if f"{ATTRIBUTE}service" in received.attributes:
        return [_addressed(received, document)]
    happened = list(_happened(document))
    found = [event for item in happened for event in _wanted(item, wanted, view)]
    if happened and not found:
        names = ", ".join(sorted({item.name for item in happened}))
        raise MessageMalformed(f'no handler asks for {names}; give one the metadata "{PATTERN}" with a pattern that matches it')
    return found


def _addressed(received: Received, document: Any) -> Event:
    named = {name.removeprefix(ATTRIBUTE): value for name, value in received.attributes.items() if name.startswith(ATTRIBUTE)}
    unknown = set(named) - {"service", "handler", "key", "id"}
    if unknown or "handler" not in named:
        expected = f"the attributes {ATTRIBUTE}service, {ATTRIBUTE}handler and, if wanted, {ATTRIBUTE}key and {ATTRIBUTE}id"
        raise MessageMalformed(f"expected {expected}; found {', '.join(sorted(received.attributes))}")
    return Event(named.get("id", received.id), named["service"], named["handler"], named.get("key"), document)


def _happened(document: Any) -> Iterator[Happened]:
    match document:
        case {"Event": "s3:TestEvent"}:
            return
        case {"Records": [*records]}:
            for record in records:
                yield _s3(record)
        case {"Type": "Notification", "MessageId": str(id_), "TopicArn": str(topic), "Message": str(message)}:
            inner = _json_or_text(message)
            if isinstance(inner, dict) and ("Records" in inner or inner.get("Event") == "s3:TestEvent"):
                yield from _happened(inner)
            else:
                yield Happened(f"sns:{topic.rpartition(':')[2]}", id_, inner)
        case {"id": str(id_), "source": str(source), "detail-type": str(detail_type), "detail": detail}:
            name = f"events:{source}/{detail_type}"
            if source == "aws.s3" and isinstance(detail, dict) and "object" in detail:
                name = f"s3:{_at(detail, 'bucket.name')}/{_at(detail, 'object.key')}"
            yield Happened(name, id_, document)
        case _:
            raise MessageMalformed(
                "expected a message of Holdfast, an event from EventBridge, SNS or S3, or a message whose attributes name "
                f"{ATTRIBUTE}service and {ATTRIBUTE}handler; found {shape(document)}"
            )


def _s3(record: Any) -> Happened:
    bucket, key = _at(record, "s3.bucket.name"), _at(record, "s3.object.key")
    if record.get("eventSource") != "aws:s3" or not isinstance(bucket, str) or not isinstance(key, str):
        raise MessageMalformed(f"expected records of S3 notifications, found {shape(record)}")
    key = unquote_plus(key)  # S3 encodes it in notifications, and only there
    sequencer = _at(record, "s3.object.sequencer") or record.get("eventTime")  # orders the events of one key, hence names them
    return Happened(f"s3:{bucket}/{key}", f"{bucket}/{key}/{record.get('eventName')}/{sequencer}", record)


def _wanted(happened: Happened, wanted: Sequence[Subscription], view: RegistryView) -> Iterator[Event]:
    for subscription in wanted:
        if fnmatchcase(happened.name, subscription.pattern):
            key = None
            if view.services[subscription.service].keyed:
                key = _key(happened, subscription)
            yield Event(happened.id, subscription.service, subscription.handler, key, happened.document)


def _key(happened: Happened, subscription: Subscription) -> str:
    where = f"{subscription.service}/{subscription.handler}"
    if subscription.key_path is None:
        raise MessageMalformed(f'{where} needs a key: give it the metadata "{KEY_PATH}", such as "detail.orderId"')
    found = _at(happened.document, subscription.key_path)
    if isinstance(found, int | float) and not isinstance(found, bool):
        return str(found)
    if not isinstance(found, str):
        raise MessageMalformed(f"{where} takes its key from {subscription.key_path}, where {happened.name} has {found!r:.40}")
    return found


def _at(document: Any, path: str) -> Any:
    """What stands at `a.b.0.c`, or None."""
    for step in path.split("."):
        if isinstance(document, Mapping):
            document = document.get(step)
        elif isinstance(document, list) and step.isdecimal() and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
