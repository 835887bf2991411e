"""What is wrong with the store shows where the user looks: at the start as one sentence, later in the log and in the answers."""

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.test_wrong_input import says
from tests.app.toolbox import Server, cli, project

ANY = ["--ingress", ":0", "--admin", ":0"]


def test_locked_by_another_process(shop: Server) -> None:
    for command in (["serve"], ["dev", "--no-reload"], ["dev"], ["dev", "--fresh"]):
        says(
            cli(*command, "--store", str(shop.store), *ANY, cwd=shop.folder), 1, str(shop.store), f"pid {shop.process.pid}", "another path"
        )


def test_not_ours(tmp_path: Path) -> None:
    text, foreign = tmp_path / "text", tmp_path / "foreign.sqlite"
    text.write_text("This is a text file, and not a short one: SQLite looks at the first hundred bytes of what it opens. " * 5)
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE things (id)")
    says(cli("serve", "--store", str(text), *ANY), 1, "not an SQLite database")
    says(cli("serve", "--store", str(foreign), *ANY), 1, "another program")
    says(cli("serve", "--store", str(tmp_path), *ANY), 1, "is a directory")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_read_only(small_disk: Path) -> None:
    store = small_disk / "store.sqlite"
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    says(cli("serve", "--store", str(store), *ANY), 1, str(small_disk), "Read-only file system", "choose another path")


def test_a_full_disk_at_the_start(small_disk: Path) -> None:
    fill(small_disk)
    says(cli("serve", "--store", str(small_disk / "store.sqlite"), *ANY), 1, "No space left on device", "free some space")


def test_a_disk_that_fills_up_and_is_cleared(small_disk: Path, tmp_path: Path) -> None:
    project(tmp_path)
    server = Server(tmp_path, ["dev", "shop", "--no-reload"])
    server.store = small_disk / "store.sqlite"
    with server:
        assert server.post("/greeter/greet", "Ada") == "hi Ada"
        filler = fill(small_disk)
        waiting = subprocess.Popen(
            ["curl", "-s", "-m", "60", f"http://{server.ingress}/carts/tea/add", "--json", '{"name": "x", "count": 2}'],
            stdout=subprocess.PIPE,
        )
        server.wait_for(lambda: "the disk is full" in server.output())
        filler.unlink()
        answer, _ = waiting.communicate(timeout=60)
        assert json.loads(answer) == 2  # the write was tried again until there was room


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(os.urandom(4096))
        except OSError:
            pass
    return filler
