"""For the tests that take minutes or an engine: they run when HOLDFAST_INFRASTRUCTURE=long, as scripts/check_infrastructure.sh sets it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.infra.conftest import ROOT, tool

wanted: Final = pytest.mark.skipif(
    os.environ.get("HOLDFAST_INFRASTRUCTURE") != "long",
    reason="takes minutes; sh scripts/check_infrastructure.sh runs it",
)
IMAGE: Final = f"lambda-python{sys.version_info.major}{sys.version_info.minor}:local"
SAM_VARIABLES: Final = {
    "SAM_CLI_TELEMETRY": "0",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9",  # refused at once: SAM asks for the account before all else, and would wait for seconds
}
HERE: Final = "Architecture=x86_64"


def sam(*arguments: str | Path, more: dict[str, str] | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command: Sequence[str | Path] = [tool("sam", "sam"), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=os.environ | SAM_VARIABLES | (more or {}))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sam build` for this machine's processor and interpreter."""
    folder = tmp_path_factory.mktemp("build")
    platform = {"LAMBDA_PLATFORM": "manylinux2014_x86_64", "LAMBDA_PYTHON": f"{sys.version_info.major}.{sys.version_info.minor}"}
    done = sam("build", "--build-dir", folder, "--parameter-overrides", HERE, more=platform)
    assert done.returncode == 0, done.stderr
    return folder


def docker() -> None:
    """Skips where no engine runs, or it has no image to run functions in."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], check=False, capture_output=True).returncode:
        pytest.skip("no Docker engine answers; start one (dockerd) for `sam local`")
    if subprocess.run(["docker", "image", "inspect", IMAGE], check=False, capture_output=True).returncode:
        pytest.skip(f"no image {IMAGE}; bash scripts/lambda_image.sh makes it")
