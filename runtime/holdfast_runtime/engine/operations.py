"""Operations: what the log holds. Blind, with explicit keys, safe to repeat (storage design §1).

    [page, path, value]   put: set the value at the path; an empty path replaces the document
    [page, path]          del: remove the value at the path, if it is there
    [page, None, fields]  merge: set several fields of the document at once
    [page]                drop: the page no longer exists

Encoded one after the other with msgpack: a batch is cut between two operations, or within one that no item holds, and put together again
before it is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack

from holdfast_runtime.engine import blob_ids
from holdfast_runtime.engine.model import Document
from holdfast_runtime.engine.payload import BlobRef


def _default(value: Any) -> Any:
    if isinstance(value, BlobRef):
        return msgpack.ExtType(blob_ids.EXTENSION, msgpack.packb([value.id, value.size]))
    raise TypeError(f"a page cannot hold {type(value).__name__}")


def _ext(code: int, data: bytes) -> Any:
    if code == blob_ids.EXTENSION:
        return BlobRef(*msgpack.unpackb(data))
    raise ValueError(f"unknown extension {code} in a page")


_packer = msgpack.Packer(default=_default, autoreset=True)  # one for all: making a packer costs more than a small document


def encode(value: Any) -> bytes:
    """Any document, operation or message as msgpack; references survive the round trip. Not safe for use by several threads."""
    try:
        return _packer.pack(value)  # type: ignore[no-any-return]
    except BaseException:
        _packer.reset()  # what was packed so far would stand before the next value
        raise


def decode(data: bytes) -> Any:
    return msgpack.unpackb(data, ext_hook=_ext, strict_map_key=False, raw=False)


def decode_all(data: bytes) -> Iterator[Any]:
    """The operations of one or more concatenated encodings, in order."""
    unpacker = msgpack.Unpacker(ext_hook=_ext, strict_map_key=False, raw=False, max_buffer_size=0)
    unpacker.feed(data)
    return iter(unpacker)


def apply(document: Document | None, operation: list[Any]) -> Document | None:
    """The document after the operation. Changes `document` in place where it can (recovery owns what it applies to)."""
    if len(operation) == 1:
        return None
    path = operation[1]
    if len(operation) == 2:
        if document is None:
            return None
        container: Any = document
        for step in path[:-1]:
            container = container.get(step)
            if container is None:
                return document
        container.pop(path[-1], None)
        return document
    if path is None:
        return {**(document or {}), **operation[2]}
    if not path:
        return operation[2]  # type: ignore[no-any-return]
    document = {} if document is None else document
    container = document
    for step in path[:-1]:
        container = container.setdefault(step, {})
    container[path[-1]] = operation[2]
    return document
