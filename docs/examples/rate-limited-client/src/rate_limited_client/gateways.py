"""The only place with side effects. Replace these bodies by calls of your provider."""

import time
from datetime import timedelta

from holdfast import RetryableError

TAKES_S = 4  # a document; minutes, at a real one


def translate(text: str) -> str:
    print(f"{time.strftime('%X')} translating {text}", flush=True)
    return text.upper()


def submit(name: str, request_id: str) -> str:
    """The provider's id of the work; by `request_id` it recognises a repeated request."""
    print(f"{time.strftime('%X')} submitting {name}", flush=True)
    return f"{int(time.time())}.{request_id}"  # stands for the provider's memory: when it began


def is_done(id: str) -> bool:
    return time.time() - int(id.partition(".")[0]) > TAKES_S


def fetch(id: str) -> str:
    print(f"{time.strftime('%X')} fetching {id}", flush=True)
    return f"the translation {id}"


def throttled(retry_after_s: int) -> RetryableError:
    """For an answer of 429, should the provider count otherwise than we do: it says how long to wait."""
    return RetryableError("the provider wants us to slow down", retry_after=timedelta(seconds=retry_after_s))
