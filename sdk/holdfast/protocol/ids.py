"""Identifiers: parse, format and derive (service protocol §7).

Rules: text is `prefix_1` plus fixed-width digits; base62 digits are those of the bytes read as a
*little-endian* integer; an invocation id is 24 bytes, partition key then uuid; ids that must be deterministic
(workflow runs, idempotent requests, children) are pure functions of their coordinates, so the id is the
dedupe key.
"""

import base64
import binascii
import struct
from typing import Final, NoReturn

from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.records import Record

INVOCATION_ID_BYTES: Final = 24
BUCKETS: Final = 512  # how many partition keys one unkeyed service spreads over
CANCEL_SIGNAL: Final = 1
FIRST_AWAKEABLE_SIGNAL: Final = 17  # 1-16 are reserved

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VALUE_OF: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_PAIRS: Final = [high + low for high in _DIGITS for low in _DIGITS]
_WIDTH: Final = {8: 11, 16: 22}  # bytes -> digits
_PREFIXES: Final = frozenset({"inv", "dp", "sub", "sign", "prom", "part", "node", "snap", "mut", "vq"})


class IdError(ProtocolError):
    """A text that is no identifier of the expected kind; `reason` is what the HTTP surfaces embed."""

    def __init__(self, reason: str, text: str, expected: str) -> None:
        super().__init__(f"{reason}: expected {expected}, found {text!r}; copy the id exactly as it was given")
        self.reason = reason


def base62_encode(data: bytes) -> str:
    """11 digits for 8 bytes, 22 for 16."""
    number = int.from_bytes(data, "little")
    pairs = []
    width = _WIDTH[len(data)]
    for _ in range(width // 2):
        number, pair = divmod(number, 3844)
        pairs.append(_PAIRS[pair])
    if width & 1:
        pairs.append(_DIGITS[number])
    pairs.reverse()
    return "".join(pairs)


def base62_decode(digits: str, size: int) -> bytes:
    """The inverse for `size` bytes (8 or 16). Raises ValueError on a wrong width, digit or an overflow."""
    if len(digits) != _WIDTH[size]:
        raise ValueError("bad length")
    number = 0
    try:
        for digit in digits:
            number = number * 62 + _VALUE_OF[digit]
        return number.to_bytes(size, "little")
    except (KeyError, OverflowError):
        raise ValueError("base62 decode error") from None


class InvocationId:
    """24 bytes that name an invocation; equality, hash and order are theirs, `str` gives the text form."""

    __slots__ = ("_text", "partition_key", "raw")
    raw: bytes
    partition_key: int
    _text: str

    def __init__(self, raw: bytes) -> None:
        if len(raw) != INVOCATION_ID_BYTES:
            raise ProtocolError(f"an invocation id has {INVOCATION_ID_BYTES} bytes, found {len(raw)}; pass the id of Start unchanged")
        object.__setattr__(self, "raw", raw)
        object.__setattr__(self, "partition_key", int.from_bytes(raw[:8], "big"))
        object.__setattr__(self, "_text", "")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("an invocation id is frozen")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InvocationId) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __lt__(self, other: "InvocationId") -> bool:
        return self.raw < other.raw

    def __str__(self) -> str:
        if not self._text:
            text = f"inv_1{base62_encode(self.raw[:8])}{base62_encode(self.raw[8:])}"
            object.__setattr__(self, "_text", text)
        return self._text

    def __repr__(self) -> str:
        return f"InvocationId({self})"

    @property
    def uuid(self) -> bytes:
        """The 16 bytes behind the partition key."""
        return self.raw[8:]

    @classmethod
    def from_raw(cls, raw: bytes) -> "InvocationId":
        """From 24 bytes; raises ProtocolError on any other length."""
        return cls(bytes(raw))

    @classmethod
    def parse(cls, text: str) -> "InvocationId":
        """From the text form; raises IdError."""
        expected = "inv_1 and 33 base62 digits"
        digits = _payload(text, "inv", expected)
        if len(digits) != 33:
            raise IdError("bad length", text, expected)
        try:
            raw = base62_decode(digits[:11], 8) + base62_decode(digits[11:], 16)
        except ValueError as error:
            raise IdError(str(error), text, expected) from error
        return cls(raw)


class AwakeableId(Record):
    """What an awakeable id names; the `legacy` form `prom_1` is accepted and delivers nothing."""

    invocation: InvocationId
    index: int
    legacy: bool


# ---- Minting


def random_invocation_id(partition_key: int, now_ms: int, random80: bytes) -> InvocationId:
    """A fresh id: ULID of `now_ms` (milliseconds since the epoch) and 10 random bytes."""
    assert len(random80) == 10
    return InvocationId(partition_key.to_bytes(8, "big") + now_ms.to_bytes(6, "big") + random80)


def workflow_run_id(workflow: str, key: str) -> InvocationId:
    """The id of the run of (workflow, key)."""
    return _derived(keyed_partition_key(key), f"wf,{workflow},{key}".encode())


def idempotent_id(service: str, handler: str, idempotency_key: str, key: str | None = None) -> InvocationId:
    """The id of an idempotent request; `key` for objects and workflows.

    Commas are not escaped, so ("a,b", "c") and ("a", "b,c") collide: compare the stored target when joining.
    """
    if key is None:
        partition_key = unkeyed_partition_key(service, idempotency_bucket(idempotency_key))
        return _derived(partition_key, f"ik,{service},{handler},{idempotency_key}".encode())
    return _derived(keyed_partition_key(key), f"ik,{service},{key},{handler},{idempotency_key}".encode())


def child_id(caller: InvocationId, command_index: int, partition_key: int) -> InvocationId:
    """The id of the invocation a call or send starts, the same each time the command is processed.

    uuid = first 16 bytes of SHA-256 over `child,`, the 24 raw bytes of the caller, and the command's index in
    the caller's journal as u64 big endian. It carries no time.
    """
    return _derived(partition_key, b"child," + caller.raw + command_index.to_bytes(8, "big"))


def keyed_partition_key(key: str) -> int:
    """The partition key of every invocation of one object or workflow key."""
    return _xxh3(key.encode() + b"\xff")


def unkeyed_partition_key(service: str, bucket: int) -> int:
    """The partition key of an invocation of a plain service; `bucket` is 0..511."""
    return _xxh3(service.encode() + b"\xffunscoped/service\xff" + bucket.to_bytes(8, "little"))


def idempotency_bucket(idempotency_key: str) -> int:
    """The bucket of an idempotent request to a plain service."""
    return _xxh3(idempotency_key.encode() + b"\xff") % BUCKETS


def _derived(partition_key: int, preimage: bytes) -> InvocationId:
    from hashlib import sha256  # loads OpenSSL, which handlers do without: only the coordinator derives ids

    return InvocationId(partition_key.to_bytes(8, "big") + sha256(preimage).digest()[:16])


def _xxh3(data: bytes) -> int:
    # Imported here: only the coordinator derives partition keys, and the package is in its extra.
    import xxhash

    return int(xxhash.xxh3_64_intdigest(data))


def timestamp_ms(id: InvocationId) -> int:
    """Milliseconds since the epoch in a ULID uuid. Meaningless for derived ids."""
    return int.from_bytes(id.raw[8:14], "big")


# ---- Random seed

_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF
_THREE_WORDS: Final = struct.Struct("<3Q")


def random_seed(raw: bytes) -> int:
    """The seed of an invocation: SipHash-1-3, key (0, 0), over u64 24 (little endian) and the id.

    Source: service protocol §4.6.
    """
    assert len(raw) == INVOCATION_ID_BYTES
    mask = _MASK
    v0, v1, v2, v3 = 0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573
    # One round for the length prefix, each word of the id, and the closing word (total length 32 in the top
    # byte); then three rounds over zero with v2 flipped. The loop body is the round, written out because
    # calls are dear.
    for position, word in enumerate((24, *_THREE_WORDS.unpack(raw), 32 << 56, 0, 0, 0)):
        if position == 5:
            v2 ^= 0xFF
        v3 ^= word
        v0 = (v0 + v1) & mask
        v1 = (v1 << 13 & mask | v1 >> 51) ^ v0
        v0 = v0 << 32 & mask | v0 >> 32
        v2 = (v2 + v3) & mask
        v3 = (v3 << 16 & mask | v3 >> 48) ^ v2
        v0 = (v0 + v3) & mask
        v3 = (v3 << 21 & mask | v3 >> 43) ^ v0
        v2 = (v2 + v1) & mask
        v1 = (v1 << 17 & mask | v1 >> 47) ^ v2
        v2 = v2 << 32 & mask | v2 >> 32
        v0 ^= word
    return v0 ^ v1 ^ v2 ^ v3


# ---- Awakeables and deployments


def awakeable_id(invocation: InvocationId, index: int) -> str:
    """The text id of the awakeable that waits on signal `index` of an invocation."""
    return "sign_1" + base64.urlsafe_b64encode(invocation.raw + index.to_bytes(4, "big")).rstrip(b"=").decode()


def parse_awakeable_id(text: str) -> AwakeableId:
    """From `sign_1...` or the legacy `prom_1...`; raises IdError."""
    expected = "sign_1 and 38 base64url digits"
    legacy = text.startswith("prom_")
    digits = _payload(text, "prom" if legacy else "sign", expected)
    # The reference tries both forms and reports the second failure, hence the odd reason for a short
    # `sign_1`.
    if len(digits) != 38:
        raise IdError("bad length" if legacy else "id doesn't match the expected type", text, expected)
    try:
        raw = base64.b64decode(digits.encode("ascii") + b"==", altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise IdError("bad format", text, expected) from error
    return AwakeableId(InvocationId(raw[:24]), int.from_bytes(raw[24:], "big"), legacy)


def deployment_id(ulid: bytes) -> str:
    """The text id of a deployment from 16 ULID bytes."""
    return "dp_1" + base62_encode(ulid)


def parse_deployment_id(text: str) -> bytes:
    """The 16 ULID bytes of a deployment id; raises IdError."""
    return _parse_ulid(text, "dp")


def parse_subscription_id(text: str) -> bytes:
    """The 16 ULID bytes of a subscription id; raises IdError."""
    return _parse_ulid(text, "sub")


def _parse_ulid(text: str, prefix: str) -> bytes:
    expected = f"{prefix}_1 and 22 base62 digits"
    digits = _payload(text, prefix, expected)
    try:
        return base62_decode(digits, 16)
    except ValueError as error:
        raise IdError(str(error), text, expected) from error


def subscription_id(ulid: bytes) -> str:
    """The text id of a subscription from 16 ULID bytes."""
    return "sub_1" + base62_encode(ulid)


def _payload(text: str, prefix: str, expected: str) -> str:
    """The digits behind `prefix_1`; raises IdError with the reason the reference gives."""
    found, separator, rest = text.partition("_")
    if not separator:
        raise IdError("bad format", text, expected)
    if found not in _PREFIXES:
        raise IdError(f"unrecognized resource type: {found}", text, expected)
    if found != prefix:
        raise IdError("id doesn't match the expected type", text, expected)
    if not rest:
        raise IdError("bad length", text, expected)
    if rest[0] != "1":
        raise IdError("unrecognized codec version", text, expected)
    return rest[1:]
