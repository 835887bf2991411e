"""Errors: one sentence that says what was expected, found, and what to do; exit code 2 for misuse, 1 for refusals."""

import socket
from pathlib import Path

import pytest

from tests.app.toolbox import Done, Server, cli, project


def says(done: Done, code: int, *words: str) -> None:
    assert done.code == code, done
    assert done.err.startswith("error: "), done
    assert done.err.count("\n") == 1, done
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


@pytest.mark.parametrize("command", [["services", "list"], ["invocations", "list"], ["state", "get", "a", "b"], ["deployments", "list"]])
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
        (["deployments", "register", "localhost:9080"], ["http:// or https://", "'localhost:9080'"]),
        (["serve", "--ingress", "8080x"], ["--ingress expects HOST:PORT", "'8080x'"]),
        (["dev", "not a module"], ["MODULE", "'not a module'"]),
    ],
)
def test_misuse(arguments: list[str], words: list[str]) -> None:
    says(cli(*arguments), 2, *words)


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
