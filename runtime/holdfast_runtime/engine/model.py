"""Pages: their ids, the fields of their documents, and the limits that keep every one of them small.

A page is a document (a tree of dicts with string or integer keys) that is changed only by operations (see `operations`). The field names
are
short because they are written with every change; each is spelled out here and nowhere else. Source of the rules: storage design §5.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Any, Final

from holdfast.protocol.ids import InvocationId

Document = dict[Any, Any]

INLINE_LIMIT: Final = 32 * 1024  # a larger value is stored as a blob and referred to
JOURNAL_PAGE_BYTES: Final = 48 * 1024  # entries beyond this many bytes go to the next journal page
STATE_INLINE_BYTES: Final = 16 * 1024  # state of a key kept in its own page; larger sets spill value by value
MAX_JOURNAL: Final = 100_000  # entries, with the completions that are still to come; storage design §12
QUEUE_PAGE: Final = 500  # queue entries of a key per page
PROMISES_INLINE: Final = 100
TIMERS_PER_PAGE: Final = 512
MESSAGES_PER_PAGE: Final = 64
INDEX_ENTRIES: Final = 256  # rows of a listing index page; at ~150 bytes a row a page stays under 64 KB
RECENT_BYTES: Final = 64 * 1024
RECENT_MS: Final = 180_000  # how long the result of an invocation that is not retained can still be asked for
STALE_REQUEST_MS: Final = 60_000  # a request with an id older than this is refused: `recent` may have forgotten it
ACTIVE_PAGES: Final = 16  # running invocations are spread over this many pages, so that none outgrows an item
HOUR_MS: Final = 3_600_000
FINISHED_BUCKET_MS: Final = 300_000
CANCEL_SIGNAL: Final = 1
FIRST_AWAKEABLE: Final = 17  # signal indexes from here on are awakeables: the first completion wins


class Status(IntEnum):
    SCHEDULED = 0  # waits for its start time
    QUEUED = 1  # waits for the object's key
    RUNNING = 2  # an attempt is in flight, about to start, or backing off
    SUSPENDED = 3  # waits for one of the awaited results
    PAUSED = 4  # waits for an operator
    DONE = 5


# ---- page ids ----------------------------------------------------------------------------------------------------------------


def invocation_page(invocation: str) -> str:
    return "I/" + invocation


def journal_page(invocation: str, number: int) -> str:
    return f"J/{invocation}/{number}"


def key_page(service: str, key: str) -> str:
    return f"K/{service}/{key}"


def state_page(service: str, key: str, name: str) -> str:
    return f"S/{service}/{len(key)}/{key}/{name}"  # the length keeps (key "a/b", name "c") apart from (key "a", name "b/c")


def queue_page(service: str, key: str, number: int) -> str:
    return f"Q/{service}/{key}/{number}"


def promise_page(service: str, key: str, name: str) -> str:
    return f"P/{service}/{len(key)}/{key}/{name}"


def timer_page(shard: int, hour: int, number: int) -> str:
    return f"T/{shard}/{hour}/{number}"


def timer_index(shard: int) -> str:
    return f"X/{shard}/timers"


def active_page(shard: int, invocation: str) -> str:
    return f"X/{shard}/active/{ord(invocation[-1]) % ACTIVE_PAGES}"


def active_pages(shard: int) -> list[str]:
    return [f"X/{shard}/active/{n}" for n in range(ACTIVE_PAGES)]


def inbox_page(shard: int) -> str:
    return f"X/{shard}/in"


def outbox_page(shard: int, destination: int) -> str:
    return f"X/{shard}/out/{destination}"


def messages_page(shard: int, destination: int, sequence: int) -> str:
    return f"X/{shard}/out/{destination}/{sequence // MESSAGES_PER_PAGE}"


def recent_index(shard: int) -> str:
    return f"X/{shard}/recent"


def recent_page(shard: int, minute: int, number: int) -> str:
    return f"X/{shard}/recent/{minute}/{number}"


def listing_index(shard: int) -> str:
    return f"X/{shard}/index"


def live_page(shard: int, number: int) -> str:
    return f"N/{shard}/{number}"


def finished_page(shard: int, bucket: int, number: int) -> str:
    return f"A/{shard}/{bucket}/{number}"


def keys_page(shard: int, number: int) -> str:
    return f"L/{shard}/{number}"


def is_own_page(page_id: str) -> bool:
    """Pages of the shard itself: kept in memory as long as the shard is owned."""
    return page_id.startswith("X/")


# ---- fields of an invocation page ----------------------------------------------------------------------------------------------

STATUS: Final = "s"
TARGET: Final = "tg"  # [service, handler, key or None, kind]
JOURNAL: Final = "j"  # {index: entry} up to JOURNAL_PAGE_BYTES
LENGTH: Final = "n"  # number of journal entries
INLINE: Final = "jb"  # bytes in JOURNAL
PAGES: Final = "jp"  # first index of each further journal page
PAGE_FILL: Final = "jf"  # bytes in the last of them
PENDING: Final = "pd"  # {completion id: [notification type, journal index of the command]}: what may still be completed
SIGNALLED: Final = "sg"  # {signal index: 1}: awakeables that were completed
TIMERS: Final = "tm"  # {completion id: [due ms, hour, page]}
SINKS: Final = "sk"  # {n: sink}: who is told the result (outbox.py)
AWAITING: Final = "aw"  # tree of awaited results while suspended
RESOLVED: Final = "ar"  # [[key, outcome]] resolved since it was suspended
DEPLOYMENT: Final = "dp"  # pinned deployment, absent until first progress
VERSION: Final = "pv"  # pinned protocol version
RETRY: Final = "rt"  # [failed attempts of this series, failed attempts since the last stored entry, due ms, failure]
APPENDED_AT: Final = "la"  # ms of the last journal append
CREATED_AT: Final = "ca"
MODIFIED_AT: Final = "ma"
STARTED_AT: Final = "sa"  # ms when it left scheduled/queued
EXECUTE_AT: Final = "at"  # ms, scheduled invocations
RETENTION: Final = "cr"  # ms the result is kept; 0 = not retained
JOURNAL_RETENTION: Final = "jr"
IDEMPOTENCY_KEY: Final = "ik"
REQUEST: Final = "rq"  # id of the request that created it: a repeated request is not a second one
SOURCE: Final = "sr"  # [] from outside, or [invocation, service, handler, key] of the caller
RESULT: Final = "rs"  # ["v", payload] | ["f", code, message, metadata]
COMPLETED_AT: Final = "ct"
EXPIRES_AT: Final = "x"
LISTED: Final = "nx"  # number of the live index page that lists it; once finished [bucket, number] of the finished index page
PAUSE_REQUESTED: Final = "pz"  # becomes PAUSED when the attempt in flight ends
ANSWERED: Final = "oq"  # [[request id, answer], ...] of the operators' requests that came last
RESTARTED_FROM: Final = "rf"  # invocation this one is a new run of
SEED_OF: Final = "so"  # invocation whose random numbers it goes on with, because it goes on with its journal

# fields of a key page
LOCK: Final = "l"  # the exclusive invocation that holds the key
HEAD: Final = "h"  # number of the next queue entry to leave
TAIL: Final = "t"  # number the next queue entry gets
QUEUE: Final = "q"  # {number: invocation} of entries that are not in a queue page
STATE: Final = "st"  # {name: payload}
STATE_BYTES: Final = "sb"
SPILLED: Final = "sx"  # {name: size}: values in state pages
PROMISES: Final = "p"  # {name: ["l", {n: [invocation, completion id, type]}] | result}
PROMISES_SPILLED: Final = "px"  # {name: 1}
KEY_LISTED: Final = "nk"  # number of the page that lists the key while it has state or promises (key_listing.py)


@lru_cache(maxsize=8192)
def partition_key_of(invocation: str) -> int:
    return InvocationId.parse(invocation).partition_key


def shard_of_key(partition_key: int, shards: int) -> int:
    """storage design §3: a shard is a slice of the 64-bit partition-key space."""
    return (partition_key * shards) >> 64


def shard_of(invocation: str, shards: int) -> int:
    return shard_of_key(partition_key_of(invocation), shards)


def partition_key_in(shard: int, shards: int, offset: int = 0) -> int:
    """Some partition key of `shard`; `offset` (any integer) picks among them."""
    low = -((-shard << 64) // shards)
    high = -((-(shard + 1) << 64) // shards)
    return low + offset % (high - low)
