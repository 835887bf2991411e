"""The coordinator's image, built from the Dockerfile and run as the template runs it: nobody's root, nothing writable, ended by SIGTERM.

Its base is a Debian made on this machine where no registry of images is reached, so of the real one remain untried: its Python (3.12
there, Debian's 3.11 here), its certificates, and that it exists for ARM.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.infra.conftest import ROOT
from tests.infra.long import wanted
from tests.support.dynamodb import ENVIRONMENT, dynoxide, new_table_name
from tests.support.ports import free_port

pytestmark = wanted
BASE, UV, IMAGE = "holdfast-base:local", "holdfast-uv:local", "holdfast:test"
BOUND_S: Final = 60.0


def docker(*arguments: str, bound_s: float = BOUND_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True, cwd=ROOT, timeout=bound_s)


@pytest.fixture(scope="module")
def image() -> str:
    if shutil.which("docker") is None or docker("info").returncode:
        pytest.skip("no Docker engine answers; start one (dockerd)")
    for needed in (BASE, UV):
        if docker("image", "inspect", needed).returncode:
            pytest.skip(f"no image {needed}; bash scripts/base_image.sh makes it")
    given = ("--build-arg", f"BASE={BASE}", "--build-arg", f"UV={UV}")
    done = docker("build", "--network", "host", *given, "-t", IMAGE, ".", bound_s=900)
    assert done.returncode == 0, done.stderr[-3_000:] + done.stdout[-3_000:]
    return IMAGE


class Container:
    """As the task definition has it: read-only, without capabilities. On this machine's network, where the emulator is."""

    def __init__(self, image: str, store: str, variables: dict[str, str]) -> None:
        self.ingress, self.admin = free_port(), free_port()
        settings = {
            **variables,
            "HOLDFAST_STORE": store,
            "HOLDFAST_INGRESS": f"127.0.0.1:{self.ingress}",
            "HOLDFAST_ADMIN": f"127.0.0.1:{self.admin}",
        }
        given = [word for name, value in settings.items() for word in ("-e", f"{name}={value}")]
        limits = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--init")
        done = docker("run", "-d", "--network", "host", *limits, *given, image)
        assert done.returncode == 0, done.stderr
        self.name = done.stdout.strip()

    def logs(self) -> list[dict[str, Any]]:
        done = docker("logs", self.name)
        return [json.loads(line) for line in (done.stdout + done.stderr).splitlines() if line.startswith("{")]

    def until(self, event: str) -> None:
        deadline = time.monotonic() + BOUND_S
        while event not in {line.get("event") for line in self.logs()}:
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def status_of(self, url: str) -> int:
        with urllib.request.urlopen(url, timeout=BOUND_S) as answer:
            return int(answer.status)

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        return docker("exec", self.name, *command)


@pytest.fixture(scope="module")
def running(image: str) -> Iterator[Container]:
    with dynoxide() as url:
        variables = {**ENVIRONMENT, "AWS_ENDPOINT_URL_DYNAMODB": url}
        given = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
        store = f"dynamodb://{new_table_name()}"
        made = docker("run", "--rm", "--network", "host", "--read-only", *given, image, "store", "init", store, "--shards", "4")
        assert made.returncode == 0, made.stderr
        container = Container(image, store, variables)
        try:
            container.until("ready")
            yield container
        finally:
            docker("rm", "-f", container.name)


def test_it_serves_as_nobody_in_particular_and_writes_nowhere(running: Container) -> None:
    assert running.status_of(f"http://127.0.0.1:{running.ingress}/restate/health") == 200
    assert running.status_of(f"http://127.0.0.1:{running.admin}/metrics") == 200
    assert running.inside("id", "-u").stdout.strip() == "10001"
    assert running.inside("touch", "/app/x").returncode != 0
    check = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{running.ingress}/restate/health', timeout=8)"
    assert running.inside("python", "-c", check).returncode == 0  # the health check of the task definition


def test_sigterm_hands_over_and_ends_with_0(running: Container) -> None:
    docker("stop", "-t", "60", running.name, bound_s=90)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", running.name).stdout.strip() == "0"
    assert running.logs()[-1]["event"] == "stopped"
