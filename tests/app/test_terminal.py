"""Looking at invocations as a person does: in terminals of several widths, live, and with colours."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.protocol import ids, messages
from tests.app.terminal import PATIENCE_S, Terminal, shown
from tests.app.toolbox import HOLDFAST, PROJECT, Server, cli, environment


@pytest.fixture(scope="module")
def tree(desk: Server) -> str:
    """An invocation with a side effect, a call that is over, one that is not, an awakeable and a sleep."""
    return desk.started("errands/tree", "Ada")


@pytest.fixture(scope="module")
def stumbling(desk: Server) -> str:
    """Fails at a side effect, again and again."""
    found = desk.started("errands/stumble", status="backing-off")
    desk.wait_for(lambda: (desk.row(found).get("retry_count") or 0) >= 2)
    return found


def squeezed(text: str) -> list[str]:
    """Lines without their layout."""
    return [" ".join(line.split()) for line in text.splitlines()]


# ---- Lists


def test_a_wide_terminal_has_a_line_for_each(desk: Server, tree: str, stumbling: str) -> None:
    terminal = shown("invocations", "list", columns=160, **desk.urls)
    lines = squeezed(terminal.screen)
    assert lines[0] == "invocation target status age what"
    assert any(
        re.fullmatch(rf"{stumbling} errands/stumble backing-off \w+ failed \d+×, next .*the card gateway answered 503", line)
        for line in lines
    )
    assert any(re.fullmatch(rf"{tree} errands/tree suspended \w+", line) for line in lines)
    assert re.search(r"^\d+ invocations$", terminal.screen, re.MULTILINE)
    assert terminal.styles("backing-off") == {"brown"}  # yellow, as terminals call it
    assert terminal.styles("suspended") == {"blue"}


@pytest.mark.parametrize("columns", [80, 40])
def test_a_narrow_terminal_has_two_or_three_lines_for_each_and_whole_ids(desk: Server, tree: str, stumbling: str, columns: int) -> None:
    terminal = shown("invocations", "list", "--service", "errands", columns=columns, **desk.urls)
    lines = [line.rstrip() for line in terminal.lines]
    assert max(map(len, lines)) <= columns
    assert f"  {tree}" in lines
    at = lines.index(f"  {stumbling}")
    assert re.fullmatch(r"backing-off errands/stumble +\w+", lines[at - 1])
    assert lines[at + 1].startswith("  failed ")


def test_no_colours_where_none_are_wanted(desk: Server, tree: str) -> None:
    terminal = shown("invocations", "list", NO_COLOR="1", **desk.urls)
    assert tree in terminal.screen
    assert not re.search(rb"\x1b\[[\d;]*3\d", terminal.raw)


def test_a_pipe_gets_everything_whole(desk: Server, stumbling: str) -> None:
    text = desk.cli("invocations", "list", "--status", "backing-off").out
    assert "ValueError: the card gateway answered 503" in text
    assert "\x1b" not in text


def test_a_part_of_many_says_how_many_there_are(desk: Server, tree: str, stumbling: str) -> None:
    done = desk.cli("invocations", "list", "--limit", "1")
    assert re.search(r"showing the newest 1 of \d+; --limit shows more", done.err)
    oldest = desk.cli("invocations", "list", "--limit", "1", "--oldest-first", "--json").json()
    newest = desk.cli("invocations", "list", "--limit", "1", "--json").json()
    assert oldest[0]["created_at_ms"] <= newest[0]["created_at_ms"]
    assert oldest != newest


def test_filters(desk: Server, tree: str, stumbling: str) -> None:
    def found(*options: str) -> set[str]:
        return {row["id"] for row in desk.cli("invocations", "list", "--json", *options).json()}

    deployment = desk.row(tree)["pinned_deployment_id"]
    assert found("--service", "errands", "--handler", "tree,stumble") == {tree, stumbling}
    assert found("--service", "errands,greeter", "--handler", "stumble") == {stumbling}
    assert found("--handler", "tree", "--handler", "stumble", "--status", "suspended,paused") == {tree}
    assert {tree, stumbling} <= found("--deployment", deployment)
    assert tree in found("--newer-than", "1h")
    assert found("--older-than", "1h") == set()
    keyed = json.loads(cli("call", "carts/a,b/add", '{"name": "x", "count": 1}', "--idempotency-key", "k-1", "--json", **desk.urls).out)
    assert found("--all", "--key", "a,b") == {keyed["invocation_id"]}
    assert found("--all", "--idempotency-key", "k-1") == {keyed["invocation_id"]}
    assert found("--key", "a,b") == set()  # it is completed
    cli("call", "greeter/refuse", '"no tea"', **desk.urls)
    failed = desk.cli("invocations", "list", "--failed", "--json").json()
    assert {row["completion_result"] for row in failed} == {"failure"}
    assert found("--status", "failed") == {row["id"] for row in failed}


def test_an_empty_list_says_which_name_may_have_been_meant(desk: Server) -> None:
    done = desk.cli("invocations", "list", "--service", "erands")
    assert done.out.strip() == "No invocations match."
    assert "no service is called 'erands' now; did you mean 'errands'?" in done.err


# ---- One


def test_describe_shows_what_it_waits_for_and_its_children(desk: Server, tree: str) -> None:
    terminal = shown("invocations", "describe", tree, columns=140, **desk.urls)
    lines = squeezed(terminal.screen)
    awakeable = ids.awakeable_id(ids.InvocationId.parse(tree), 17)
    assert any(re.fullmatch(rf"waits for any of call greeter/nap, sleep until [\d: -]+, awakeable {awakeable}", line) for line in lines)
    assert '1 ✓ run charge card "charge Ada"' in lines
    assert any(re.fullmatch(r'3 ✓ call greeter/greet "hi Ada" [\w.]+', line) for line in lines)
    assert any(re.fullmatch(r"└ completed inv_\w{34}", line) for line in lines)
    assert any(re.fullmatch(r"└ suspended inv_\w{34}", line) for line in lines)
    assert any("… sleep until" in line and "waiting, due in" in line for line in lines)
    assert terminal.styles("✓") == {"green"}


def test_describe_shows_where_it_fails_and_when_it_tries_again(desk: Server, stumbling: str) -> None:
    text = shown("invocations", "describe", stumbling, columns=140, **desk.urls).screen
    lines = squeezed(text)
    at = next(number for number, line in enumerate(lines) if line.startswith("3 … run charge card"))
    assert re.fullmatch(r"└ failed \d+×(, next (in [\w. ]+|now))?: \[500\] ValueError: the card gateway answered 503", lines[at + 1])
    assert "while run charge card (entry 3)" in lines


def test_describe_in_full_has_the_stack_of_the_last_failure(desk: Server, stumbling: str) -> None:
    assert 'errands.py", line' in desk.cli("invocations", "describe", stumbling, "--full").out
    assert "Traceback" not in desk.cli("invocations", "describe", stumbling).out


def test_describe_in_forty_columns_keeps_ids_in_one_piece(desk: Server, tree: str) -> None:
    terminal = shown("invocations", "describe", tree, columns=40, rows=60, **desk.urls)
    children = [step["child"] for step in desk.cli("invocations", "describe", tree, "--json").json()["timeline"] if "child" in step]
    assert len(children) == 2
    for wanted in (tree, *children, desk.row(tree)["pinned_deployment_id"]):
        assert any(line.strip() == wanted for line in terminal.lines), terminal.text


def test_describe_in_full_has_the_payloads(desk: Server, tree: str) -> None:
    text = desk.cli("invocations", "describe", tree, "--full").out
    assert '→ "Ada"' in text
    assert '← "hi Ada"' in text


def test_describe_as_json_has_the_timeline(desk: Server, tree: str) -> None:
    found = desk.cli("invocations", "describe", tree, "--json").json()
    steps = {step["index"]: step for step in found["timeline"]}
    assert steps[3]["kind"] == "call"
    assert steps[3]["given"] == {"text": '"Ada"'}
    assert steps[3]["content"] == {"text": '"hi Ada"'}
    assert {child["id"] for child in found["children"]} == {step["child"] for step in found["timeline"] if "child" in step}


def test_describe_tells_who_holds_the_key(desk: Server) -> None:
    holder = desk.started("tills/front/hold")
    waiting = desk.started("tills/front/hold", status="pending")
    lines = squeezed(desk.cli("invocations", "describe", waiting).out)
    assert f"waits for its key, tills/front, which {holder} holds" in lines
    status = desk.cli("services", "status", "tills").out
    assert re.search(rf"tills/front +1 +\w+ +{holder}", status)
    desk.tell(holder, "done")
    desk.wait_for(lambda: desk.row(waiting)["status"] == "suspended")
    desk.tell(waiting, "done")


# ---- Watching


def test_watching_one_until_it_succeeds(desk: Server) -> None:
    parked = desk.started("errands/park")
    with Terminal("invocations", "watch", parked, "--interval", "0.2", **desk.urls) as terminal:
        terminal.until("waits for")
        assert "awakeable sign_" in terminal.screen
        desk.tell(parked, "go")
        assert terminal.ended() == 0
        assert 'output  "gone"' in terminal.screen
        assert terminal.styles("completed") == {"green"}


def test_watching_one_until_it_fails(desk: Server) -> None:
    parked = desk.started("errands/park")
    with Terminal("invocations", "watch", parked, "--interval", "0.2", **desk.urls) as terminal:
        terminal.until("waits for")
        desk.tell(parked, "stay")
        assert terminal.ended() == 1
        assert "failed with   [409] told to stay" in terminal.screen


def test_watching_one_in_a_pipe_appends_lines(desk: Server) -> None:
    parked = desk.started("errands/park")
    command = [*HOLDFAST, "invocations", "watch", parked, "--interval", "0.2"]
    with subprocess.Popen(command, env=environment(**desk.urls), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "#0 input" in process.stdout.readline()
        assert "suspended, waits for awakeable" in process.stdout.readline()
        desk.tell(parked, "go")
        rest = process.stdout.read()
        assert process.wait(PATIENCE_S) == 0
    assert "awakeable #17" in rest
    assert rest.rstrip().endswith("completed")
    assert "\x1b" not in rest


def test_watching_many_counts_and_lists_them(desk: Server) -> None:
    first = desk.started("errands/park")
    with Terminal("invocations", "watch", "--handler", "park", "--all", "--interval", "0.2", columns=120, **desk.urls) as terminal:
        terminal.until(first)
        assert re.search(r"\d+ suspended", terminal.screen.splitlines()[0])
        second = desk.started("errands/park")
        terminal.until(second)
        for parked in (first, second):
            desk.tell(parked, "go")
        terminal.until(lambda screen: "suspended" not in "".join(line for line in screen.splitlines() if line.startswith("inv_")))
        terminal.ctrl_c()
        assert terminal.ended() == 130


def test_watching_many_in_a_pipe_appends_what_changes(desk: Server) -> None:
    parked = desk.started("errands/park")
    command = [*HOLDFAST, "invocations", "watch", "--handler", "park", "--interval", "0.2"]
    with subprocess.Popen(command, env=environment(**desk.urls), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        while parked not in line:
            assert line
            line = process.stdout.readline()
        assert "errands/park  suspended" in line
        desk.tell(parked, "go")
        line = process.stdout.readline()
        while parked not in line or "completed" not in line:
            assert line
            line = process.stdout.readline()
        assert "took" in line
        process.terminate()


def test_watching_goes_on_when_the_server_is_started_again(tmp_path: Path) -> None:
    for name in ("shop.py", "errands.py"):
        (tmp_path / name).write_text((PROJECT / name).read_text())
    with Server(tmp_path, ["dev", "shop", "errands", "--no-reload"]) as server:
        parked = server.started("errands/park")
        with Terminal("invocations", "watch", parked, "--interval", "0.2", columns=160, **server.urls) as terminal:
            terminal.until("waits for")
            server.kill()
            terminal.until("trying again")
            server.start()
            server.tell(parked, "go")
            assert terminal.ended() == 0
            assert 'output  "gone"' in terminal.screen


def test_ctrl_c_stops_waiting_for_a_call_and_nothing_else(desk: Server) -> None:
    with Terminal("call", "tills/waiting/hold", **desk.urls) as terminal:
        desk.wait_for(lambda: desk.cli("invocations", "list", "--key", "waiting", "--status", "suspended", "--json").json())
        terminal.ctrl_c()
        assert terminal.ended() == 130
        assert "the invocation goes on" in terminal.screen
    [row] = desk.cli("invocations", "list", "--key", "waiting", "--json").json()
    desk.tell(row["id"], "done")


# ---- Export, SQL, and what else there is to look at


def test_an_exported_journal_has_the_exact_bytes(desk: Server, tree: str, tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    done = desk.cli("invocations", "export", tree, "--output", str(path))
    assert done.code == 0
    found = json.loads(path.read_text())
    assert (found["format"], found["version"], found["complete"]) == ("holdfast.journal", 1, True)
    assert base64.b64decode(found["input"]["body"]) == b'"Ada"'
    raw = {entry["index"]: entry["raw"] for entry in desk.row(tree)["journal"]}
    assert {entry["index"]: entry["raw"] for entry in found["entries"]} == raw
    for entry in found["entries"]:
        messages.parse(entry["type_code"], base64.b64decode(entry["raw"]))
    assert json.loads(desk.cli("invocations", "export", tree).out)["entries"] == found["entries"]


def test_an_exported_journal_can_be_replayed_by_the_test_kit(desk: Server, tree: str, tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    assert desk.cli("invocations", "export", tree, "--output", str(path)).code == 0
    code = (
        "import asyncio, sys, errands, shop\n"
        "from holdfast.testing.replay import replay\n"
        "print(asyncio.run(replay([errands.errands, shop.greeter], sys.argv[1])).entries)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=desk.folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == len(desk.row(tree)["journal"])


def test_sql_as_a_table_records_csv_and_json(desk: Server, tree: str, tmp_path: Path) -> None:
    statement = f"SELECT id, target, journal_size, idempotency_key FROM sys_invocation WHERE id = '{tree}'"
    assert squeezed(shown("sql", statement, **desk.urls).screen)[2].startswith(f"{tree} errands/tree ")
    narrow = squeezed(shown("sql", statement, columns=50, **desk.urls).screen)
    assert narrow[:2] == [tree, "target errands/tree"]
    assert desk.cli("sql", statement, "--csv").out.splitlines()[0] == "id,target,journal_size,idempotency_key"
    file = tmp_path / "question.sql"
    file.write_text(statement)
    rows = desk.cli("sql", f"@{file}", "--json").json()
    assert rows == cli("sql", "-", "--json", stdin=statement, **desk.urls).json()
    assert rows[0]["target"] == "errands/tree"


def test_sql_without_a_statement_lists_tables(desk: Server) -> None:
    text = shown("sql", columns=80, rows=80, **desk.urls).text
    assert "sys_invocation  a row for each invocation" in text
    assert "last_failure_error_code" in text


def test_services_and_deployments_in_forty_columns(desk: Server) -> None:
    for command in (["services", "list"], ["deployments", "list", "--extra"], ["services", "describe", "carts"], ["services", "status"]):
        terminal = shown(*command, columns=40, rows=60, **desk.urls)
        assert max(len(line.rstrip()) for line in terminal.lines) <= 40
    assert "dp_" in terminal.text or "handler" in terminal.text or "errands" in terminal.text


def test_whoami_and_version_name_the_server(desk: Server) -> None:
    found = desk.cli("whoami", "--json").json()
    assert found["admin"]["reachable"] and found["ingress"]["reachable"]
    assert found["ingress"]["services"] == 4
    assert "reachable, version 0.1.0" in desk.cli("whoami").out
    assert f"server 0.1.0 at http://{desk.admin}" in desk.cli("version").out
    away = cli("whoami", HOLDFAST_ADMIN_URL="http://127.0.0.1:1", HOLDFAST_INGRESS_URL=desk.urls["HOLDFAST_INGRESS_URL"])
    assert away.code == 1
    assert "http://127.0.0.1:1 cannot be reached" in away.err
    assert "no server at http://127.0.0.1:1" in cli("version", HOLDFAST_ADMIN_URL="http://127.0.0.1:1").out
