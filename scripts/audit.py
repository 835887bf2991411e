"""Known vulnerabilities of what uv.lock names, asked of OSV (https://osv.dev) in one request: `python scripts/audit.py`.

Ends with 1 when there is one that scripts/audit-ignored.toml does not answer, or when an answer there has expired. Where OSV cannot be
reached, in networks that mirror a package index and nothing else, it says so loudly and ends with 0: nobody's work stops for that.
OSV_URL names another address. Needs nothing but Python 3.11.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
OSV: Final = "https://api.osv.dev"
TIMEOUT_S: Final = 10.0
MOST: Final = 1_000  # packages of a request, as OSV allows


class Unreachable(Exception):
    """No answer that could be read."""


def locked(lock: str) -> list[tuple[str, str]]:
    """(name, version) of all packages but our own."""
    packages = tomllib.loads(lock)["package"]
    return [(one["name"], one["version"]) for one in packages if "registry" in one["source"]]


def ask(url: str, document: Any = None) -> Any:
    body = json.dumps(document).encode() if document is not None else None
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.load(answer)
    except (OSError, ValueError) as problem:  # the first includes refusals and timeouts
        raise Unreachable(f"{url}: {problem}") from problem


def found(packages: list[tuple[str, str]], base: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(name, version, record of the vulnerability). Raises Unreachable."""
    assert len(packages) <= MOST, "ask in several requests"
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in packages]
    results = ask(f"{base}/v1/querybatch", {"queries": queries}).get("results", [])
    if len(results) != len(packages):
        raise Unreachable(f"{base}: {len(packages)} packages were asked for, {len(results)} answered")
    hits = [
        (name, version, hit["id"]) for (name, version), result in zip(packages, results, strict=True) for hit in result.get("vulns", ())
    ]
    return [(name, version, ask(f"{base}/v1/vulns/{hit}")) for name, version, hit in hits]


def answered(ignored: str, today: dt.date) -> tuple[set[str], list[str]]:
    """Ids that have an answer, and what is wrong with the answers."""
    ids: set[str] = set()
    problems = []
    for one in tomllib.loads(ignored).get("ignored", ()):
        missing = {"id", "reason", "until"} - one.keys()
        if missing:
            problems.append(f"an entry of audit-ignored.toml has no {', '.join(sorted(missing))}: {one}")
        elif one["until"] < today:
            problems.append(
                f"the answer to {one['id']} was good until {one['until']}: update the package, or look again and give a new date"
            )
        else:
            ids.add(one["id"])
    return ids, problems


def main(lock: Path = ROOT / "uv.lock", ignored: Path = ROOT / "scripts/audit-ignored.toml") -> int:
    packages = locked(lock.read_text())
    ids, problems = answered(ignored.read_text(), dt.datetime.now(dt.UTC).date())
    try:
        hits = found(packages, os.environ.get("OSV_URL", OSV))
    except Unreachable as problem:
        print(f"WARNING: dependencies were NOT audited, OSV cannot be reached ({problem})", file=sys.stderr)
        hits = []
    else:
        print(f"audited {len(packages)} packages of uv.lock: {len(hits)} known vulnerabilities, {len(ids)} answers")
    for name, version, record in hits:
        names = {record["id"], *record.get("aliases", ())}
        if not names & ids:
            text = record.get("summary") or str(record.get("details", ""))[:200]
            problems.append(f"{name} {version}: {', '.join(sorted(names))}: {text}")
    for line in problems:
        print(f"error: {line}", file=sys.stderr)
    if hits and problems:
        print(
            "update with `uv lock --upgrade-package NAME`, or answer in scripts/audit-ignored.toml why it does not matter", file=sys.stderr
        )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
