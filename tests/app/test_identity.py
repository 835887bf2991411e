"""Request identity as an operator sets it up: the key that is shown is the one that requests are signed with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from holdfast_runtime.adapters.request_identity import load_identity
from holdfast_runtime.adapters.system import SystemClock
from tests.app.toolbox import Server, cli, project

VARIABLES = ["HOLDFAST_REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE", "RESTATE_WORKER__INVOKER__REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE"]


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_ready_line_of_serve_shows_the_key(tmp_path: Path, variable: str) -> None:
    key = tmp_path / "identity.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True)
    public = load_identity(key, SystemClock()).public_key
    with Server(tmp_path, ["serve"], **{variable: str(key)}) as server:
        server.wait_for(lambda: f"identity_key {public}" in server.output())
        assert "request_identity.loaded" in server.output()


def test_dev_shows_the_key(tmp_path: Path) -> None:
    project(tmp_path)
    key = tmp_path / "identity.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True)
    public = load_identity(key, SystemClock()).public_key
    with Server(tmp_path, ["dev", "shop", "--no-reload"], **{VARIABLES[0]: str(key)}) as server:
        server.wait_for(lambda: f"identity {public}" in server.output())
        assert server.post("/greeter/greet", "Ada") == "hi Ada"


@pytest.mark.parametrize("command", [["serve"], ["dev", "shop", "--no-reload"]])
def test_a_file_that_holds_no_key_is_one_sentence(tmp_path: Path, command: list[str]) -> None:
    project(tmp_path)
    key = tmp_path / "identity.pem"
    key.write_text("publickeyv1_E6oLts2W6tS4rsY5c4QaW13kLPu5J5sV4iBXh1qd7zTW\n")
    where = ["--ingress", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    done = cli(*command, *where, cwd=tmp_path, **{VARIABLES[0]: str(key)})
    assert done.code != 0
    assert "expected an Ed25519 private key, PKCS#8 in PEM" in done.err
    assert "openssl genpkey -algorithm ed25519" in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert not (tmp_path / ".holdfast" / "store.sqlite").exists()
