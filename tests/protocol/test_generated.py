"""The committed classes are what the generator makes of wire.proto."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    script = ROOT / "scripts" / "generate_protocol.sh"
    subprocess.run([script, tmp_path], check=True, env={**os.environ, "PYTHON": sys.executable})
    for name in ("wire_pb2.py", "wire_pb2.pyi"):
        made = (tmp_path / "holdfast" / "protocol" / name).read_text()
        committed = (ROOT / "sdk" / "holdfast" / "protocol" / name).read_text()
        assert made == committed, f"{name} is stale: run scripts/generate_protocol.sh and commit the result"


def test_generated_code_does_not_demand_its_generators_runtime() -> None:
    committed = (ROOT / "sdk" / "holdfast" / "protocol" / "wire_pb2.py").read_text()
    assert "ValidateProtobufRuntimeVersion" not in committed
