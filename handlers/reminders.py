"""A reminder sent two hours later: a delayed one-way call, which can be called off until then.

These handlers are plain functions, as most Lambda code is: the same operations as in async handlers, without `await`.
Nothing runs during the two hours; the delayed invocation is kept by the coordinator and started when its time comes.

Try: `POST /reminders/schedule {"to": "+41 79 000 00 00", "text": "Bring the cake"}`, and with the id it answers
`POST /reminders/call_off "inv_1..."`.
"""

from dataclasses import dataclass
from datetime import timedelta

from handlers.ledger import record
from holdfast import RetryPolicy, Service
from holdfast.aws import lambda_handler
from holdfast.sync import Context

LATER = timedelta(hours=2)
# An SMS gateway has bad minutes; an old reminder is worth nothing.
BRIEFLY = RetryPolicy(initial_interval=timedelta(seconds=1), max_duration=timedelta(minutes=10))


@dataclass(frozen=True)
class Reminder:
    """Whom to remind of what."""

    to: str
    text: str


reminders = Service("reminders")


@reminders.handler
def schedule(ctx: Context, reminder: Reminder) -> str:
    """Starts `deliver` in two hours; the id of that invocation is the handle to call it off."""
    return ctx.send(deliver, reminder, delay=LATER).invocation_id


@reminders.handler
def call_off(ctx: Context, id: str) -> None:
    """Cancels a reminder that was not delivered yet."""
    ctx.invocation(id).cancel()


@reminders.handler(private=True)
def deliver(ctx: Context, reminder: Reminder) -> None:
    """When the time has come."""
    ctx.run(send_sms, reminder, retry=BRIEFLY)


# ---- Gateway: the only place with side effects


def send_sms(reminder: Reminder) -> None:
    record("sms.sent", to=reminder.to, text=reminder.text)


handler = lambda_handler(reminders)
