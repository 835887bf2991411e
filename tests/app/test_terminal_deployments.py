"""Registering, updating and removing deployments in a terminal: what changes is shown, what is lost is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.app.terminal import Terminal, shown
from tests.app.toolbox import Server, free_port, http_endpoint

SMALLER = """
from holdfast import Context, Service, VirtualObject, ObjectContext, asgi
greeter = Service("greeter")
bells = VirtualObject("bells")

@greeter.handler
async def greet(ctx: Context, name: int) -> str:
    return f"hi {name}"

@bells.handler
async def ring(ctx: ObjectContext) -> None: ...

app = asgi.app(greeter, bells)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, ["serve"]) as found:
        yield found


@contextmanager
def smaller(folder: Path) -> Iterator[str]:
    """Another revision: a handler that takes something else, handlers and a service less, a service more."""
    import subprocess
    import sys
    import time
    import urllib.request

    from tests.app.toolbox import START_TIMEOUT_S, environment

    (folder / "smaller.py").write_text(SMALLER)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "smaller:app", "--port", str(port), "--log-level", "warning"], cwd=folder, env=environment()
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_what_a_registration_changes_is_shown_and_what_it_loses_asked_for(server: Server, tmp_path: Path) -> None:
    with http_endpoint(tmp_path, free_port()) as first, smaller(tmp_path) as second:
        preview = server.cli("deployments", "register", first, "--use-http1.1", "--dry-run").out
        assert preview.startswith("Nothing is changed; this would be registered:")
        assert "+ greeter (revision 1)" in preview
        assert server.cli("deployments", "list", "--json").json() == []

        done = server.cli("deployments", "register", first, "--use-http1.1", "--metadata", "commit=abc", "--header", "x-team=blue")
        assert (done.code, done.err) == (0, "")
        assert "Registered as dp_" in done.out
        assert "+ carts (revision 1)" in done.out
        known = server.cli("deployments", "register", first, "--use-http1.1")
        assert "registered already" in known.out

        described = server.cli("deployments", "describe", first).out
        assert "x-team" in described and "blue" in described
        assert "commit" in described and "abc" in described
        assert "Nothing in flight is pinned to it." in described

        refused = server.cli("deployments", "register", second, "--use-http1.1")
        assert refused.code == 2
        assert "this registration takes away greeter/nap" in refused.err
        assert len(server.cli("deployments", "list", "--json").json()) == 1
        with Terminal("deployments", "register", second, "--use-http1.1", **server.urls) as terminal:
            screen = terminal.until("Register? [y/N]")
            assert "~ greeter (revision 1 → 2)" in screen
            assert "    - nap" in screen
            assert "    ~ greet takes: JSON string → JSON integer" in screen
            assert "+ bells (revision 1)" in screen
            assert terminal.styles("    - nap".strip()) == {"red"}
            terminal.press("y\n")
            assert terminal.ended() == 0
            assert "Registered as dp_" in terminal.screen
        listed = {item["uri"].rstrip("/"): item["status"] for item in server.cli("deployments", "list", "--extra", "--json").json()}
        assert listed == {first: "active", second: "active"}  # the older one still has carts


def test_updating_and_removing(server: Server, tmp_path: Path) -> None:
    with http_endpoint(tmp_path, free_port()) as first, http_endpoint(tmp_path, free_port()) as elsewhere:
        deployment = server.cli("deployments", "register", first, "--use-http1.1", "--json").json()["id"]
        parked = server.started("greeter/nap", 3_600_000)
        wrong = server.cli("deployments", "update", deployment)
        assert (wrong.code, "say what to change" in wrong.err) == (2, True)
        dry = server.cli("deployments", "update", deployment, "--address", elsewhere, "--use-http1.1", "--dry-run").out
        assert f"~ address: {first}/ → {elsewhere}/" in dry
        assert server.cli("deployments", "describe", deployment, "--json").json()["uri"] == f"{first}/"
        done = server.cli("deployments", "update", deployment, "--address", elsewhere, "--use-http1.1")
        assert (done.code, "Updated" in done.out) == (0, True)
        assert server.cli("deployments", "describe", deployment, "--json").json()["uri"] == f"{elsewhere}/"

        with Terminal("deployments", "remove", deployment, **server.urls) as terminal:
            screen = terminal.until("? [y/N]")
            assert "1 invocation in flight cannot go on without it:" in screen
            assert "greeter/nap  1" in screen
            assert "greeter cannot be called any more" in screen
            terminal.press("n\n")
            assert terminal.ended() == 1
        assert len(server.cli("deployments", "list", "--json").json()) == 1
        assert server.cli("invocations", "kill", parked).code == 0
        assert "Removed" in shown("deployments", "remove", elsewhere, "--yes", **server.urls).screen
        assert server.cli("deployments", "list", "--json").json() == []


def test_what_waits_is_moved_to_another_deployment(server: Server, tmp_path: Path) -> None:
    with http_endpoint(tmp_path, free_port()) as first, http_endpoint(tmp_path, free_port()) as second:
        old = server.cli("deployments", "register", first, "--use-http1.1", "--json").json()["id"]
        waiting = server.started("greeter/nap", 3_600_000)
        new = server.cli("deployments", "register", second, "--use-http1.1", "--json").json()["id"]
        statuses = {item["id"]: item["status"] for item in server.cli("deployments", "list", "--extra", "--json").json()}
        assert statuses == {old: "draining", new: "active"}
        assert {row["id"] for row in server.cli("invocations", "list", "--deployment", old, "--json").json()} == {waiting}
        assert "nothing to resume" in server.cli("invocations", "resume", "greeter/nap", "--yes").out
        done = server.cli("invocations", "resume", "greeter/nap", "--deployment", "latest", "--pinned-to", old, "--yes")
        assert (done.code, done.err) == (0, "")
        assert server.row(waiting)["pinned_deployment_id"] == new
        statuses = {item["id"]: item["status"] for item in server.cli("deployments", "list", "--extra", "--json").json()}
        assert statuses == {old: "drained", new: "active"}


def test_settings_of_a_service(server: Server, tmp_path: Path) -> None:
    with http_endpoint(tmp_path, free_port()) as uri:
        server.cli("deployments", "register", uri, "--use-http1.1")
        done = server.cli("services", "config", "set", "carts", "--private", "--abort-timeout", "20m")
        assert "Changed abort timeout: 10m → 20m" in done.out
        assert "Changed public: yes → no" in done.out
        assert server.cli("services", "config", "show", "carts", "--json").json()["abort_timeout"] == "20m"
        assert "not public" in server.cli("call", "carts/k/add", '{"name": "x", "count": 1}').err
        assert "Nothing is changed" in server.cli("services", "config", "set", "carts", "--private").out
        assert "expects a duration" in server.cli("services", "config", "set", "carts", "--abort-timeout", "soon").err
        assert server.cli("services", "config", "set", "carts").code == 2
        assert "did you mean 'carts'?" in server.cli("services", "config", "set", "cats", "--public").err
        assert "abort timeout" in server.cli("services", "describe", "carts").out
