"""Operations on many invocations: what is shown before, asked, done, refused, and left when somebody presses Ctrl-C."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.app.terminal import PATIENCE_S, Terminal, shown
from tests.app.toolbox import Server, cli

UNKNOWN = "inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5"


def parked(desk: Server, number: int) -> list[str]:
    return [desk.started("errands/park") for _ in range(number)]


def statuses(desk: Server, ids: list[str]) -> set[str]:
    return {desk.row(invocation_id)["status"] for invocation_id in ids}


@pytest.fixture
def few(desk: Server) -> Iterator[list[str]]:
    """Three that wait, and nothing else of their handler."""
    found = parked(desk, 3)
    yield found
    cli("invocations", "kill", "errands/park", "--yes", **desk.urls)


def test_a_batch_is_shown_and_done_after_a_yes(desk: Server, few: list[str]) -> None:
    with Terminal("invocations", "kill", "errands/park", **desk.urls) as terminal:
        screen = terminal.until("Kill 3 invocations? [y/N]")
        assert "errands/park   suspended        3" in screen
        for invocation_id in few:
            assert invocation_id in screen
        terminal.press("y\n")
        assert terminal.ended() == 0
        for invocation_id in few:
            assert f"Killed {invocation_id}" in terminal.screen
    assert statuses(desk, few) == {"completed"}


@pytest.mark.parametrize("answer", ["n\n", "\n", "maybe\nno\n", "\x04"])
def test_anything_but_a_yes_changes_nothing(desk: Server, few: list[str], answer: str) -> None:
    with Terminal("invocations", "cancel", "--handler", "park", **desk.urls) as terminal:
        terminal.until("Cancel 3 invocations? [y/N]")
        terminal.press(answer)
        assert terminal.ended() == 1
        assert "Nothing is changed." in terminal.screen
    assert statuses(desk, few) == {"suspended"}


def test_without_a_terminal_a_yes_must_be_said(desk: Server, few: list[str]) -> None:
    done = desk.cli("invocations", "cancel", "errands/park")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: this would cancel 3 invocations; say --yes when that is wanted, or --dry-run to see which\n"
    assert statuses(desk, few) == {"suspended"}


def test_a_dry_run_shows_and_does_nothing(desk: Server, few: list[str]) -> None:
    done = desk.cli("invocations", "pause", "errands", "--dry-run")
    assert done.code == 0
    assert done.out.startswith("This would pause 3 invocations:")
    found = desk.cli("invocations", "pause", "errands", "--dry-run", "--json").json()
    assert [row["id"] for row in found["selected"]] == few
    assert not found["more"]
    part = desk.cli("invocations", "pause", "errands", "--dry-run", "--json", "--limit", "2").json()
    assert ([row["id"] for row in part["selected"]], part["more"]) == (few[:2], True)
    assert statuses(desk, few) == {"suspended"}


def test_ids_that_are_named_are_done_without_asking(desk: Server, few: list[str]) -> None:
    terminal = shown("invocations", "pause", few[0], few[1], **desk.urls)
    assert f"Paused {few[1]}" in terminal.screen
    assert [desk.row(invocation_id)["status"] for invocation_id in few] == ["paused", "paused", "suspended"]
    done = desk.cli("invocations", "resume", "errands/park", "--yes", "--json").json()
    assert {item["id"] for item in done["succeeded"]} == set(few[:2])  # the suspended one is none to resume
    assert (done["failed"], done["not_tried"]) == ([], [])


def test_a_target_may_be_a_key(desk: Server) -> None:
    holder = desk.started("tills/left/hold")
    other = desk.started("tills/right/hold")
    assert "Killed" in desk.cli("invocations", "kill", "tills/left", "--yes").out
    assert desk.row(holder)["status"] == "completed"
    assert desk.row(other)["status"] == "suspended"
    assert desk.cli("invocations", "kill", "tills/right/hold", "--yes").code == 0
    assert "nothing to kill" in desk.cli("invocations", "kill", "tills", "--yes").out


def test_nothing_is_done_when_nothing_is_said(desk: Server) -> None:
    done = desk.cli("invocations", "purge", "--yes")
    assert done.code == 2
    assert "say what to purge" in done.err


def test_what_is_refused_is_told_with_its_reason(desk: Server, few: list[str]) -> None:
    done = desk.cli("invocations", "purge", *few, UNKNOWN, "--json")
    assert done.code == 1
    failed = {item["id"]: item["error"] for item in json.loads(done.out)["failed"]}
    assert failed[few[0]].endswith("is not yet completed.")
    assert failed[UNKNOWN].endswith("does not exist")


def test_restart_and_purge_of_what_is_completed(desk: Server, few: list[str]) -> None:
    for invocation_id in few:
        desk.tell(invocation_id, "go")
    desk.wait_for(lambda: statuses(desk, few) == {"completed"})
    done = desk.cli("invocations", "restart", few[0], "--json").json()
    again = done["succeeded"][0]["new_invocation_id"]
    desk.wait_for(lambda: desk.row(again)["status"] == "suspended")
    assert "as inv_" in desk.cli("invocations", "restart", few[1], "--from", "0").out
    assert "Purged the journal of" in desk.cli("invocations", "purge-journal", few[2]).out
    assert desk.row(few[2])["journal"] == []
    assert "there is nothing to export" in desk.cli("invocations", "export", few[2]).err
    assert "the journal is not kept any more" in desk.cli("invocations", "describe", few[2]).out
    assert desk.cli("invocations", "purge", "--handler", "park", "--yes").code == 0
    assert desk.cli("invocations", "describe", few[0]).code == 1


# ---- Many, and Ctrl-C


class Gate:
    """Stands before the admin API and holds back changes after the first `free`, until it is opened."""

    def __init__(self, admin: str, free: int) -> None:
        self.opened = threading.Event()
        self.waiting = threading.Semaphore(0)
        self._free = threading.Semaphore(free)
        gate = self

        class Passing(BaseHTTPRequestHandler):
            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.command == "PATCH" and not gate._free.acquire(blocking=False):
                    gate.waiting.release()
                    assert gate.opened.wait(PATIENCE_S)
                headers = {name: value for name, value in self.headers.items() if name.lower() in ("content-type", "accept")}
                request = urllib.request.Request(f"http://{admin}{self.path}", body or None, headers, method=self.command)
                try:
                    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE_S) as answer:
                        self._answer(answer.status, answer.read())
                except urllib.error.HTTPError as refused:
                    self._answer(refused.code, refused.read())

            def _answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = _pass

            def log_message(self, *_: Any) -> None:
                """Tests read what the command says."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Passing)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "Gate":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def many(desk: Server) -> list[str]:
    return parked(desk, 40)


def test_progress_and_a_summary_of_many(desk: Server, many: list[str]) -> None:
    with (
        Gate(desk.admin, free=12) as gate,
        Terminal("invocations", "kill", "errands/park", "--yes", HOLDFAST_ADMIN_URL=gate.url) as terminal,
    ):
        terminal.until("12 of 40")
        gate.opened.set()
        assert terminal.ended() == 0
        assert "Killed 40 invocations." in terminal.screen
    assert statuses(desk, many) == {"completed"}


def test_ctrl_c_in_the_middle_says_how_far_it_came(desk: Server, many: list[str]) -> None:
    with (
        Gate(desk.admin, free=12) as gate,
        Terminal("invocations", "kill", "errands/park", "--yes", HOLDFAST_ADMIN_URL=gate.url) as terminal,
    ):
        terminal.until("12 of 40")
        for _ in range(8):  # all that are under way at once
            assert gate.waiting.acquire(timeout=PATIENCE_S)
        terminal.ctrl_c()
        terminal.until("Stopping; what is under way is finished first.")
        gate.opened.set()
        assert terminal.ended() == 130
        assert "Killed 20 of 40 invocations." in terminal.screen
        assert "20 invocations not touched (Ctrl-C); the same command again goes on." in terminal.screen
    assert sum(desk.row(invocation_id)["status"] == "completed" for invocation_id in many) == 20
    assert desk.cli("invocations", "kill", "errands/park", "--yes").out.count("Killed inv_") == 20
    assert statuses(desk, many) == {"completed"}


def test_a_restart_that_is_stopped_starts_nothing_twice_when_it_goes_on(desk: Server, many: list[str]) -> None:
    for invocation_id in many:
        desk.tell(invocation_id, "go")
    desk.wait_for(lambda: statuses(desk, many) == {"completed"})
    command = ("invocations", "restart", "errands/park", "--newer-than", "1h", "--limit", "40", "--yes")
    known = {row["id"] for row in desk.cli("invocations", "list", "--handler", "park", "--all", "--json", "--limit", "1000").json()}
    with Gate(desk.admin, free=12) as gate, Terminal(*command, columns=200, HOLDFAST_ADMIN_URL=gate.url) as terminal:
        terminal.until("12 of 40")
        for _ in range(8):
            assert gate.waiting.acquire(timeout=PATIENCE_S)
        terminal.ctrl_c()
        terminal.until("Stopping")
        gate.opened.set()
        assert terminal.ended() == 130
        file = Path(terminal.screen.split("restart < ")[1].split("`")[0])
    left = file.read_text().split()
    file.unlink()
    assert len(left) == 20
    assert desk.cli("invocations", "restart", *left).out.count(" as inv_") == 20
    listed = desk.cli("invocations", "list", "--handler", "park", "--all", "--json", "--limit", "1000").json()
    assert len({row["id"] for row in listed} - known) == 40
    assert cli("invocations", "kill", "errands/park", "--yes", **desk.urls).code == 0


def test_a_server_that_goes_away_in_the_middle(desk: Server, many: list[str]) -> None:
    with Gate(desk.admin, free=3) as gate:
        gate.opened.set()
        url = gate.url
    done = cli("invocations", "kill", *many, HOLDFAST_ADMIN_URL=url)  # the gate is gone
    assert done.code == 1
    assert "Killed 0 of 40 invocations." in done.out
    assert "cannot be reached" in done.err
    assert "not touched (the server cannot be reached)" in done.err
    assert statuses(desk, many) == {"suspended"}
    assert cli("invocations", "kill", "errands/park", "--yes", **desk.urls).code == 0
