"""Asking a person: a mail with a link, a reminder, somebody else, and an end after seven days. Nothing runs in between.

Rules: who has the link may answer, so it must not be guessed. The link carries the id of an awakeable, which derives from the id of the
invocation, which derives from the idempotency key: callers make that key a random UUID. The first answer counts.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from holdfast import Awakeable, CancelledError, Context, Service
from holdfast.aws import lambda_handler

from approval import gateways

REMIND_AFTER = timedelta(days=2)
ESCALATE_AFTER = timedelta(days=4)
EXPIRES_AFTER = timedelta(days=7)


@dataclass(frozen=True)
class Request:
    """What is asked, of whom; the manager is asked when the approver does not answer."""

    what: str
    requester: str
    approver: str
    manager: str


@dataclass(frozen=True)
class Answer:
    """What the link brings."""

    approved: bool
    by: str
    comment: str = ""


@dataclass(frozen=True)
class Decision:
    """How it ended. `by` is empty when nobody answered."""

    outcome: Literal["approved", "rejected", "expired"]
    by: str = ""
    comment: str = ""


# The decision can be looked up for a month: the page behind the link shows it to those who come late.
approvals = Service("approvals", idempotency_retention=timedelta(days=30), journal_retention=timedelta(days=30))


@approvals.handler
async def ask(ctx: Context, request: Request) -> Decision:
    """From the first mail to the decision. Cancelling it withdraws the request."""
    answer = ctx.awakeable(Answer)
    try:
        async with ctx.timeout(EXPIRES_AFTER):
            given = await asked(ctx, request, answer)
        decision = Decision("approved" if given.approved else "rejected", given.by, given.comment)
    except TimeoutError:
        decision = Decision("expired")
    except CancelledError:
        await ctx.run(gateways.send_mail, request.approver, f"No answer is needed any more: {request.what}")
        raise
    await ctx.run(gateways.send_mail, request.requester, f"{decision.outcome}: {request.what}")
    return decision


async def asked(ctx: Context, request: Request, answer: Awakeable[Answer]) -> Answer:
    """Asks one after the other until somebody answers."""
    id, link = ctx.request.invocation_id, answer.id
    await ctx.run(gateways.send_request, request.approver, f"Please decide: {request.what}", id, link)
    if not await answered_within(ctx, answer, REMIND_AFTER):
        await ctx.run(gateways.send_request, request.approver, f"Still waiting for you: {request.what}", id, link, name="remind")
        if not await answered_within(ctx, answer, ESCALATE_AFTER - REMIND_AFTER):
            text = f"{request.approver} did not decide: {request.what}"
            await ctx.run(gateways.send_request, request.manager, text, id, link, name="escalate")
    return await answer


async def answered_within(ctx: Context, answer: Awakeable[Answer], time: timedelta) -> bool:
    """Waits for the answer, but no longer than this."""
    first = await ctx.select(answer=answer, late=ctx.sleep(time))
    return first.name == "answer"


handler = lambda_handler(approvals)
