"""Items of the table: keys, attributes, sizes. Pure (storage design §2).

1. Attribute names are one letter where an item is written often: an item of up to 1 KB, names included, costs one
   write unit, and the next KB another one.
2. What has its default value is left out: a batch of one part needs neither `f`, `i` nor `n`.
3. Bytes are in `b`, or compressed (zstd) in `z`, where that saves a unit and only then.
4. Ids of any length: a key that DynamoDB would not take (over 2 KB) is replaced by its SHA-256.

| item | pk | sk |
| --- | --- | --- |
| log | `L#<shard>#<position // 64>` | position, 16 digits |
| page | `P#<page id>` | `-` |
| shard | `M` | shard number, 3 digits: `e`, `owner`, `cp`, `tip`, and `at`: when its owner was last known to live |
| setup | `M` | `setup`: `v` schema version, `n` number of shards, `bucket` |
| member | `H` | process id |
| registry | `R` | name |
| blob part | `B#<blob id>` | `00000`; further parts `<part>-<stream>` |
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final

import zstandard

from holdfast_runtime.ports.store import LogItem, Member, ShardRecord, StoredPage

SCHEMA_VERSION: Final = 1
POSITIONS_PER_KEY: Final = 64  # so that the 1,000 write units a second of one partition key do not bind
SETUP: Final = "setup"
SHARDS_KEY, MEMBERS_KEY, REGISTRY_KEY = "M", "H", "R"
PAGE_SORT_KEY: Final = "-"
BLOB_PART_BYTES: Final = 350_000
FIRST_BLOB_PART: Final = "00000"

# The log behind the checkpoint is of no use; the log ahead of it is all there is when every process has died. The service
# deletes by this time whatever the checkpoint says, so it is how long a store may stay without any process after a crash.
LOG_S: Final = 14 * 86_400
# An owner's record says at least once a day that it lives (`at`). What is ahead of its checkpoint was written in its last hours.
ALIVE_EVERY_S: Final = 86_400
SURE_S: Final = LOG_S - 2 * ALIVE_EVERY_S  # so long after `at` nothing that is needed can have expired
PAGE_S: Final = LOG_S + 86_400  # a page or tombstone must outlive every log item that may be redone onto it
MEMBER_S: Final = 3_600

_UNIT: Final = 1024
_LONGEST_KEY: Final = 2000  # bytes; the service takes 2048
_compressor = zstandard.ZstdCompressor(level=3)
_decompressor = zstandard.ZstdDecompressor()

Item = dict[str, Any]


def text(value: str) -> Item:
    return {"S": value}


def number(value: int) -> Item:
    return {"N": str(value)}


def binary(value: bytes) -> Item:
    return {"B": base64.b64encode(value).decode()}


def bytes_of(value: Item) -> bytes:
    return base64.b64decode(value["B"])


def int_of(item: Item, name: str, default: int = 0) -> int:
    value = item.get(name)
    return int(value["N"]) if value is not None else default


def text_of(item: Item, name: str) -> str:
    value = item.get(name)
    return str(value["S"]) if value is not None else ""


def size_of(item: Item) -> int:
    """Bytes as the service counts them: names, and values without their base64 ("DynamoDB item sizes and formats")."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: Item) -> int:
    kind, content = next(iter(value.items()))
    if kind == "BOOL":
        return 1
    content = str(content)
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return len(content.lstrip("-0")) // 2 + 2
    if kind == "B":
        return len(content) * 3 // 4 - content[-2:].count("=")
    raise AssertionError(f"no size for {kind}")


def units(size: int) -> int:
    """Write units of an item of so many bytes."""
    return -(-size // _UNIT)


def with_content(item: Item, content: bytes) -> Item:
    """`item` with `content` in it, compressed when that saves a unit."""
    plain = size_of(item) + 1 + len(content)
    if units(plain) > 1:
        packed = _compressor.compress(content)
        if units(plain - len(content) + len(packed)) < units(plain):
            return {**item, "z": binary(packed)}
    return {**item, "b": binary(content)}


def content_of(item: Item) -> bytes:
    packed = item.get("z")
    if packed is not None:
        return _decompressor.decompress(bytes_of(packed))
    plain = item.get("b")
    return bytes_of(plain) if plain is not None else b""


def _bounded(key: str) -> str:
    """A collision would need two texts with the same SHA-256; no short key has this form, as `#` follows the kind at once."""
    encoded = key.encode()
    return key if len(encoded) <= _LONGEST_KEY else f"{key[0]}~{hashlib.sha256(encoded).hexdigest()}"


# Log


def log_partition(shard: int, position: int) -> str:
    return f"L#{shard}#{position // POSITIONS_PER_KEY}"


def log_sort_key(position: int) -> str:
    return f"{position:016d}"


def log_item(shard: int, item: LogItem, *, now_s: int) -> Item:
    head: Item = {
        "pk": text(log_partition(shard, item.position)),
        "sk": text(log_sort_key(item.position)),
        "e": number(item.epoch),
        "w": binary(item.nonce),
        "ttl": number(now_s + LOG_S),
    }
    if item.first != item.position:
        head["f"] = number(item.first)
    if item.part:
        head["i"] = number(item.part)
    if item.parts != 1:
        head["n"] = number(item.parts)
    return with_content(head, item.operations) if item.operations else head


def log_item_of(item: Item) -> LogItem:
    position = int(item["sk"]["S"])
    return LogItem(
        position,
        int_of(item, "e"),
        bytes_of(item["w"]),
        int_of(item, "f", position),
        int_of(item, "i"),
        int_of(item, "n", 1),
        content_of(item),
    )


# Pages


def page_key(page_id: str) -> Item:
    return {"pk": text(_bounded(f"P#{page_id}")), "sk": text(PAGE_SORT_KEY)}


def page_item(page_id: str, page: StoredPage, *, now_s: int, expires_at_ms: int | None) -> Item:
    item = {**page_key(page_id), "l": number(page.lsn)}
    if expires_at_ms is not None:
        item["x"] = number(expires_at_ms)
    if page.document is None or expires_at_ms is not None:
        item["ttl"] = number(max(now_s + PAGE_S, (expires_at_ms or 0) // 1000))
    if page.document is None:
        return {**item, "d": {"BOOL": True}}
    return with_content(item, page.document)


def page_of(item: Item) -> StoredPage:
    return StoredPage(int_of(item, "l"), None if "d" in item else content_of(item))


# Leases


def shard_key(shard: int) -> Item:
    return {"pk": text(SHARDS_KEY), "sk": text(f"{shard:03d}")}


def shard_item(record: ShardRecord, *, now_s: int) -> Item:
    return {
        **shard_key(record.shard),
        "at": number(now_s),
        "e": number(record.epoch),
        "owner": text(record.owner),
        "cp": number(record.checkpoint),
        "tip": number(record.tip),
    }


def shard_of(item: Item) -> ShardRecord:
    return ShardRecord(int(item["sk"]["S"]), int_of(item, "e"), text_of(item, "owner"), int_of(item, "cp"), int_of(item, "tip"))


def setup_item(shards: int, bucket: str | None) -> Item:
    item = {"pk": text(SHARDS_KEY), "sk": text(SETUP), "v": number(SCHEMA_VERSION), "n": number(shards)}
    return {**item, "bucket": text(bucket)} if bucket else item


def member_key(process_id: str) -> Item:
    return {"pk": text(MEMBERS_KEY), "sk": text(process_id)}


def member_item(member: Member, *, now_s: int) -> Item:
    return {**member_key(member.process_id), "c": number(member.counter), "addr": text(member.address), "ttl": number(now_s + MEMBER_S)}


def member_of(item: Item) -> Member:
    return Member(item["sk"]["S"], int_of(item, "c"), text_of(item, "addr"))


# Registry and blobs


def registry_key(name: str) -> Item:
    return {"pk": text(REGISTRY_KEY), "sk": text(name)}


def registry_item(name: str, version: int, document: bytes) -> Item:
    return with_content({**registry_key(name), "v": number(version)}, document)


def blob_partition(blob_id: str) -> str:
    return _bounded(f"B#{blob_id}")


def blob_items(blob_id: str, content: bytes, *, now_s: int) -> list[Item]:
    """The parts, each with their number; all plain or all compressed, as one stream cut into pieces.

    `at`: when they were put, for a sweep.

    The first part names the stream (`h`), the others are filed under it: two puts whose compressors differ cannot mix.
    """
    packed = _compressor.compress(content)
    name, stored = ("z", packed) if units(len(packed)) < units(len(content)) else ("b", content)
    pieces = [stored[start : start + BLOB_PART_BYTES] for start in range(0, len(stored), BLOB_PART_BYTES)] or [b""]
    stream = hashlib.sha256(stored).hexdigest()[:16]
    head = {"pk": text(blob_partition(blob_id)), "h": text(stream), "n": number(len(pieces)), "at": number(now_s)}
    return [
        {**head, "sk": text(f"{part:05d}-{stream}" if part else FIRST_BLOB_PART), name: binary(piece)} for part, piece in enumerate(pieces)
    ]


def blob_of(items: list[Item]) -> bytes | None:
    """From all items of the blob's partition, in order. None: not there, or not all of it."""
    if not items or items[0]["sk"]["S"] != FIRST_BLOB_PART:
        return None
    parts = [item for item in items if item["h"] == items[0]["h"]]
    if len(parts) != int_of(items[0], "n"):
        return None
    if "z" in items[0]:
        return _decompressor.decompress(b"".join(bytes_of(item["z"]) for item in parts))
    return b"".join(bytes_of(item["b"]) for item in parts)
