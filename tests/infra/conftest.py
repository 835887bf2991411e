"""The template, expanded once for all tests by the tools that `scripts/install_tools.sh lint` installs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.infra.resolving import Resolver, Stack
from tests.support.dynamodb import dynamodb_url, moto_url  # noqa: F401

ROOT: Final = Path(__file__).resolve().parents[2]
LINT: Final = ROOT / ".venv-lint/bin"
NEEDED: Final = {"ImageUri": "registry.example/holdfast:1", "VpcId": "vpc-1", "SubnetIds": "subnet-1,subnet-2"}
CERTIFICATE: Final = "arn:aws:acm:us-east-1:123456789012:certificate/1"
KEY: Final = "arn:aws:kms:us-east-1:123456789012:key/1"
VARIANTS: Final[dict[str, dict[str, str]]] = {
    "default": {},
    "internal": {"LoadBalancer": "internal", "AssignPublicIp": "DISABLED", "Replicas": "2"},
    "internal with certificate": {"LoadBalancer": "internal", "CertificateArn": CERTIFICATE},
    "internet-facing": {"LoadBalancer": "internet-facing", "CertificateArn": CERTIFICATE, "AllowedCidr": "0.0.0.0/0"},
    "named callers": {"AllowedCidr": "10.1.0.0/16"},
    "own key": {"KmsKeyArn": KEY},
    "no samples": {"SampleHandlers": "false"},
    "other processor": {"Architecture": "x86_64"},
    "api key": {"EdgeAuth": "API_KEY", "EdgeRequestsPerSecond": "7"},
    "everything": {
        "LoadBalancer": "internet-facing",
        "CertificateArn": CERTIFICATE,
        "AllowedCidr": "198.51.100.0/24",
        "KmsKeyArn": KEY,
        "InvokableFunctions": "shop-*",
        "AssumableRole": "arn:aws:iam::210987654321:role/holdfast-*",
        "ExecuteCommand": "true",
        "AlarmEmail": "operator@example.com",
        "EdgeAuth": "API_KEY",
        "Cpu": "1024",
        "Memory": "2048",
    },
}


def tool(name: str, command: str) -> Path:
    """A tool of its own virtual environment, e.g. tool("sam", "sam"); skips where it is not installed."""
    found = ROOT / f".venv-{name}/bin" / command
    if not (ROOT / f".venv-{name}/.installed").exists() or not found.exists():  # the first is written when all is there
        pytest.skip(f"{command} is not installed; sh scripts/install_tools.sh {name}")
    return found


@pytest.fixture(scope="session")
def expansions() -> dict[str, Any]:
    """Variant -> the expanded template."""
    asked = json.dumps({name: {**NEEDED, **given} for name, given in VARIANTS.items()})
    command = [tool("lint", "python"), ROOT / "tests/infra/expand.py", ROOT / "template.yaml"]
    done = subprocess.run(command, check=False, input=asked, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="session")
def expanded(expansions: dict[str, Any]) -> dict[str, Any]:
    """As it stands with the defaults; its conditions are still open."""
    found: dict[str, Any] = expansions["default"]
    return found


@pytest.fixture(scope="session")
def stacks(expansions: dict[str, Any]) -> dict[str, Stack]:
    """Variant -> what is created."""
    return {name: Resolver(template, {**NEEDED, **VARIANTS[name]}).stack() for name, template in expansions.items()}
