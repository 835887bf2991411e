"""A sign-up workflow: create the account, mail a link, and wait a day for the click without holding any compute.

The workflow runs once per key (the user's name). The link calls `confirm` of the same key, which completes the durable
promise that the main handler waits for; `status` may be asked at any time, also after the end.

Try: `POST /signup/ann/run {"email": "ann@example.com"}`, then `POST /signup/ann/confirm "the token from the mail"`.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from handlers.ledger import record
from holdfast import SharedWorkflowContext, TerminalError, Workflow, WorkflowContext
from holdfast.aws import lambda_handler

CONFIRM_WITHIN = timedelta(hours=24)
Status = Literal["waiting", "active", "expired"]


@dataclass(frozen=True)
class User:
    """Who signs up."""

    email: str


signup = Workflow("signup", journal_retention=timedelta(days=7))


@signup.main(workflow_retention=timedelta(days=30))
async def run(ctx: WorkflowContext, user: User) -> Status:
    """From the form to an active account, or to nothing after a day."""
    token = str(ctx.uuid4())
    ctx.set("token", token)
    set_status(ctx, "waiting")
    await ctx.run(create_account, ctx.key, user.email)
    await ctx.run(send_confirmation, user.email, token)
    try:
        async with ctx.timeout(CONFIRM_WITHIN):
            await ctx.promise("confirmed")
    except TimeoutError:
        await ctx.run(delete_account, ctx.key)
        set_status(ctx, "expired")
        return "expired"
    await ctx.run(send_welcome, user.email)
    set_status(ctx, "active")
    return "active"


@signup.handler
async def confirm(ctx: SharedWorkflowContext, token: str) -> Status:
    """The click on the link. A second click changes nothing."""
    if token != await ctx.get("token", str):
        raise TerminalError("this link is not valid", code=403)
    promise = ctx.promise("confirmed", bool)
    if not await promise.peek():
        await promise.resolve(True)
    return "active"


@signup.handler
async def status(ctx: SharedWorkflowContext) -> str:
    """Where the sign-up stands."""
    return await ctx.get("status", str, default="unknown")


def set_status(ctx: WorkflowContext, status: Status) -> None:
    """What `status` answers from now on."""
    ctx.set("status", status)


# ---- Gateways: the only places with side effects


def create_account(name: str, email: str) -> None:
    record("account.created", name=name, email=email)


def delete_account(name: str) -> None:
    record("account.deleted", name=name)


def send_confirmation(email: str, token: str) -> None:
    record("mail.confirmation", email=email, token=token)


def send_welcome(email: str) -> None:
    record("mail.welcome", email=email)


handler = lambda_handler(signup)
