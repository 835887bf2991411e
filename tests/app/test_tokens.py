"""Tokens: who may call and who may operate, asked of a whole server, with our commands and with the official ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast import Context, Service
from holdfast.endpoint import Endpoint
from holdfast_runtime.app.config.resolving import resolve
from holdfast_runtime.app.config.wiring import runtime_config
from holdfast_runtime.app.runtime import Runtime, TokensUnusable
from tests.app.toolbox import Done, cli
from tests.surfaces.http import Http

OLD, NEW = "old-token-0123456789", "new-token-0123456789"
service = Service("svc")
SEEN: list[dict[str, str]] = []


@service.handler
async def greet(ctx: Context, name: str) -> str:
    SEEN.append(dict(ctx.request.headers))
    return f"hello {name}"


def config(folder: Path, **settings: str) -> Runtime:
    options = {name.replace("_", "-"): text for name, text in settings.items()}
    options = {"ingress": ":0", "admin": ":0", "store": str(folder / "store.sqlite"), **options}
    return Runtime(runtime_config(resolve(options=options, environment={}, folder=folder)))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Runtime]:
    SEEN.clear()
    file = tmp_path / "tokens"
    file.write_text(f"# the second is to replace the first\n{OLD}\n\n{NEW}\n")
    runtime = config(tmp_path, ingress_token_file=str(file), admin_token_file=str(file))
    await runtime.start({"here": Endpoint([service]).handle})
    yield runtime
    await runtime.stop()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "content-type": "application/json"}


@pytest.mark.parametrize("token", [OLD, NEW])
async def test_a_token_admits_and_is_not_forwarded(server: Runtime, token: str) -> None:
    answer = await Http(server.ingress_url).request("POST", "/svc/greet", bearer(token), b'"you"')
    assert (answer.status, answer.body) == (200, b'"hello you"')
    assert "authorization" not in SEEN[0]
    assert (await Http(server.admin_url).request("GET", "/v4/services", bearer(token))).status == 200


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {OLD}"}, {"authorization": OLD}])
async def test_whoever_has_none_is_refused_before_anything_is_looked_at(server: Runtime, headers: dict[str, str]) -> None:
    answer = await Http(server.ingress_url).request("POST", "/nobody/knows", headers, b"1")
    assert (answer.status, answer.headers["www-authenticate"], answer.json()["source"]) == (401, "Bearer", "ingress")
    for path in ("/services", "/v4/services", "/query", "/nothing", "/openapi"):
        refused = await Http(server.admin_url).request("GET", path, headers)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert "Authorization: Bearer" in refused.json()["message"]


async def test_health_is_open(server: Runtime) -> None:
    assert (await Http(server.ingress_url).get("/restate/health")).status == 200
    for path in ("/health", "/v4/health"):
        assert (await Http(server.admin_url).get(path)).status == 200


@pytest.mark.parametrize("variable", ["HOLDFAST_TOKEN", "RESTATE_AUTH_TOKEN"])
async def test_commands_bring_the_token(server: Runtime, variable: str) -> None:
    where = {"HOLDFAST_ADMIN_URL": server.admin_url, "HOLDFAST_INGRESS_URL": server.ingress_url}

    async def run(*arguments: str, **variables: str) -> Done:
        return await asyncio.to_thread(lambda: cli(*arguments, cwd=None, stdin="", **where, **variables))

    allowed = await run("services", "list", **{variable: NEW})
    assert (allowed.code, "svc" in allowed.out) == (0, True), allowed
    refused = await run("services", "list")
    assert refused.code != 0
    assert "Authorization: Bearer" in refused.err
    assert "set HOLDFAST_TOKEN to one" in refused.err
    called = await run("call", "svc/greet", '"you"', **{variable: NEW})
    assert "hello you" in called.out, called


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "holds none"),
        ("# nothing\n", "holds none"),
        ("fine-0123456789abc\nshort\n", ":2: a token has at least 16"),
        (None, "cannot be read"),
    ],
)
async def test_a_file_that_is_none_is_told_at_the_start(tmp_path: Path, content: str | None, problem: str) -> None:
    file = tmp_path / "tokens"
    if content is not None:
        file.write_text(content)
    with pytest.raises(TokensUnusable, match=problem):
        await config(tmp_path, admin_token_file=str(file)).start()
