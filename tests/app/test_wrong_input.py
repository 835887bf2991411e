"""Errors: one sentence that says what was expected, found, and what to do; exit code 2 for misuse, 1 for refusals."""

import socket
from pathlib import Path

import pytest

from tests.app.toolbox import Done, Server, cli, project

UNKNOWN = "inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5"


def says(done: Done, code: int, *words: str) -> None:
    assert done.code == code, done
    assert done.err.startswith("error: "), done
    assert done.err.count("\n") == 1, done
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


@pytest.mark.parametrize(
    "command",
    [
        ["services", "list"],
        ["services", "status"],
        ["invocations", "list"],
        ["invocations", "watch"],
        ["invocations", "cancel", "orders", "--yes"],
        ["state", "get", "a", "b"],
        ["state", "edit", "a", "b"],
        ["deployments", "list"],
        ["deployments", "register", "http://localhost:9080"],
        ["sql", "SELECT 1"],
    ],
)
def test_no_server_there(command: list[str]) -> None:
    says(
        cli(*command, "--admin-url", "http://127.0.0.1:1"),
        1,
        "http://127.0.0.1:1 cannot be reached",
        "refused",
        "holdfast dev",
        "--admin-url",
    )


def test_no_ingress_there() -> None:
    says(cli("call", "a/b", "--ingress-url", "http://127.0.0.1:1"), 1, "the ingress at http://127.0.0.1:1", "HOLDFAST_INGRESS_URL")


def test_the_admin_url_is_none() -> None:
    says(cli("services", "list", "--admin-url", "localhost"), 2, "expects a URL such as http://127.0.0.1:9070", "'localhost'")


def test_something_else_answers(shop: Server) -> None:
    says(cli("services", "list", "--admin-url", f"http://{shop.ingress}"), 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["call", "greeter"], ["SERVICE/HANDLER", "'greeter'"]),
        (["call", "greeter/greet", "Ada"], ["not JSON", "Ada", "quote"]),
        (["call", "greeter/greet", "@nowhere.json"], ["nowhere.json", "No such file"]),
        (["call", "greeter/greet", "--header", "x"], ["NAME=VALUE", "'x'"]),
        (["invocations", "describe", "order-7"], ["invocation id", "'order-7'"]),
        (["invocations", "kill", "inv_1"], ["invocation id", "'inv_1'"]),
        (["invocations", "watch", "order-7"], ["invocation id", "'order-7'"]),
        (["invocations", "export", "inv_1"], ["invocation id", "'inv_1'"]),
        (["invocations", "list", "--status", "runing"], ["no status 'runing'", "did you mean 'running'?"]),
        (["invocations", "list", "--status", "x"], ["no status 'x'", "expected one of scheduled, pending"]),
        (["invocations", "list", "--older-than", "soon"], ["--older-than expects an age such as 30s", "'soon'"]),
        (["invocations", "list", "--newer-than", "1month"], ["--newer-than expects an age"]),
        (["invocations", "list", "--deployment", "prod"], ["id of a deployment", "'prod'", "deployments list"]),
        (["invocations", "cancel", "/x"], ["SERVICE/HANDLER", "'/x'"]),
        (["invocations", "resume", UNKNOWN, "--deployment", "newest"], ["latest or keep", "'newest'"]),
        (["invocations", "restart"], ["say what to restart", "--all"]),
        (["state", "set", "carts", "k", "count", "@nowhere.json"], ["nowhere.json", "No such file"]),
        (["state", "set", "carts", "k", "count", "two"], ["not JSON", "two", "--raw"]),
        (["services", "config", "set", "carts", "--abort-timeout", "soon"], ["--abort-timeout expects a duration", "'soon'"]),
        (["services", "config", "set", "carts"], ["say what to set"]),
        (["sql", "@nowhere.sql"], ["nowhere.sql", "No such file"]),
        (["sql", " "], ["expected a statement"]),
        (["sql", "SELECT 1", "--csv", "--json"], ["one of --csv and --json"]),
        (["deployments", "register", "http://localhost:9080", "--assume-role-arn", "arn:x"], ["--assume-role-arn is for functions"]),
        (["deployments", "register", "arn:aws:lambda:x:1:function:f:1", "--use-http1.1"], ["--use-http1.1 is for endpoints"]),
        (["deployments", "register", "http://localhost:9080", "--metadata", "commit"], ["--metadata expects NAME=VALUE", "'commit'"]),
        (["deployments", "register", "localhost:9080"], ["http:// or https://", "'localhost:9080'"]),
        (["serve", "--ingress", "8080x"], ["--ingress expects HOST:PORT", "'8080x'"]),
        (["dev", "not a module"], ["MODULE", "'not a module'"]),
    ],
)
def test_misuse(arguments: list[str], words: list[str]) -> None:
    says(cli(*arguments), 2, *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["invocatoins"], "Did you mean 'invocations'?"),
        (["invocations", "lits"], "Did you mean 'list'?"),
        (["services", "config", "sett"], "Did you mean 'set'?"),
        (["invocations", "list", "--servce", "x"], "--service"),
    ],
)
def test_an_unknown_command_or_option_is_answered_with_the_nearest(arguments: list[str], words: str) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert words in done.err


def test_unknown_names_are_answered_with_the_nearest(shop: Server) -> None:
    says(shop.cli("call", "greter/greet", "1"), 1, "did you mean 'greeter'?")
    says(shop.cli("call", "greeter/gret", "1"), 1, "did you mean 'greet'?")
    says(shop.cli("services", "describe", "cart"), 1, "did you mean 'carts'?")
    says(shop.cli("services", "status", "x"), 1, "no service 'x'", "there are carts, greeter")
    says(shop.cli("sql", "SELECT stat FROM sys_invocation"), 1, "no column 'stat'", "did you mean 'status'?")
    says(shop.cli("sql", "SELECT * FROM invocations"), 1, "no table 'invocations'")
    says(shop.cli("sql", "DELETE FROM state"), 1)
    says(shop.cli("deployments", "describe", "dp_x"), 1, "no deployment 'dp_x'")


def test_unknown_things(shop: Server) -> None:
    says(shop.cli("call", "nobody/greet", "1"), 1, "not accepted", "nobody")
    says(shop.cli("call", "greeter/nothing", "1"), 1, "nothing")
    says(shop.cli("state", "get", "nobody", "k"), 1, "no service 'nobody'")
    says(shop.cli("deployments", "remove", "dp_unknown", "--yes"), 1, "dp_unknown")
    says(shop.cli("deployments", "register", "arn:aws:lambda:us-east-1:1:function:f"), 1, "version or alias")
    says(shop.cli("deployments", "register", "http://127.0.0.1:1"), 1, "META0003", "127.0.0.1:1")


def test_removing_a_deployment_wants_a_yes(shop: Server) -> None:
    deployment_id = shop.cli("deployments", "list", "--json").json()[0]["id"]
    says(shop.cli("deployments", "remove", deployment_id), 2, "--yes")
    assert len(shop.cli("deployments", "list", "--json").json()) == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def", ["broken.py line 1 (`def`)", "SyntaxError"]),
        ("import os\nx = os.nothing", ["broken.py line 2 (`x = os.nothing`)", "AttributeError"]),
        ("import missing_package", ["broken.py line 1", "No module named 'missing_package'"]),
        ("x = 1", ["defines no service", "Service("]),
        ("raise SystemExit(3)", ["ended the process", "__main__"]),
        ("from holdfast import Service\na = Service('x')", ["cannot be served", "service 'x' has no handlers"]),
    ],
)
def test_a_module_that_cannot_be_served(tmp_path: Path, code: str, words: list[str]) -> None:
    (tmp_path / "broken.py").write_text(code)
    says(cli("dev", "broken", "--ingress", ":0", "--admin", ":0", cwd=tmp_path), 1, *words)


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    says(cli("dev", "nowhere.at.all", "--ingress", ":0", "--admin", ":0", cwd=tmp_path), 1, "'nowhere.at.all' is not found", str(tmp_path))
    says(cli("dev", "nowhere.py", cwd=tmp_path), 1, "nowhere.py does not exist")


def test_an_attribute_that_is_no_service(tmp_path: Path) -> None:
    project(tmp_path)
    says(cli("dev", "shop:nothing", "--ingress", ":0", "--admin", ":0", cwd=tmp_path), 1, "no 'nothing'", "greeter, carts")
    says(cli("dev", "shop.py:note", "--ingress", ":0", "--admin", ":0", cwd=tmp_path), 1, "no service but function")


@pytest.mark.parametrize("command", ["serve", "dev"])
def test_a_port_in_use(tmp_path: Path, command: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        says(
            cli(command, "--ingress", f"127.0.0.1:{port}", "--admin", ":0", cwd=tmp_path), 1, f"127.0.0.1:{port} is in use", "another port"
        )
    assert not (tmp_path / ".holdfast" / "store.sqlite").exists()  # found before anything is made
