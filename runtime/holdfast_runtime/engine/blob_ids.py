r"""What blobs are called, and how references to them are found in encoded bytes. Pure.

    <owner>/<32 hex digits>   a large value: who brought it (an invocation id) and half of its SHA-256. The same content
                              of the same owner has the same id, so that storing it again is harmless.
    page/<page id>/<lsn>      a page that outgrew a store item, as of batch `lsn`. The stored page is then nothing but
                              the reference; the blob is an encoded document and holds references itself.

Encoded documents and operations hold a reference as a msgpack extension of type 1 whose data is the array [id, size]
(https://github.com/msgpack/msgpack/blob/master/spec.md):

    c7..c9 and length, or d4..d8   01     92      a0..bf, d9 n, da nn or db nnnn   ...   ...
    extension                      type   array   string of so many bytes          id    size

So every reference shows as 01 92 and the head of a string, and the id is cut out by its length: it may look like
anything. An encoding within an encoding is found too, because msgpack keeps byte strings as they are; a compressed one
would not be. Bytes that only look like a reference name no blob.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Final

EXTENSION: Final = 1  # msgpack extension type of a reference
_EXTENSION_HEADS: Final = frozenset((0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8))
# Only looks ahead behind its first two bytes: what merely looks like a reference must not swallow the beginning of a real one.
_LONGEST: Final = 4096  # bytes of a reference; what claims to be longer only looks like one
_REFERENCE: Final = re.compile(rb"\x01\x92(?=[\xa0-\xbf\xd9-\xdb])")


def of_value(owner: str, content: bytes) -> str:
    return f"{owner}/{hashlib.sha256(content).hexdigest()[:32]}"


def of_page(page_id: str, lsn: int) -> str:
    return f"page/{page_id}/{lsn}"


def referenced(encoded: bytes) -> Iterator[str]:
    """The id of every reference in encoded documents or operations; perhaps also text that is no id."""
    for match in _REFERENCE.finditer(encoded):
        start, end = _id_at(encoded, match.end())
        if end > len(encoded):
            continue
        try:
            yield encoded[start:end].decode()
        except UnicodeDecodeError:
            continue


def _id_at(encoded: bytes, at: int) -> tuple[int, int]:
    """Where the string begins and ends whose head is at `at`."""
    head = encoded[at]
    if head < 0xC0:
        return at + 1, at + 1 + (head & 0x1F)
    width = 1 << (head - 0xD9)
    start = at + 1 + width
    return start, start + int.from_bytes(encoded[at + 1 : start], "big")


def cut_at(encoded: bytes, most: int) -> int:
    """The largest cut up to `most` bytes that leaves every reference whole, so that it is found in one of the pieces."""
    cut = most
    while True:
        within = _REFERENCE.finditer(encoded, max(cut - _LONGEST, 1), cut + 2)
        crossing = [match.start() for match in within if match.start() < cut < _id_at(encoded, match.end())[1] <= match.start() + _LONGEST]
        if not crossing:
            return cut
        cut = crossing[0]


def outgrown(document: bytes) -> str | None:
    """The blob that holds the page, when its stored document is nothing but a reference."""
    if document[:1] and document[0] in _EXTENSION_HEADS:
        return next(referenced(document), None)
    return None
