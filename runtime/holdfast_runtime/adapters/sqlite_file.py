"""Opening the embedded store's file: lock, identity, schema, and what each failure means to the operator.

1. One process per file: an exclusive advisory lock on `<path>.lock`, held until close, names the holder's
   pid.
2. A file is taken over only when it is new or says that it is ours (application id) in a schema we know.
3. WAL with `synchronous=FULL`: a commit returns after its frames are on disk
   (https://sqlite.org/pragma.html).
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from holdfast_runtime.ports.store import StoreBroken, StoreUnavailable

APPLICATION_ID: Final = 0x484F4C44  # "HOLD", in the file's header
SCHEMA_VERSION: Final = 2  # in the file's header as user_version
MAX_SHARDS: Final = 256  # storage design §12
OLDEST_SQLITE: Final = (3, 24, 0)  # the first with ON CONFLICT DO UPDATE
WAL_LIMIT_BYTES: Final = 64 << 20  # after a burst the WAL file is cut back to this size
LOCK_TIMEOUT_S: Final = 5.0  # only foreign tools compete for the file; they get this long to finish

# A log row's id is shard << POSITION_BITS | position: one B-tree, each shard appending to its own end of it.
POSITION_BITS: Final = 48
POSITION_MASK: Final = (1 << POSITION_BITS) - 1

_SCHEMA: Final = (
    """CREATE TABLE log (id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, nonce BLOB NOT NULL,
       first INTEGER NOT NULL, part INTEGER NOT NULL, parts INTEGER NOT NULL, operations BLOB NOT NULL)""",
    "CREATE TABLE pages (id TEXT PRIMARY KEY, lsn INTEGER NOT NULL, expires_at_ms INTEGER, document BLOB)",
    "CREATE INDEX pages_expiry ON pages (expires_at_ms) WHERE expires_at_ms IS NOT NULL",
    # pruned: log positions up to this one have been deleted
    """CREATE TABLE shards (shard INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, owner TEXT NOT NULL,
       checkpoint INTEGER NOT NULL, tip INTEGER NOT NULL, pruned INTEGER NOT NULL)""",
    "CREATE TABLE registry (name TEXT PRIMARY KEY, version INTEGER NOT NULL, document BLOB NOT NULL)",
    # number: grows with every put, never used twice (AUTOINCREMENT), so it tells what was put after a given moment
    "CREATE TABLE blobs (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, content BLOB NOT NULL)",
)

LOCK_TRIES: Final = 11
LOCK_WAIT_S: Final = 0.1
_UNAVAILABLE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full (or the file has reached its size limit); free some space",
    sqlite3.SQLITE_IOERR: "the disk reports an error; check it and the system log",
    sqlite3.SQLITE_BUSY: "another program holds the file's write lock; close it",
    sqlite3.SQLITE_LOCKED: "another program holds the file's write lock; close it",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_INTERRUPT: "interrupted",
}
_BROKEN: Final = {
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only; make both writable or choose another path",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; check the path and the rights of its folder",
    sqlite3.SQLITE_PERM: "the file may not be accessed; check its rights",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database; choose another path or move the file away",
    sqlite3.SQLITE_CORRUPT: "the database is damaged; restore the file from a backup",
}


def failure(path: Path, error: sqlite3.Error) -> StoreUnavailable | StoreBroken:
    """A new exception that says what `error` means and what to do."""
    code = primary_code(error)
    if code in _UNAVAILABLE:
        return StoreUnavailable(f"store {path}: {_UNAVAILABLE[code]} ({error})")
    meaning = _BROKEN.get(code, "SQLite refuses; see its message")
    return StoreBroken(f"store {path}: {meaning} ({error})")


def primary_code(error: sqlite3.Error) -> int:
    """The error's primary result code; -1 when it has none (https://sqlite.org/rescode.html)."""
    code = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else code & 0xFF


class StoreBusy(StoreBroken):
    """Another process has the file."""


class FileLock:
    """An exclusive advisory lock, released by `release` or by the end of the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreBroken(
                f"store: cannot create the lock file {path} ({error.strerror}); make the folder writable or choose another path"
            ) from error
        try:
            self._take_soon()
        except BaseException:
            os.close(self._file)
            raise

    def _take_soon(self) -> None:
        """A coordinator that was killed a moment ago holds its lock until the kernel has buried it."""
        for _ in range(LOCK_TRIES - 1):
            try:
                return self._take()
            except StoreBusy:
                time.sleep(LOCK_WAIT_S)
        return self._take()

    def _take(self) -> None:
        try:
            # flock, not lockf: it also excludes a second store on the same file within this process.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StoreBroken(f"store: {self._path} cannot be locked ({error.strerror}); choose a path on a local disk") from error
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise StoreBusy(
                f"store {self._path.with_suffix('')} is in use by the process with pid {holder}; "
                "stop it or choose another path: a file serves one coordinator process"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """The file stays: deleting it would let two processes lock two files of the same name."""
        os.ftruncate(self._file, 0)
        os.close(self._file)


def prepare_path(path: Path) -> FileLock:
    """Create the parent folders, check what is at `path`, take the lock."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        raise StoreBroken(f"store: SQLite {wanted} or newer is needed, Python has {sqlite3.sqlite_version}; upgrade Python")
    if path.is_dir():
        raise StoreBroken(f"store {path} is a directory; give the path of a file, such as {path / 'store.sqlite'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreBroken(
            f"store: the folder {path.parent} cannot be created ({error.strerror}); create it or choose another path"
        ) from error
    return FileLock(path.with_name(path.name + ".lock"))


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode that any one thread at a time may use."""
    connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        # Before anything touches the file: identity is checked on a file that is still as it was found.
        connection.execute("PRAGMA cache_size = -16000")  # KiB
        connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone stops at the drive's cache
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_database(path: Path, shards: int) -> sqlite3.Connection:
    """The writer's connection to a file with our schema, created if the file is new.

    Raises StoreBroken, StoreUnavailable.
    """
    connection: sqlite3.Connection | None = None
    try:
        connection = connect(path)
        if _is_new(connection, path):
            _create(connection, shards)
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreBroken(f"store {path}: its file system cannot hold a WAL; choose a path on a local disk")
        # A read-only file opens, and even begins a transaction, without complaint: only a write shows it.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE shards SET pruned = pruned WHERE shard = 0")
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise failure(path, error) from error
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application == 0 and version == 0 and tables == 0:
        return True
    if application != APPLICATION_ID:
        raise StoreBroken(f"store {path} is an SQLite database of another program; choose another path or move the file away")
    if version != SCHEMA_VERSION:
        raise StoreBroken(
            f"store {path} has schema {version}, this version of Holdfast knows schema {SCHEMA_VERSION}; "
            "use the version of Holdfast that wrote the file, or start with a new file"
        )
    return False


def _create(connection: sqlite3.Connection, shards: int) -> None:
    # Must come before the first table. Incremental: freed pages go back to the system in small idle steps.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.executemany("INSERT INTO shards VALUES (?, 0, '', 1, 1, 0)", [(n,) for n in range(shards)])
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
