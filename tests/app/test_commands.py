"""What each command does and prints, against a server with handlers."""

import json

import pytest
from typer.testing import CliRunner

from holdfast_runtime.app.cli import app
from tests.app.toolbox import Server, cli, in_terminal

UNKNOWN = "inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5"


def test_help_names_every_command_and_what_it_is_for() -> None:
    done = cli("--help")
    assert done.code == 0
    for command in ("dev", "serve", "demo", "call", "invocations", "state", "services", "deployments", "sql", "whoami", "version"):
        assert command in done.out


@pytest.mark.parametrize(
    "command",
    [
        ["dev"],
        ["serve"],
        ["call"],
        ["demo"],
        ["version"],
        ["deployments", "register"],
        ["deployments", "list"],
        ["deployments", "describe"],
        ["deployments", "update"],
        ["deployments", "remove"],
        ["services", "list"],
        ["services", "describe"],
        ["services", "status"],
        ["services", "config", "show"],
        ["services", "config", "set"],
        ["sql"],
        ["whoami"],
        *(["state", verb] for verb in ("list", "get", "set", "edit", "clear")),
        *(["invocations", verb] for verb in ("list", "describe", "watch", "export")),
        *(["invocations", verb] for verb in ("cancel", "kill", "purge", "purge-journal", "pause", "resume", "restart")),
    ],
)
def test_every_command_explains_itself(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"], prog_name="holdfast")
    assert done.exit_code == 0
    assert f"Usage: holdfast {' '.join(command)}" in done.output


def test_version_as_text_and_as_json() -> None:
    assert cli("version").out.startswith("holdfast 0.1.0 (Python 3.")
    assert cli("version", "--json").json()["holdfast"] == "0.1.0"


def test_dev_says_how_to_call_each_handler(shop: Server) -> None:
    text = shop.output()
    assert f"curl http://{shop.ingress}/greeter/greet --json '\"text\"'" in text
    assert f"curl -X POST http://{shop.ingress}/greeter/flaky" in text
    assert f'curl http://{shop.ingress}/carts/my-key/add --json \'{{"name": "text", "count": 1}}\'' in text


def test_call_prints_the_result_as_it_came(shop: Server) -> None:
    done = shop.cli("call", "greeter/greet", '"Ada"')
    assert (done.code, done.out, done.err) == (0, '"hi Ada"\n', "")


def test_call_reads_the_body_from_standard_input(shop: Server) -> None:
    assert shop.cli("call", "greeter/greet", "-", stdin='"Grace"').out == '"hi Grace"\n'


def test_call_of_an_object_whose_key_has_slashes(shop: Server) -> None:
    done = shop.cli("call", "carts/a/b c/add", '{"name": "tea", "count": 2}', "--json").json()
    assert done["result"] == 2
    assert shop.cli("state", "get", "carts", "a/b c", "--json").json()["state"]["count"]["text"] == "2"


def test_call_with_an_idempotency_key_runs_once(shop: Server) -> None:
    first = shop.cli("call", "carts/once/add", '{"name": "x", "count": 5}', "--idempotency-key", "k", "--json").json()
    second = shop.cli("call", "carts/once/add", '{"name": "x", "count": 5}', "--idempotency-key", "k", "--json").json()
    assert first == second
    assert second["result"] == 5


def test_send_prints_the_id_alone_in_a_pipe(shop: Server) -> None:
    invocation_id = shop.cli("call", "greeter/greet", '"later"', "--delay", "1h").out.strip()
    assert shop.row(invocation_id)["status"] == "scheduled"
    assert shop.cli("invocations", "cancel", invocation_id).code == 0


def test_a_failed_invocation_is_one_sentence_with_its_code(shop: Server) -> None:
    done = shop.cli("call", "greeter/refuse", '"no tea"')
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("error: the invocation failed with [418] no tea (inv_")
    assert done.err.count("\n") == 1


def test_services_and_deployments_are_listed(shop: Server) -> None:
    services = {item["name"]: item for item in shop.cli("services", "list", "--json").json()}
    assert set(services) == {"greeter", "carts"}
    text = shop.cli("services", "list").out
    assert "VirtualObject" in text
    assert "nap" in text
    deployments = shop.cli("deployments", "list", "--json").json()
    assert deployments[0]["uri"] == "in-process://dev/"
    assert "carts (1)" in shop.cli("deployments", "list").out


def test_invocations_are_filtered_and_their_ids_are_whole_in_a_pipe(shop: Server) -> None:
    invocation_id = shop.cli("call", "greeter/nap", "3600000", "--send").out.strip()
    listed = shop.cli("invocations", "list", "--service", "greeter", "--handler", "nap", "--status", "suspended")
    assert invocation_id in listed.out
    rows = shop.cli("invocations", "list", "--service", "carts", "--key", "nobody", "--json").json()
    assert rows == []
    assert shop.cli("invocations", "list", "--key", "nobody").out.strip() == "No invocations match."
    assert len(shop.cli("invocations", "list", "--limit", "1", "--json").json()) == 1
    assert shop.cli("invocations", "kill", invocation_id).code == 0


def test_describe_tells_the_journal_as_a_timeline(shop: Server) -> None:
    invocation_id = shop.cli("call", "greeter/nap", "3600000", "--send").out.strip()
    shop.wait_for(lambda: shop.row(invocation_id)["status"] == "suspended")
    text = shop.cli("invocations", "describe", invocation_id).out
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "target greeter/nap" in lines
    assert any(line.startswith("status suspended for ") for line in lines)
    assert any(line.startswith("waits for sleep until ") for line in lines)
    assert "0 input 3600000" in lines
    assert f'1 ✓ run note "before {invocation_id}"' in lines
    assert any(line.startswith("3 … sleep until") and "waiting, due in " in line for line in lines)
    assert shop.cli("invocations", "kill", invocation_id).code == 0


def test_describe_shows_attempts_and_the_last_failure(shop: Server) -> None:
    invocation_id = shop.cli("call", "greeter/flaky", "--send").out.strip()
    shop.wait_for(lambda: (shop.row(invocation_id).get("retry_count") or 0) >= 2)
    text = shop.cli("invocations", "describe", invocation_id).out
    assert "failed tries" in text
    assert "[500] ValueError: not [yet]" in text  # brackets are no markup
    assert "backing-off" in text
    assert shop.cli("invocations", "kill", invocation_id).code == 0


def test_cancel_pause_resume_kill_purge(shop: Server) -> None:
    first, second = (shop.cli("call", "greeter/nap", "3600000", "--send").out.strip() for _ in range(2))
    for invocation_id in (first, second):
        shop.wait_for(lambda wanted=invocation_id: shop.row(wanted)["status"] == "suspended")  # type: ignore[misc]
    assert shop.cli("invocations", "pause", first).code == 0
    assert shop.row(first)["status"] == "paused"
    assert shop.cli("invocations", "resume", first).code == 0
    shop.wait_for(lambda: shop.row(first)["status"] == "suspended")
    assert shop.cli("invocations", "cancel", first).code == 0
    shop.wait_for(lambda: shop.row(first)["status"] == "completed")
    assert shop.row(first)["completion_failure"].startswith("[409]")
    assert shop.cli("invocations", "kill", second).code == 0
    assert "failed" in shop.cli("invocations", "describe", second).out
    assert shop.cli("invocations", "purge", first, second).code == 0
    assert shop.cli("invocations", "describe", first).err == f"error: The requested invocation '{first}' does not exist\n"


def test_one_refusal_among_several_ids_fails_the_command_but_not_the_others(shop: Server) -> None:
    invocation_id = shop.cli("call", "greeter/nap", "3600000", "--send").out.strip()
    done = shop.cli("invocations", "kill", UNKNOWN, invocation_id)
    assert done.code == 1
    assert "does not exist" in done.err
    assert f"Killed {invocation_id}" in done.out


def test_state_of_a_key(shop: Server) -> None:
    shop.post("/carts/tea/add", {"name": "[bold]oolong", "count": 3})
    text = shop.cli("state", "get", "carts", "tea").out
    assert '"[bold]oolong"' in text
    assert shop.cli("state", "get", "carts", "none").out.strip() == "carts/none has no state."


def test_a_terminal_gets_colours_and_a_pipe_does_not(shop: Server) -> None:
    shop.cli("call", "greeter/refuse", '"x"')
    coloured = in_terminal("invocations", "list", "--failed", **shop.urls)
    assert coloured.code == 0
    assert "\x1b[31mfailed" in coloured.out
    assert "\x1b[1minvocation" in coloured.out
    assert "\x1b" not in shop.cli("invocations", "list", "--failed").out
    assert "\x1b[3" not in in_terminal("invocations", "list", "--failed", NO_COLOR="1", **shop.urls).out


def test_a_narrow_terminal_keeps_ids_whole(shop: Server) -> None:
    listed = shop.cli("invocations", "list", "--all", "--limit", "1", "--json").json()
    assert listed[0]["id"] in in_terminal("invocations", "list", "--all", "--limit", "1", columns=60, **shop.urls).out


def test_errors_are_red_in_a_terminal(shop: Server) -> None:
    done = in_terminal("invocations", "describe", UNKNOWN, **shop.urls)
    assert done.code == 1
    assert "\x1b[1;31merror:\x1b[0m" in done.out


def test_json_in_a_pipe_is_one_line(shop: Server) -> None:
    text = shop.cli("services", "list", "--json").out
    assert text.count("\n") == 1
    assert json.loads(text)
