"""The audit of dependencies, against a service that answers as OSV does."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
LOCK = """
[[package]]
name = "ours"
version = "1"
source = { editable = "." }

[[package]]
name = "good"
version = "2.0"
source = { registry = "https://index/simple" }

[[package]]
name = "bad"
version = "1.0"
source = { registry = "https://index/simple" }
"""
RECORD = {"id": "GHSA-1", "aliases": ["CVE-2026-1"], "summary": "reads everything"}


def load() -> Any:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts/audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


audit = load()


class Osv(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._answer({"results": [{"vulns": [{"id": "GHSA-1"}]} if q["package"]["name"] == "bad" else {} for q in asked["queries"]]})

    def do_GET(self) -> None:
        self._answer(RECORD)

    def _answer(self, document: Any) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def osv(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("OSV_URL", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()
        thread.join()


def run(folder: Path, ignored: str = "") -> int:
    (folder / "uv.lock").write_text(LOCK)
    (folder / "ignored.toml").write_text(ignored)
    code: int = audit.main(folder / "uv.lock", folder / "ignored.toml")
    return code


def answer(name: str, until: dt.date) -> str:
    return f'[[ignored]]\nid = "{name}"\nreason = "not imported"\nuntil = {until}\n'


def test_a_known_vulnerability_fails_and_says_which(osv: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 1
    assert "bad 1.0: CVE-2026-1, GHSA-1: reads everything" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["GHSA-1", "CVE-2026-1"])
def test_an_answer_with_a_reason_and_a_date_is_taken_until_then(osv: None, tmp_path: Path, name: str) -> None:
    assert run(tmp_path, answer(name, dt.date(9999, 1, 1))) == 0
    assert run(tmp_path, answer(name, dt.date(2020, 1, 1))) == 1
    assert run(tmp_path, f'[[ignored]]\nid = "{name}"\nuntil = 9999-01-01\n') == 1


def test_where_nobody_answers_it_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OSV_URL", "http://127.0.0.1:9")
    assert run(tmp_path) == 0
    assert "NOT audited" in capsys.readouterr().err


def test_our_own_lock_can_be_read() -> None:
    packages = audit.locked((ROOT / "uv.lock").read_text())
    assert ("holdfast", "0.1.0") not in packages
    assert len(packages) > 50
    assert audit.answered((ROOT / "scripts/audit-ignored.toml").read_text(), dt.date(2026, 11, 22))[1] == []
