"""Fan-out over a bucket: a parent lists, children work, the parent adds up.

Rules: one child for each batch, so that no journal grows with the number of objects but the parent's, by a line for each batch; one
step for each object, recorded when the attempt ends, after a minute of work at the latest: a crash repeats no more than that, and finds
by the ETag what was written already. Handlers are plain functions, as boto3 is.
"""

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import partial

from holdfast import RetryPolicy, Service, TerminalError
from holdfast.aws import lambda_handler
from holdfast.sync import Context

from s3_fan_out import storage
from s3_fan_out.storage import Item, Outcome

PAGE = 1_000  # objects listed at once, S3's own limit; its batches are worked on side by side
BATCH = 100  # objects of one child
CONCURRENCY = 10  # objects of one child that are under way at the same time: threads of one function
NAMED_FAILURES = 100  # the report names so many; results are for reading
# S3 asks to slow down now and then; it is never down for an hour.
PATIENT = RetryPolicy(initial_interval=timedelta(milliseconds=500), max_interval=timedelta(seconds=30), max_duration=timedelta(hours=1))


@dataclass(frozen=True)
class Wish:
    """Every object of the bucket whose key begins with `prefix`; the results' keys begin with `target`."""

    bucket: str
    prefix: str
    target: str = "compressed/"


@dataclass(frozen=True)
class Batch:
    """What one child does."""

    bucket: str
    target: str
    items: list[Item]


@dataclass(frozen=True)
class Report:
    """What was done, and what was not, and why (key -> reason)."""

    done: int = 0
    unchanged: int = 0
    saved_bytes: int = 0
    left_out: int = 0
    reasons: dict[str, str] = field(default_factory=dict[str, str])


fan_out = Service("fan_out")


@fan_out.handler
def compress(ctx: Context, wish: Wish) -> Report:
    """Page by page, so that at most a page is under way; the report is also put beside the results."""
    if wish.target.startswith(wish.prefix):
        raise TerminalError(f"target '{wish.target}' is below prefix '{wish.prefix}': results would be worked on, too", code=400)
    report, after, complete = Report(), "", False
    while not complete:
        page = ctx.run(storage.list_page, wish.bucket, wish.prefix, after, PAGE, retry=PATIENT)
        batches = [Batch(wish.bucket, wish.target, page.items[start : start + BATCH]) for start in range(0, len(page.items), BATCH)]
        for part in ctx.gather(*[ctx.start.call(compress_some, batch) for batch in batches]):
            report = added(report, part)
        complete = page.complete
        after = page.items[-1].key if page.items else after
    # The key is the same in every attempt: a repetition writes the same object.
    ctx.run(storage.write_report, wish.bucket, f"reports/{ctx.request.invocation_id}.json", asdict(report), retry=PATIENT)
    return report


@fan_out.handler(private=True)
def compress_some(ctx: Context, batch: Batch) -> Report:
    """One step for each object."""
    work = partial(storage.compress, batch.bucket, batch.target)
    outcomes = ctx.map(work, batch.items, concurrency=CONCURRENCY, name="compress", retry=PATIENT, serde=Outcome)
    report = Report()
    for item, outcome in zip(batch.items, outcomes, strict=True):
        report = added(report, of_one(item, outcome))
    return report


def of_one(item: Item, outcome: Outcome) -> Report:
    match outcome.how:
        case "done":
            return Report(done=1, saved_bytes=outcome.saved)
        case "unchanged":
            return Report(unchanged=1)
        case _:
            return Report(left_out=1, reasons={item.key: f"{outcome.how}: {outcome.reason}"})


def added(one: Report, other: Report) -> Report:
    reasons = dict([*one.reasons.items(), *other.reasons.items()][:NAMED_FAILURES])
    return Report(
        one.done + other.done,
        one.unchanged + other.unchanged,
        one.saved_bytes + other.saved_bytes,
        one.left_out + other.left_out,
        reasons,
    )


handler = lambda_handler(fan_out)
