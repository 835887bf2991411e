"""Opening the embedded store: what is refused, with which words, and what survives."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_runtime.adapters.sqlite import SqliteStore, open_sqlite_store
from holdfast_runtime.adapters.sqlite_file import open_database
from holdfast_runtime.ports.store import LogItem, StoreBroken, StoredPage, StoreUnavailable


def item(position: int, operations: bytes = b"ops") -> LogItem:
    return LogItem(position, 1, b"writer-1", position, 0, 1, operations)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of our own, with the rights of an ordinary user: root may write to read-only files."""
    folder = Path(tempfile.mkdtemp(prefix="store-"))
    root = os.geteuid() == 0
    if root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def set_mode(path: Path, mode: int) -> None:
    path.chmod(mode)


async def refused(path: Path) -> str:
    with pytest.raises(StoreBroken) as caught:
        await open_sqlite_store(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    held = await open_sqlite_store(path, shards=2)
    await held.store.log.put(1, item(1, b"kept"))
    await held.store.pages.put("a", StoredPage(1, b"page"))
    await held.store.leases.acquire(1, seen_epoch=0, owner="me")
    await held.store.registry.store("settings", b"doc", expected_version=0)
    await held.store.blobs.put("blob", b"large")
    await held.close()
    held = await open_sqlite_store(path)
    assert list(await held.store.log.read(1, 1, 9)) == [item(1, b"kept")]
    assert await held.store.pages.get(["a"]) == {"a": StoredPage(1, b"page")}
    assert (await held.store.leases.read())[0][1].owner == "me"
    assert await held.store.registry.load("settings") == (1, b"doc")
    assert await held.store.blobs.get("blob") == b"large"
    await held.close()


async def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    with contextlib.closing(open_database(tmp_path / "store.sqlite", 1)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


async def test_the_number_of_shards_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    held = await open_sqlite_store(path, shards=7)
    await held.close()
    held = await open_sqlite_store(path, shards=2)
    assert held.store.shards == 7
    assert len((await held.store.leases.read())[0]) == 7
    await held.close()


@pytest.mark.parametrize("shards", [0, 257, -1])
async def test_an_impossible_number_of_shards_is_refused(tmp_path: Path, shards: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and 256, not {shards}"):
        await open_sqlite_store(tmp_path / "store.sqlite", shards=shards)


async def test_missing_folders_are_created(tmp_path: Path) -> None:
    held = await open_sqlite_store(tmp_path / "a" / "b" / "store.sqlite")
    await held.close()
    assert (tmp_path / "a" / "b" / "store.sqlite").is_file()


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "is a directory; give the path of a file" in await refused(tmp_path)


async def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreBroken, match=r"the folder .*file cannot be created"):
        await open_sqlite_store(tmp_path / "file" / "store.sqlite")


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"dear diary, " * 100)
    assert "is not an SQLite database" in await refused(path)
    assert path.read_bytes() == b"dear diary, " * 100


async def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    assert "another program" in await refused(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [0, 1, 99])
async def test_another_schema_is_refused(tmp_path: Path, version: int) -> None:
    path = tmp_path / "store.sqlite"
    await (await open_sqlite_store(path)).close()
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {version}")
    raw.close()
    message = await refused(path)
    assert f"has schema {version}, this version of Holdfast knows schema 2" in message
    assert "use the version of Holdfast that wrote the file" in message


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    await (await open_sqlite_store(path)).close()
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996  # the first page's B-tree header and all it holds; the file header stays
    path.write_bytes(content)
    assert "damaged" in await refused(path)


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.touch()
    held = await open_sqlite_store(path)
    assert await held.store.log.put(0, item(1)) is None
    await held.close()


async def test_a_read_only_file_is_refused(unprivileged: Path) -> None:
    path = unprivileged / "store.sqlite"
    await (await open_sqlite_store(path)).close()
    set_mode(path, 0o444)
    assert "is read-only; make both writable or choose another path" in await refused(path)


async def test_a_read_only_folder_is_refused(unprivileged: Path) -> None:
    path = unprivileged / "store.sqlite"
    set_mode(unprivileged, 0o555)
    assert "make the folder writable or choose another path" in await refused(path)


async def test_a_folder_that_turned_read_only_is_refused(unprivileged: Path) -> None:
    path = unprivileged / "store.sqlite"
    await (await open_sqlite_store(path)).close()
    set_mode(unprivileged, 0o555)  # the lock file is there already, but the WAL cannot be created
    assert "the file or its folder is read-only" in await refused(path)


async def test_a_second_store_on_the_file_is_refused_within_the_process(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    held = await open_sqlite_store(path)
    assert f"in use by the process with pid {os.getpid()}" in await refused(path)
    await held.close()
    await (await open_sqlite_store(path)).close()


HOLDER = """
import asyncio, sys
from holdfast_runtime.adapters.sqlite import open_sqlite_store

async def main():
    held = await open_sqlite_store(sys.argv[1])
    print("open", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await held.close()

asyncio.run(main())
"""

APPENDER = """
import asyncio, sys
from holdfast_runtime.adapters.sqlite import open_sqlite_store
from holdfast_runtime.ports.store import LogItem, StoredPage

async def append(store, shard):
    position = 1
    while await store.log.read(shard, position, 1):
        position += 1
    while True:
        operations = b"%d" % position * (position % 50)
        assert await store.log.put(shard, LogItem(position, 1, b"w", position, 0, 1, operations)) is None
        await store.pages.put(f"p{shard}", StoredPage(position, operations))
        print(shard, position, flush=True)
        position += 1

async def main():
    held = await open_sqlite_store(sys.argv[1], shards=3)
    await asyncio.gather(*(append(held.store, shard) for shard in range(3)))

asyncio.run(main())
"""

# Dies of its own hand the moment a put is answered. The puts are large, so that an answer that came before the
# commit would leave the writer's thread far from done.
ENDS_ITSELF = """
import asyncio, os, signal, sys
from holdfast_runtime.adapters.sqlite import open_sqlite_store
from holdfast_runtime.ports.store import LogItem

async def append(store, shard):
    position = len(await store.log.read(shard, 1, 1000)) + 1
    item = LogItem(position, 1, b"w", position, 0, 1, os.urandom(350_000))
    assert await store.log.put(shard, item) is None
    os.write(1, b"%d %d\\n" % (shard, position))
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    held = await open_sqlite_store(sys.argv[1], shards=3)
    await asyncio.gather(*(append(held.store, shard) for shard in range(3)))

asyncio.run(main())
"""


def start(script: str, path: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


async def test_a_file_used_by_another_process_is_refused_by_its_pid(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with start(HOLDER, path) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "open\n"
        assert f"in use by the process with pid {holder.pid}; stop it" in await refused(path)
        holder.stdin.close()
        assert holder.wait(60) == 0
    await (await open_sqlite_store(path)).close()


async def test_a_killed_process_loses_no_acknowledged_write(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    acknowledged = {0: 0, 1: 0, 2: 0}
    for lines in (1, 37, 150, 400):
        with start(APPENDER, path) as appender:
            assert appender.stdout is not None
            out = [appender.stdout.readline() for _ in range(lines)]
            os.kill(appender.pid, signal.SIGKILL)
            out += appender.stdout.readlines()
            assert appender.wait(60) == -signal.SIGKILL
        for line in out:
            if line.endswith("\n"):  # the last one may be torn
                shard, position = map(int, line.split())
                acknowledged[shard] = position
        held = await open_sqlite_store(path)
        for shard, last in acknowledged.items():
            run = await held.store.log.read(shard, 1, 1_000_000)
            assert len(run) >= last
            assert all(one.operations == b"%d" % one.position * (one.position % 50) for one in run)
            if last:
                assert (await held.store.pages.get([f"p{shard}"]))[f"p{shard}"].lsn >= last
        await held.close()
    assert min(acknowledged.values()) > 0


async def test_a_process_killed_by_the_answer_has_the_write_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    for round_number in range(1, 6):
        with start(ENDS_ITSELF, path) as process:
            assert process.stdout is not None
            shard, position = map(int, process.stdout.readline().split())
            assert process.wait(60) == -signal.SIGKILL
        assert position == round_number
        held = await open_sqlite_store(path)
        assert len(await held.store.log.read(shard, 1, 1_000)) >= position
        await held.close()


async def test_closing_leaves_no_thread_no_wal_and_refuses_what_comes_later(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    held = await open_sqlite_store(tmp_path / "store.sqlite")
    assert len(set(threading.enumerate()) - before) == 1
    late = held.store.log.put(0, item(1))
    await held.close()
    await held.close()
    assert set(threading.enumerate()) == before
    assert sorted(os.listdir(tmp_path)) == ["store.sqlite", "store.sqlite.lock"]
    with pytest.raises(StoreUnavailable, match="is closed"):
        await late
    with pytest.raises(StoreUnavailable, match="is closed"):
        await held.store.log.read(0, 1, 1)


async def test_a_refused_open_leaves_no_thread_and_no_lock(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    path = tmp_path / "notes.txt"
    path.write_bytes(b"dear diary, " * 100)
    await refused(path)
    assert set(threading.enumerate()) == before
    path.unlink()
    held: SqliteStore = await open_sqlite_store(path)
    await held.close()
