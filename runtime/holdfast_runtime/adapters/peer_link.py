"""What two coordinator processes say to each other over one connection, without the I/O.

Both prove that they know the cluster's secret before anything else is read, and every frame carries a keyed digest over its
number and its content: nobody can speak, replay or change a frame without the secret. The content is not encrypted: it stays
within the private network of the replicas.

    caller    MAGIC, 16 random bytes
    answerer  MAGIC, 16 random bytes, proof of the secret over both
    caller    proof of the secret over both
    then, each way: length u32, kind u8, request u64, content (msgpack), digest 16

The sizes are big-endian; `length` counts the content alone.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

MAGIC: Final = b"HFPEERS1"  # the last character is the version: other versions are refused, and asked again when they are gone
NONCE_BYTES: Final = 16
PROOF_BYTES: Final = 32
DIGEST_BYTES: Final = 16
MAX_CONTENT_BYTES: Final = 64 * 1024 * 1024  # a reply to a scan is cut at 16 MB, a value at 32 MB
_HEAD: Final = struct.Struct(">IBQ")


class LinkBroken(Exception):
    """What came is not from a peer that shares our secret and version; the connection must go."""


class Kind(IntEnum):
    REQUEST = 1
    REPLY = 2
    FAILED = 3  # the request met a fault of the other side: its outcome is unknown
    CANCEL = 4  # nobody waits for this request any more
    PING = 5


class Frame(NamedTuple):
    kind: Kind
    request: int
    content: bytes


class _Side(NamedTuple):
    proof: bytes
    frames: bytes


_CALLER: Final = _Side(b"caller proves", b"caller frames")
_ANSWERER: Final = _Side(b"answerer proves", b"answerer frames")


class Link:
    """One end of a connection. `secret`: of the cluster, at least 16 bytes. `nonce`: 16 fresh random bytes. Not usable after LinkBroken."""

    def __init__(self, secret: bytes, nonce: bytes, *, calling: bool) -> None:
        if len(secret) < NONCE_BYTES or len(nonce) != NONCE_BYTES:
            raise ValueError(f"expected a secret of at least {NONCE_BYTES} and a nonce of {NONCE_BYTES} bytes")
        self._secret = secret
        self._nonce = nonce
        self._calling = calling
        self._both = b""  # the two nonces, the caller's first; set when the other's is known
        self._sending = self._receiving = b""  # keys of the frames' digests, made from the secret and both nonces
        self._received = bytearray()
        self._sent_frames = self._received_frames = 0
        self.ready = False  # the other end has proved the secret, frames may be sent

    def hello(self) -> bytes:
        """What a caller sends first."""
        return MAGIC + self._nonce

    def receive(self, data: bytes) -> tuple[bytes, list[Frame]]:
        """What to send back now, and the frames that are complete. Raises LinkBroken."""
        self._received += data
        answer = b""
        if not self.ready:
            answer = self._shake()
        return answer, list(self._frames()) if self.ready else []

    def frame(self, kind: Kind, request: int, content: bytes = b"") -> bytes:
        """Encoded. Raises ValueError for a content beyond MAX_CONTENT_BYTES."""
        if len(content) > MAX_CONTENT_BYTES:
            raise ValueError(f"a message between processes holds at most {MAX_CONTENT_BYTES} bytes, this one has {len(content)}")
        head = _HEAD.pack(len(content), kind, request)
        digest = _digest(self._sending, self._sent_frames, head, content)
        self._sent_frames += 1
        return head + content + digest

    # -- before frames

    def _shake(self) -> bytes:
        mine, theirs = (_CALLER, _ANSWERER) if self._calling else (_ANSWERER, _CALLER)
        answer = b""
        if not self._both:
            nonce = self._take_greeting()
            if nonce is None:
                return b""
            self._both = self._nonce + nonce if self._calling else nonce + self._nonce
            self._sending, self._receiving = self._key(mine), self._key(theirs)
            if not self._calling:
                answer = MAGIC + self._nonce + self._proof(mine)
        if len(self._received) < PROOF_BYTES:
            return answer
        proof = self._take(PROOF_BYTES)
        if not hmac.compare_digest(proof, self._proof(theirs)):
            raise LinkBroken("the other end does not know the secret of this cluster")
        self.ready = True
        return self._proof(mine) if self._calling else answer

    def _take_greeting(self) -> bytes | None:
        if not MAGIC.startswith(bytes(self._received[: len(MAGIC)])):
            raise LinkBroken(f"expected a peer's greeting {MAGIC!r}, found {bytes(self._received[: len(MAGIC)])!r}")
        if len(self._received) < len(MAGIC) + NONCE_BYTES:
            return None
        return self._take(len(MAGIC) + NONCE_BYTES)[len(MAGIC) :]

    def _take(self, count: int) -> bytes:
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def _proof(self, side: _Side) -> bytes:
        return hmac.digest(self._secret, side.proof + self._both, "sha256")

    def _key(self, side: _Side) -> bytes:
        return hmac.digest(self._secret, side.frames + self._both, "sha256")

    # -- frames

    def _frames(self) -> Iterator[Frame]:
        overhead = _HEAD.size + DIGEST_BYTES
        while len(self._received) >= overhead:
            length, kind, request = _HEAD.unpack_from(self._received)
            if length > MAX_CONTENT_BYTES:
                raise LinkBroken(f"a frame announces {length} bytes, at most {MAX_CONTENT_BYTES} are possible")
            if len(self._received) < overhead + length:
                return
            raw = self._take(overhead + length)
            content = raw[_HEAD.size : -DIGEST_BYTES]
            digest = _digest(self._receiving, self._received_frames, raw[: _HEAD.size], content)
            if not hmac.compare_digest(digest, raw[-DIGEST_BYTES:]):
                raise LinkBroken("a frame was changed on its way")
            self._received_frames += 1
            try:
                yield Frame(Kind(kind), request, content)
            except ValueError as unknown:
                raise LinkBroken(f"unknown kind of frame {kind}") from unknown


def _digest(key: bytes, number: int, head: bytes, content: bytes) -> bytes:
    digest = hashlib.blake2b(number.to_bytes(8, "big") + head, digest_size=DIGEST_BYTES, key=key)
    digest.update(content)
    return digest.digest()
