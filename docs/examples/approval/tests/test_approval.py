"""Weeks in milliseconds: the real engine in memory, on virtual time, and the page as a browser uses it."""

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from holdfast import TerminalError
from holdfast.testing.sync import Invocation, TestRuntime

from approval import gateways, web
from approval.services import ESCALATE_AFTER, EXPIRES_AFTER, REMIND_AFTER, Decision, Request, approvals, ask

REQUEST = Request("a <press> for 9,000", "rolf", "eva", "mia")
A_MINUTE = timedelta(minutes=1)


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Whom what was sent to."""
    sent: list[tuple[str, str]] = []

    def send(to: str, text: str) -> None:
        sent.append((to, text))

    monkeypatch.setattr(gateways, "send_mail", send)
    return sent


@pytest.fixture
def runtime() -> Iterator[TestRuntime]:
    with TestRuntime(approvals, always_replay=True) as runtime:
        yield runtime


@pytest.fixture
def asked(runtime: TestRuntime, mails: list[tuple[str, str]]) -> Invocation[Decision]:
    """A request whose first mail is out."""
    invocation = runtime.send(ask, REQUEST, idempotency_key="5e9d2c64-53c3-4f0e-a3a3-0c3f7a4d5c11")
    runtime.settle()
    return invocation


def click(runtime: TestRuntime, mail: tuple[str, str], verdict: str | None = None, comment: str = "") -> str:
    """Follows the link of a mail, and presses a button there; what the page says."""
    found = re.search(r"\?(\S+)", mail[1])
    assert found is not None
    form = "" if verdict is None else f"verdict={verdict}&comment={comment}"
    status, html = web.page(runtime.client(), "POST" if verdict else "GET", found[1], form)
    assert status == 200
    return html


def test_approved(runtime: TestRuntime, asked: Invocation[Decision], mails: list[tuple[str, str]]) -> None:
    assert mails[0][0] == "eva"
    assert "Approve" in click(runtime, mails[0])
    assert asked.status() == "suspended", "opening the link is no answer"
    assert "recorded" in click(runtime, mails[0], "approve", "Fine")
    assert asked.result() == Decision("approved", "eva", "Fine")
    assert mails[1:] == [("rolf", "approved: a <press> for 9,000")]
    assert "approved by eva. Fine" in click(runtime, mails[0])


def test_rejected(runtime: TestRuntime, asked: Invocation[Decision], mails: list[tuple[str, str]]) -> None:
    click(runtime, mails[0], "reject", "%3Cb%3ENo")
    assert asked.result() == Decision("rejected", "eva", "<b>No")
    assert "&lt;b&gt;No" in click(runtime, mails[0])
    assert mails[1:] == [("rolf", "rejected: a <press> for 9,000")]


def test_a_reminder_then_the_manager_who_decides(runtime: TestRuntime, asked: Invocation[Decision], mails: list[tuple[str, str]]) -> None:
    runtime.advance(REMIND_AFTER - A_MINUTE)
    assert len(mails) == 1
    runtime.advance(2 * A_MINUTE)
    assert [to for to, _ in mails] == ["eva", "eva"]
    runtime.advance(ESCALATE_AFTER - REMIND_AFTER)
    assert [to for to, _ in mails] == ["eva", "eva", "mia"]
    click(runtime, mails[2], "approve")
    assert asked.result() == Decision("approved", "mia")


def test_nobody_answers_for_seven_days(runtime: TestRuntime, asked: Invocation[Decision], mails: list[tuple[str, str]]) -> None:
    began = runtime.now()
    assert asked.result() == Decision("expired")
    assert runtime.now() - began == EXPIRES_AFTER
    assert mails[-1] == ("rolf", "expired: a <press> for 9,000")


def test_an_answer_after_the_end_changes_nothing(runtime: TestRuntime, asked: Invocation[Decision], mails: list[tuple[str, str]]) -> None:
    runtime.advance(EXPIRES_AFTER + A_MINUTE)
    assert "This request is expired" in click(runtime, mails[0], "approve")
    # Nor does one that the page let pass, because it was open a moment before.
    runtime.resolve_awakeable(asked.awakeable_id(), {"approved": True, "by": "eva"})
    assert asked.result() == Decision("expired")


def test_the_first_answer_counts(runtime: TestRuntime, asked: Invocation[Decision], mails: list[tuple[str, str]]) -> None:
    runtime.advance(ESCALATE_AFTER + A_MINUTE)
    click(runtime, mails[2], "reject")
    assert "rejected by mia" in click(runtime, mails[0], "approve")
    assert asked.result() == Decision("rejected", "mia")


def test_who_withdraws_the_request_spares_the_approver_an_answer(
    runtime: TestRuntime, asked: Invocation[Decision], mails: list[tuple[str, str]]
) -> None:
    asked.cancel()
    with pytest.raises(TerminalError, match="cancelled"):
        asked.result()
    assert mails[1:] == [("eva", "No answer is needed any more: a <press> for 9,000")]
    assert "withdrawn" in click(runtime, mails[0], "approve")


def test_asking_again_with_the_same_key_asks_nobody_again(
    runtime: TestRuntime, asked: Invocation[Decision], mails: list[tuple[str, str]]
) -> None:
    again = runtime.send(ask, REQUEST, idempotency_key="5e9d2c64-53c3-4f0e-a3a3-0c3f7a4d5c11")
    runtime.settle()
    assert (again.accepted_before, again.invocation_id, len(mails)) == (True, asked.invocation_id, 1)


def test_a_crash_of_the_coordinator_loses_no_day(runtime: TestRuntime, asked: Invocation[Decision], mails: list[tuple[str, str]]) -> None:
    began = runtime.now()
    for _ in range(3):
        runtime.advance(timedelta(days=1))
        runtime.crash_coordinator()
    assert asked.result() == Decision("expired")
    assert runtime.now() - began == EXPIRES_AFTER
    assert [to for to, _ in mails] == ["eva", "eva", "mia", "rolf"]


@pytest.mark.parametrize(
    ("query", "form", "status"), [("", "", 400), ("request=inv_1&link=sign_1&by=eva", "verdict=maybe", 404), ("request=x", "", 400)]
)
def test_a_broken_link(runtime: TestRuntime, query: str, form: str, status: int) -> None:
    assert web.page(runtime.client(), "POST", query, form)[0] == status
