"""The site is built without a warning, asks nothing of other hosts, and tells programs what it tells people."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from holdfast_runtime.engine.lifecycle import LIFECYCLE
from holdfast_runtime.engine.model import Status
from tests.docs.blocks import ROOT

SHOWN = {
    None: "[*]",
    Status.SCHEDULED: "scheduled",
    Status.QUEUED: "pending",
    Status.RUNNING: "running",
    Status.SUSPENDED: "suspended",
    Status.PAUSED: "paused",
    Status.DONE: "completed",
}
LINK = re.compile(r"^- \[(?P<title>[^\]]+)\]\((?P<page>[^)]+)\): (?P<about>.+)$", re.MULTILINE)


def test_the_site(tmp_path: Path) -> None:
    """In one test, because building takes longer than all of its parts."""
    site = built(tmp_path)
    no_page_loads_anything_from_another_host(site)
    every_page_is_in_llms_txt(site)
    the_reference_in_llms_txt_has_signatures(site)


def built(folder: Path) -> Path:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"mkdocs build --strict:\n{done.stdout}{done.stderr}"
    return folder


class Loaded(HTMLParser):
    """What a browser fetches for a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in ("canonical", "prev", "next"):
            return
        self.addresses += [
            value for name in ("src", "href") if (value := given.get(name)) and tag in ("script", "link", "img", "iframe", "source")
        ]


def no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    fetched = {page: [address for address in Loaded(page.read_text()).addresses if re.match(r"(https?:)?//", address)] for page in pages}
    assert {page: addresses for page, addresses in fetched.items() if addresses} == {}
    drawn = [page for page in pages if 'class="mermaid"' in page.read_text()]
    assert drawn
    assert all("vendor/mermaid.tiny.js" in page.read_text() for page in drawn)  # else the theme would fetch it


def every_page_is_in_llms_txt(site: Path) -> None:
    text = (site / "llms.txt").read_text()
    listed = {found["page"]: found for found in LINK.finditer(text)}
    assert text.startswith("# Holdfast\n\n> ")
    assert text.count("\n- ") == len(listed)
    whole = (site / "llms-full.txt").read_text()
    for page in site.rglob("index.html"):
        folder = page.parent.relative_to(site).as_posix()
        spellings = ["index.md"] if folder == "." else [f"{folder}.md", f"{folder}/index.md", f"{folder}/README.md"]
        name = next(name for name in spellings if (site / name).is_file())
        assert name in listed, f"{name} is not in llms.txt"
        assert f"<!-- {name} -->" in whole
        assert (site / name).read_text().strip() in whole
    assert {name for name in listed if not (site / name).is_file()} == set()


def the_reference_in_llms_txt_has_signatures(site: Path) -> None:
    whole = (site / "llms-full.txt").read_text()
    assert "\n::: " not in whole
    assert "`lambda_handler(" in whole
    assert "holdfast invocations cancel" in whole
    assert "### PATCH /deployments/{deployment_id}" in whole


def test_the_drawing_of_the_lifecycle_is_the_table() -> None:
    drawn = set(re.findall(r"^    (\S+) --> (\S+): (.+)$", (ROOT / "docs/concepts/lifecycle.md").read_text(), re.MULTILINE))
    changes: dict[tuple[str, str], list[str]] = {}
    for (before, change), after in LIFECYCLE.items():
        changes.setdefault((SHOWN[before], SHOWN[after]), []).append(change.value)
    assert drawn == {(*pair, ", or ".join(values)) for pair, values in changes.items()}
