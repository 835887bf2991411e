"""Starting, stopping, killing, reloading: what was accepted goes on."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.app.toolbox import Server, free_port, http_endpoint, project


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_hands_over_quickly_while_work_and_a_caller_wait(tmp_path: Path, number: int) -> None:
    project(tmp_path)
    server = Server(tmp_path, ["dev", "shop", "--no-reload"])
    with server:
        caller = subprocess.Popen(
            ["curl", "-s", "-m", "60", f"http://{server.ingress}/greeter/nap", "--json", "600000"], stdout=subprocess.PIPE
        )
        ids = [server.post("/greeter/nap/send", 12_000)["invocationId"] for _ in range(2)]
        server.wait_for(lambda: len(server.suspended()) == 3)
        code, seconds = server.stop(number)
        assert code == 0
        assert seconds < 60  # not the 10 minutes of the caller
        assert b"before" not in caller.communicate(timeout=60)[0]  # let go without a result
        assert "stopped" in server.output()
    with server:
        for invocation_id in ids:
            server.wait_for(lambda wanted=invocation_id: server.row(wanted)["status"] == "completed")  # type: ignore[misc]
    for invocation_id in ids:
        assert server.notes().count(f"before {invocation_id}") == 1
        assert server.notes().count(f"after {invocation_id}") == 1


def test_a_plain_handler_at_work_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    project(tmp_path)
    with Server(tmp_path, ["dev", "shop", "--no-reload"]) as server:
        server.cli("call", "greeter/hang", "600", "--send")
        server.wait_for(lambda: "hanging" in server.notes())
        code, seconds = server.stop()
        assert code == 0
        assert seconds < 60  # not the 10 minutes of the handler


def test_sigkill_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    project(tmp_path)
    server = Server(tmp_path, ["dev", "shop", "--no-reload"])
    with server:
        total = server.post("/carts/tea/add", {"name": "oolong", "count": 3})
        invocation_id = server.post("/greeter/nap/send", 6_000)["invocationId"]
        server.wait_for(lambda: server.row(invocation_id)["status"] == "suspended")
        server.kill()
        assert server.process.returncode == -signal.SIGKILL
    with server:
        assert server.post("/carts/tea/add", {"name": "oolong", "count": 1}) == total + 1
        server.wait_for(lambda: server.row(invocation_id)["status"] == "completed")
    assert server.notes() == [f"before {invocation_id}", f"after {invocation_id}"]


def test_changed_code_is_served_after_a_reload_and_work_goes_on(dev: Server) -> None:
    module = dev.folder / "shop.py"
    with dev:
        assert dev.post("/greeter/greet", "Ada") == "hi Ada"
        invocation_id = dev.post("/greeter/nap/send", 6_000)["invocationId"]
        dev.wait_for(lambda: dev.row(invocation_id)["status"] == "suspended")
        module.write_text(module.read_text().replace('f"hi {name}"', 'f"hello {name}"'))
        dev.wait_for(lambda: "reloaded in" in dev.output())
        assert dev.post("/greeter/greet", "Ada") == "hello Ada"
        dev.wait_for(lambda: dev.row(invocation_id)["status"] == "completed")
        assert dev.notes() == [f"before {invocation_id}", f"after {invocation_id}"]


def test_broken_code_is_reported_and_the_repair_is_served(dev: Server) -> None:
    module = dev.folder / "shop.py"
    code = module.read_text()
    with dev:
        module.write_text(code + "\nthis is no python\n")
        dev.wait_for(lambda: "waiting for the next change" in dev.output())
        assert "shop.py line" in dev.output()
        assert "(`this is no python`): SyntaxError" in dev.output()
        module.write_text(code)
        dev.wait_for(lambda: "reloaded in" in dev.output())
        assert dev.post("/greeter/greet", "Ada") == "hi Ada"  # a caller that comes too early waits


def test_stopping_dev_stops_its_child_too(dev: Server) -> None:
    with dev:
        assert dev.stop()[0] == 0
    with dev:  # the store's lock is free
        assert dev.post("/greeter/greet", "Ada") == "hi Ada"
        dev.kill()  # the parent alone: the child must notice
    with dev:
        assert dev.post("/greeter/greet", "Ada") == "hi Ada"


def test_fresh_forgets(tmp_path: Path) -> None:
    project(tmp_path)
    with Server(tmp_path, ["dev", "shop", "--no-reload"]) as server:
        server.post("/carts/tea/add", {"name": "x", "count": 3})
        server.stop()
    with Server(tmp_path, ["dev", "shop", "--no-reload", "--fresh"]) as server:
        assert server.post("/carts/tea/add", {"name": "x", "count": 1}) == 1


def test_serve_with_an_endpoint_over_http(tmp_path: Path) -> None:
    server = Server(tmp_path, ["serve", "--shards", "2"])
    with http_endpoint(tmp_path, free_port()) as uri, server:
        dry = server.cli("deployments", "register", uri, "--use-http1.1", "--dry-run")
        assert dry.code == 0
        assert "Nothing is changed" in dry.out
        assert server.cli("services", "list").out.strip().startswith("No services yet")
        registered = server.cli("deployments", "register", uri, "--use-http1.1", "--header", "x-team=shop")
        assert "Registered as dp_" in registered.out
        assert "greet" in registered.out
        again = server.cli("deployments", "register", uri, "--use-http1.1")
        assert "registered already" in again.out
        assert server.cli("deployments", "list", "--json").json()[0]["additional_headers"] == {"x-team": "shop"}
        server.kill()
        server.start()
        assert server.post("/greeter/greet", "Ada") == "hi Ada"
        deployment_id = server.cli("deployments", "list", "--json").json()[0]["id"]
        assert server.cli("deployments", "remove", deployment_id, "--yes").code == 0
        assert server.cli("deployments", "list").out.strip().startswith("No deployments yet")


def test_json_logs_are_one_object_per_line(tmp_path: Path) -> None:
    server = Server(tmp_path, ["serve", "--log-format", "json"])
    server.launch()
    server.wait_for(lambda: '"ready"' in server.output())
    assert server.stop()[0] == 0, server.output()
    lines = [json.loads(line) for line in server.output().splitlines()]
    events = [line["event"] for line in lines]
    assert events[-2:] == ["stopping", "stopped"]
    assert "ready" in events
    assert {"at", "level", "logger"} <= set(lines[0])
