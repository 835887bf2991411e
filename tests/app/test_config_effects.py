"""Settings do what they say: a whole server each, configured as a person would, asked over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from holdfast import Context, ObjectContext, RetryPolicy, Service, VirtualObject, asgi
from holdfast.endpoint import Endpoint
from holdfast_runtime.app.config.kinds import Address, Choice, Duration, File, Real, Size, Text, Url, Whole
from holdfast_runtime.app.config.resolving import Resolved, resolve
from holdfast_runtime.app.config.settings import SETTINGS, Setting
from holdfast_runtime.app.config.wiring import coordinator_settings, runtime_config
from holdfast_runtime.app.runtime import Runtime, RuntimeConfig
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.surfaces.server import Listener, serve
from tests.adapters.raw_server import Peer, raw_server
from tests.surfaces.http import Answer, Http


class Running:
    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.ingress = Http(runtime.ingress_url)
        self.admin = Http(runtime.admin_url)

    async def call(self, path: str, body: Any = None) -> Answer:
        return await self.ingress.post(path, body)

    async def register(self, uri: str) -> Answer:
        return await self.admin.post("/deployments", {"uri": uri, "use_http_11": True})


@asynccontextmanager
async def running(folder: Path, *services: Any, **settings: str) -> AsyncIterator[Running]:
    """settings: name with `_` -> text. Free ports, a file of its own."""
    options = {name.replace("_", "-"): text for name, text in settings.items()}
    options = {"ingress": ":0", "admin": ":0", "store": str(folder / "store.sqlite"), **options}
    runtime = Runtime(runtime_config(resolve(options=options, environment={}, folder=folder)))
    await runtime.start({"here": Endpoint(services).handle} if services else {})
    try:
        yield Running(runtime)
    finally:
        await runtime.stop()


def defaults(folder: Path) -> Any:
    return resolve(environment={}, folder=folder)


def test_defaults_are_those_of_the_parts(tmp_path: Path) -> None:
    ours = runtime_config(defaults(tmp_path))
    assert ours == RuntimeConfig(ours.store)
    assert coordinator_settings(defaults(tmp_path)) == Settings(exclusive_store=True)


def other(setting: Setting) -> Any:
    """Another value than the default."""
    match setting.kind:
        case Whole(low, high) | Size(low, high) | Duration(low, high) | Real(low, high):
            return low if setting.default != low else high
        case Choice(names):
            return next(name for name in names if name != setting.default)
        case Address():
            return ("0.0.0.0", 1)
        case Url():
            return "http://elsewhere"
        case File():
            return Path("another")
        case Text():
            return "another"
    raise AssertionError(setting)


# What `serve`, `dev` and the commands themselves look at.
ELSEWHERE = {"log-format", "log-level", "admin-url", "ingress-url", "token", "colour"}


@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if setting.name not in ELSEWHERE], ids=lambda setting: setting.name)
def test_every_setting_reaches_exactly_one_part(tmp_path: Path, setting: Setting) -> None:
    found = defaults(tmp_path)
    changed = replace(found, resolved={**found.resolved, setting.name: Resolved(setting, other(setting), "test")})
    before, after = runtime_config(found), runtime_config(changed)
    differing = [field.name for field in fields(before) if getattr(before, field.name) != getattr(after, field.name)]
    assert len(differing) == 1, differing


async def test_surfaces(tmp_path: Path) -> None:
    service, arrived, go_on = Service("svc"), asyncio.Event(), asyncio.Event()

    @service.handler
    async def wait(ctx: Context, text: str) -> int:
        arrived.set()
        await go_on.wait()
        return len(text)

    limits = {"ingress_request_size_limit": "1 KiB", "ingress_concurrent_requests_limit": "1"}
    names = {"ingress_advertised_address": "https://calls.example/", "cluster_name": "blue", "shards": "3"}
    async with running(tmp_path, service, **limits, **names) as server:
        assert (await server.admin.get("/version")).json()["ingress_endpoint"] == "https://calls.example/"
        assert (await server.admin.get("/cluster-health")).json()["cluster_name"] == "blue"
        assert server.runtime.node.store.shards == 3
        assert (await server.call("/svc/wait", "x" * 2000)).status == 413
        first = asyncio.create_task(server.call("/svc/wait", "abc"))
        await asyncio.wait_for(arrived.wait(), 30)
        assert (await server.call("/svc/wait", "more")).status == 429
        go_on.set()
        assert (await first).body == b"3"


@pytest.mark.parametrize(("grace", "status"), [("0s", 503), ("1h", 200)])
async def test_shutdown_grace(tmp_path: Path, grace: str, status: int) -> None:
    service, arrived, go_on = Service("svc"), asyncio.Event(), asyncio.Event()

    @service.handler
    async def wait(ctx: Context) -> str:
        arrived.set()
        await go_on.wait()
        return "done"

    async with running(tmp_path, service, shutdown_grace=grace) as server:
        caller = asyncio.create_task(server.ingress.request("POST", "/svc/wait"))
        await asyncio.wait_for(arrived.wait(), 30)
        stopping = asyncio.create_task(server.runtime.stop())
        if status == 503:
            assert (await asyncio.wait_for(caller, 30)).status == 503
            go_on.set()
        else:
            await _refused(server)
            go_on.set()
            assert (await asyncio.wait_for(caller, 30)).body == b'"done"'
        await asyncio.wait_for(stopping, 60)


async def _refused(server: Running) -> None:
    """Until the ingress has stopped listening."""
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", int(server.runtime.ingress_url.rstrip("/").rpartition(":")[2]))
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.01)


async def test_attempts_at_the_same_time(tmp_path: Path) -> None:
    service, running_now, two, go_on = Service("svc"), 0, asyncio.Event(), asyncio.Event()

    @service.handler
    async def work(ctx: Context) -> None:
        nonlocal running_now
        running_now += 1
        if running_now >= 2:
            two.set()
        await go_on.wait()

    async with running(tmp_path, service, concurrent_invocations_limit="2") as server:
        callers = [asyncio.create_task(server.ingress.request("POST", "/svc/work")) for _ in range(8)]
        await asyncio.wait_for(two.wait(), 30)
        async with asyncio.timeout(30):  # all are accepted
            while len((await server.admin.get("/holdfast/invocations")).json()["invocations"]) < 8:  # noqa: ASYNC110 - it shows in answers alone
                await asyncio.sleep(0.01)
        assert running_now == 2
        go_on.set()
        assert {answer.status for answer in await asyncio.gather(*callers)} == {200}
    assert running_now == 8


async def test_what_handlers_may_send(tmp_path: Path) -> None:
    service = Service("svc")

    @service.handler
    async def big(ctx: Context) -> str:
        return "x" * 2000

    async def manifest(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + bytes(5000))

    once = {"default_retry_policy_max_attempts": "1", "default_retry_policy_on_max_attempts": "kill"}
    async with running(tmp_path, service, message_size_limit="1 KiB", response_size_limit="4 KiB", **once) as server:
        answer = await server.ingress.request("POST", "/svc/big")
        assert answer.status == 413
        assert "message-size-limit" in answer.json()["message"]
        async with raw_server(manifest) as endpoint:
            assert "the response is larger than 4096 bytes" in (await server.register(endpoint.uri)).json()["message"]


async def test_connections_to_handlers(tmp_path: Path) -> None:
    lost = asyncio.Event()

    async def keep(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        await peer.gone()
        lost.set()

    async def never(peer: Peer) -> None:
        await peer.gone()  # no answer to the TLS greeting

    async def silent(peer: Peer) -> None:
        while True:
            await peer.request()

    brief = {"connect_timeout": "20ms", "connection_idle_timeout": "20ms", "cluster_name": "blue"}
    async with running(tmp_path, **brief) as server:
        async with raw_server(keep) as endpoint:
            assert (await server.register(endpoint.uri)).status == 500
            head, _ = endpoint.requests[0]
            assert b"x-restate-cluster-name: blue\r\n" in head
            await asyncio.wait_for(lost.wait(), 30)
        async with raw_server(never) as endpoint:
            refused = await server.register(endpoint.uri.replace("http:", "https:"))
            assert "no connection in time" in refused.json()["message"]
    async with running(tmp_path, discovery_timeout="150ms") as server, raw_server(silent) as endpoint:
        assert "within 0.15 s" in (await server.register(endpoint.uri)).json()["message"]


async def test_requests_are_signed(tmp_path: Path) -> None:
    key = tmp_path / "identity.pem"
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    identity = {"request_identity_private_key_pem_file": str(key), "request_identity_expiration": "5m"}
    async with running(tmp_path, **identity) as server, raw_server(script) as endpoint:
        await server.register(endpoint.uri)
        assert server.runtime.public_key is not None
        sent = dict(line.split(": ", 1) for line in endpoint.requests[0][0].decode().split("\r\n")[1:] if line)
    claims = json.loads(base64.urlsafe_b64decode(sent["x-restate-jwt-v1"].split(".")[1] + "=="))
    assert claims["exp"] - claims["iat"] == 300


@pytest.mark.parametrize(("limit", "command"), [("256 KiB", "eager"), ("0", "lazy")])
async def test_state_sent_along_with_attempts(tmp_path: Path, limit: str, command: str) -> None:
    thing = VirtualObject("thing")

    @thing.handler
    async def put(ctx: ObjectContext, text: str) -> None:
        ctx.set("text", text)

    @thing.handler
    async def read(ctx: ObjectContext) -> str:
        return await ctx.get("text", str, default="")

    async with running(tmp_path, thing, eager_state_size_limit=limit) as server:
        assert (await server.call("/thing/k/put", "abc")).status == 200
        answer = await server.ingress.request("POST", "/thing/k/read")
        assert answer.body == b'"abc"'
        found = (await server.admin.get(f"/holdfast/invocations/{answer.headers['x-restate-id']}")).json()
        assert command in json.dumps(found).lower()


async def test_what_services_get_and_may_ask_for(tmp_path: Path) -> None:
    plain, greedy = Service("plain"), Service("greedy", journal_retention=timedelta(days=30), retry=RetryPolicy(max_attempts=50))
    for service in (plain, greedy):

        @service.handler
        async def handle(ctx: Context) -> None: ...

    given = {
        "default_abort_timeout": "3m",
        "default_journal_retention": "2h",
        "default_idempotency_retention": "3h",
        "max_journal_retention": "7d",
        "max_idempotency_retention": "1h",
        "default_retry_policy_initial_interval": "10ms",
        "default_retry_policy_exponentiation_factor": "3",
        "default_retry_policy_max_interval": "1s",
        "default_retry_policy_max_attempts": "unlimited",
        "default_retry_policy_on_max_attempts": "kill",
        "max_retry_policy_max_attempts": "9",
    }
    async with running(tmp_path, plain, greedy, **given) as server:
        found = (await server.admin.get("/services/plain")).json()
        assert (found["abort_timeout"], found["journal_retention"], found["idempotency_retention"]) == ("3m", "2h", "1h")
        policy = found["retry_policy"]
        assert (policy["initial_interval"], policy["exponentiation_factor"], policy["max_interval"]) == ("10ms", 3.0, "1s")
        assert (policy["max_attempts"], policy["on_max_attempts"].lower()) == (None, "kill")
        asked = (await server.admin.get("/services/greedy")).json()
        assert (asked["journal_retention"], asked["retry_policy"]["max_attempts"]) == ("7d", 9)


async def test_headers_that_tell_deployments_apart(tmp_path: Path) -> None:
    thing = Service("thing")

    @thing.handler
    async def handle(ctx: Context) -> None: ...

    endpoint = await serve(asgi.app(thing), Listener(port=0, grace_s=1))
    try:
        async with running(tmp_path, deployment_routing_headers="X-Version, x-team") as server:
            ids = []
            for headers in ({"x-version": "1"}, {"x-version": "2"}, {"x-version": "2", "other": "3"}):
                answer = await server.admin.post("/deployments", {"uri": endpoint.url, "additional_headers": headers})
                ids.append(answer.json()["id"])
            assert ids[0] != ids[1] == ids[2]
    finally:
        await endpoint.close()


async def test_sql(tmp_path: Path) -> None:
    wide = {"query": "SELECT value FROM generate_series(1, 400000) ORDER BY value DESC LIMIT 300000"}
    json_answer = {"accept": "application/json"}
    async with running(tmp_path, query_memory_limit="1 MiB", query_timeout="1m") as server:
        answer = await server.admin.post("/query", wide, json_answer)
        assert answer.status == 500
        assert "Resources exhausted" in answer.body.decode()
    async with running(tmp_path, query_memory_limit="256 MiB", query_timeout="1m") as server:
        assert (await server.admin.post("/query", wide, json_answer)).status == 200
    async with running(tmp_path, query_timeout="100ms") as server:
        endless = await server.admin.post("/query", {"query": "SELECT count(*) FROM generate_series(1, 1000000000000)"}, json_answer)
        assert "took longer than 0.1 s" in endless.body.decode()
