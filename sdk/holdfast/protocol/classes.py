"""Message classes from a serialised descriptor.

Rules: protobuf's own way to them loads forty modules of its implementation in Python, most of what a cold start would spend, though its
core in C does all the work; so the core is asked directly, with the call that `google.protobuf.message_factory` makes. Where there is no
such core, or it is another than we know, protobuf's own way is taken.
"""

from collections.abc import Mapping
from typing import Any


def build(descriptor: bytes, module: str) -> Mapping[str, Any]:
    """The classes of the messages in the file that the descriptor describes, by name."""
    try:
        return _by_core(descriptor, module)
    except (ImportError, AttributeError, TypeError, SystemError):
        return by_protobuf(descriptor)


def _by_core(descriptor: bytes, module: str) -> Mapping[str, Any]:
    from google._upb import _message as core  # type: ignore[import-untyped,import-not-found,unused-ignore]
    from google.protobuf.message import Message

    file = core.DescriptorPool().AddSerializedFile(descriptor)
    found = file.message_types_by_name
    return {name: core.MessageMeta(name, (Message,), {"DESCRIPTOR": found[name], "__module__": module}) for name in found}


def by_protobuf(descriptor: bytes) -> Mapping[str, Any]:
    """The same by public means."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(descriptor)
    file = pool.FindFileByName(descriptor_pb2.FileDescriptorProto.FromString(descriptor).name)
    return {name: message_factory.GetMessageClass(found) for name, found in file.message_types_by_name.items()}
