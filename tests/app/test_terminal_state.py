"""State of keys in a terminal: shown, set, cleared, and edited in an editor that a script plays."""

import json
import sys
from pathlib import Path

import pytest

from holdfast_runtime.app import state_text
from tests.app.terminal import Terminal, shown
from tests.app.toolbox import Server, cli


@pytest.fixture
def filled(desk: Server, request: pytest.FixtureRequest) -> str:
    """A key with JSON, text and bytes."""
    key = str(request.node.name).translate({ord("["): None, ord("]"): None})
    desk.post(f"/tills/{key}/fill", None)
    return key


def values(desk: Server, key: str) -> dict[str, str]:
    """By base64: exact bytes."""
    found = desk.cli("state", "get", "tills", key, "--json").json()["state"]
    return {name: value["base64"] for name, value in found.items()}


def editor(folder: Path, code: str) -> str:
    """A command that changes the file whose name it is given: `text` is its content, `number` counts the times it was started."""
    script = folder / "editor.py"
    script.write_text(
        "import pathlib, sys\n"
        "path, times = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).with_suffix('.times')\n"
        "number = len(times.read_text()) + 1 if times.exists() else 1\n"
        "times.write_text('x' * number)\n"
        "text = path.read_text()\n"
        f"{code}\n"
        "path.write_text(text)\n"
    )
    return f"'{sys.executable}' '{script}'"


def test_values_are_shown_as_what_they_are(desk: Server, filled: str) -> None:
    text = shown("state", "get", "tills", filled, **desk.urls).screen
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "count 2" in lines
    assert 'owner {"name":"Ada","tags":["a","b"]}' in lines
    assert "seal base64:AP8B" in lines
    assert "motto no json" in lines
    assert desk.cli("state", "get", "tills", filled, "count").out == "2\n"


def test_an_edit_changes_what_was_changed_and_no_other_byte(desk: Server, filled: str, tmp_path: Path) -> None:
    before = values(desk, filled)
    change = editor(tmp_path, "text = text.replace('\"count\": 2', '\"count\": 3').replace('\"Ada\"', '\"Grace\"')")
    terminal = shown("state", "edit", "tills", filled, EDITOR=change, **desk.urls)
    assert "Done: changed count, changed owner." in terminal.screen
    after = values(desk, filled)
    assert {name for name in before if before[name] != after[name]} == {"count", "owner"}
    assert desk.cli("state", "get", "tills", filled, "owner").out == '{"name":"Grace","tags":["a","b"]}\n'


def test_an_edit_that_changes_nothing_writes_nothing(desk: Server, filled: str, tmp_path: Path) -> None:
    assert "Nothing is changed." in shown("state", "edit", "tills", filled, EDITOR=editor(tmp_path, "pass"), **desk.urls).screen


def test_bytes_and_text_can_be_edited(desk: Server, filled: str, tmp_path: Path) -> None:
    change = editor(tmp_path, "text = text.replace('AP8B', 'AAAA').replace('no json', 'still none')")
    assert "changed motto, changed seal" in shown("state", "edit", "tills", filled, EDITOR=change, **desk.urls).screen
    assert values(desk, filled)["seal"] == "AAAA"
    assert desk.cli("state", "get", "tills", filled, "motto").out == "still none\n"


def test_a_mistake_opens_the_editor_again(desk: Server, filled: str, tmp_path: Path) -> None:
    code = "text = text.replace('\"count\": 2', '\"count\": oops') if number == 1 else text.replace('oops', '7')"
    with Terminal("state", "edit", "tills", filled, EDITOR=editor(tmp_path, code), **desk.urls) as terminal:
        screen = terminal.until("Open the editor again? [Y/n]")
        assert "this is not a state: line 2, column 12" in screen
        terminal.press("\n")
        assert terminal.ended() == 0
        assert "changed count" in terminal.screen
    assert desk.cli("state", "get", "tills", filled, "count").out == "7\n"


def test_a_mistake_that_is_given_up_keeps_the_text(desk: Server, filled: str, tmp_path: Path) -> None:
    with Terminal(
        "state", "edit", "tills", filled, columns=250, EDITOR=editor(tmp_path, "text = 'no'"), TMPDIR=str(tmp_path), **desk.urls
    ) as terminal:
        terminal.until("Open the editor again? [Y/n]")
        terminal.press("n\n")
        assert terminal.ended() == 1
        kept = Path(terminal.screen.split("your text is kept in ")[1].split()[0])
    assert kept.read_text() == "no"
    assert json.loads(desk.cli("state", "get", "tills", filled, "count").out) == 2


def test_what_another_changed_meanwhile_is_not_overwritten(desk: Server, filled: str, tmp_path: Path) -> None:
    """The editor itself is the other one: it sets a value before it ends."""
    command = "[sys.executable, '-m', 'holdfast_runtime.app.cli', 'state', 'set', 'tills', os.environ['KEY'], 'count', '9']"
    code = f"import os, subprocess; subprocess.run({command}, check=True); text = text.replace('\"count\": 2', '\"count\": 3')"
    change = editor(tmp_path, code)
    terminal = shown("state", "edit", "tills", filled, code=1, EDITOR=change, KEY=filled, **desk.urls)
    assert "was changed by another meanwhile" in " ".join(terminal.screen.split())
    assert desk.cli("state", "get", "tills", filled, "count").out == "9\n"
    again = editor(tmp_path, "text = text.replace('\"count\": 9', '\"count\": 3')")
    assert shown("state", "edit", "tills", filled, "--force", EDITOR=again, **desk.urls)
    assert desk.cli("state", "get", "tills", filled, "count").out == "3\n"


def test_an_editor_that_fails_changes_nothing(desk: Server, filled: str, tmp_path: Path) -> None:
    here = {"TMPDIR": str(tmp_path), **desk.urls}
    assert "ended with code 1" in shown("state", "edit", "tills", filled, code=1, EDITOR="false", **here).screen
    assert "cannot be started" in shown("state", "edit", "tills", filled, code=1, EDITOR="no-such-editor-here", **here).screen


def test_a_change_waits_for_the_handler_that_holds_the_key(desk: Server) -> None:
    holder = desk.started("tills/busy/hold")
    done = desk.cli("state", "set", "tills", "busy", "count", "4")
    assert done.code == 0
    assert f"Accepted, added count: {holder} holds the key" in done.out
    desk.tell(holder, "go")
    desk.wait_for(lambda: values(desk, "busy") == {"count": "NA=="})


def test_set_from_a_file_and_standard_input(desk: Server, filled: str, tmp_path: Path) -> None:
    file = tmp_path / "owner.json"
    file.write_text('{"name": "Alan"}')
    assert desk.cli("state", "set", "tills", filled, "owner", f"@{file}").out == "Done: changed owner.\n"
    assert cli("state", "set", "tills", filled, "seal", "-", "--raw", stdin="raw", **desk.urls).out == "Done: changed seal.\n"
    assert desk.cli("state", "get", "tills", filled, "owner").out == '{"name": "Alan"}\n'
    wrong = desk.cli("state", "set", "tills", filled, "owner", "Alan")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "the value is not JSON" in wrong.err


def test_clearing_asks(desk: Server, filled: str) -> None:
    refused = desk.cli("state", "clear", "tills", filled)
    assert refused.code == 2
    assert "--yes" in refused.err
    with Terminal("state", "clear", "tills", filled, "seal", **desk.urls) as terminal:
        terminal.until(f"Remove 1 value of tills/{filled} (seal)? [y/N]")
        terminal.press("y\n")
        assert terminal.ended() == 0
    assert set(values(desk, filled)) == {"count", "motto", "owner"}
    assert filled in desk.cli("state", "list", "tills").out
    assert "removed count, removed motto, removed owner" in desk.cli("state", "clear", "tills", filled, "--yes").out
    assert filled not in desk.cli("state", "list", "tills").out


def test_wrong_names(desk: Server, filled: str) -> None:
    assert "did you mean 'count'?" in desk.cli("state", "get", "tills", filled, "conut").err
    assert "did you mean 'tills'?" in desk.cli("state", "get", "till", filled).err
    assert "Cannot modify state for service type Service" in desk.cli("state", "set", "errands", "k", "a", "1").err


# ---- The text alone


@pytest.mark.parametrize(
    "value",
    [
        b"1",
        b"1.0",
        b"true",
        b'"text"',
        b'{ "a" : 1 }',
        b"[1,2]",
        b"",
        b"no json",
        b"\xff\x00",
        b"NaN",
        b'{"$text": "x"}',
        b'{"$base64": 1}',
        b"1e400",
        b"0.10000000000000000555",
        b'{"a": 1, "a": 2}',
        b'"\\ud800"',
    ],
)
def test_a_value_that_is_left_alone_keeps_its_bytes(value: bytes) -> None:
    assert state_text.from_text(state_text.to_text({"v": value}), {"v": value}) == {"v": value}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "expected an object of names and values, found list"),
        ('{"a": 1, "a": 2}', "'a' stands there twice"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": 1e400}', "1e400 cannot be kept exactly"),
        ('{"a": {"$base64": "!"}}', "'a' is not base64"),
        ('{"a": {"$text": "x", "b": 1}}', "nothing beside it"),
        ('{"a": ', "line 1, column"),
    ],
)
def test_a_text_that_is_no_state(text: str, words: str) -> None:
    with pytest.raises(state_text.NotState, match=words):
        state_text.from_text(text, {})


def test_numbers_that_only_look_alike_are_changes() -> None:
    assert state_text.from_text('{"a": 1.0, "b": true}', {"a": b"1", "b": b"1"}) == {"a": b"1.0", "b": b"true"}
