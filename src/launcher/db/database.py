"""One SQLite file with one owner: a writer that commits in groups, a reader of its own, numbered migrations.

A transaction is one function sent to the writer's thread (BEGIN IMMEDIATE … COMMIT, no await inside), so no task can
leave one half done or mix its statements into another's. Functions that arrive while the thread is busy are committed
together, each within a savepoint of its own, with one fdatasync for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from launcher.errors import InsufficientSpace, LauncherError, StoreUnavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

PRAGMAS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
PRAGMA busy_timeout = 5000;
PRAGMA journal_size_limit = 67108864;
"""


_LOOK = "look at the volume that the state directory lies on: space, `dmesg`"
UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "another program holds a lock on the file: sqlite3, a backup?",
    sqlite3.SQLITE_IOERR: _LOOK,
    sqlite3.SQLITE_CANTOPEN: _LOOK,
}
"""What may pass by itself, and what to do about it."""


class Database:
    """Open one with `Database.open`; `write` and `read` are all there is."""

    def __init__(self, writer: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._writer, self._reader = writer, reader
        self._waiting: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._committing: asyncio.Task[None] | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, path: Path, migrations: Sequence[str]) -> AsyncIterator[Database]:
        """The file at `path`, brought to the newest schema; a file from a newer launcher is refused."""
        _make_private(path)
        async with AsyncExitStack() as opened:
            with _naming():
                writer = await opened.enter_async_context(_connect(path))
                await _run(writer, _migrate, path, migrations)
                reader = await opened.enter_async_context(_connect(path))
                await _run(reader, _make_read_only)
            database = cls(writer, reader)
            yield database
            await database._settled()
            with contextlib.suppress(sqlite3.OperationalError):  # on a full disk; the next one does it
                await _run(writer, _checkpoint)

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a transaction. A caller that is cancelled does not know the outcome and reads again.

        Raises what `work` raises (its changes are undone), InsufficientSpace when the disk is full, StoreUnavailable
        when the file cannot be used now.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.ensure_future(self._commit())
        return await asyncio.shield(future)

    async def read(self, work: Work[T]) -> T:
        """Run `work` on the reading connection; it sees every transaction that `write` has returned from."""
        with _naming():
            result: T = await _run(self._reader, work)
        return result

    async def _commit(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                outcomes = await _run(self._writer, _transact, [work for work, _ in batch])
            except Exception as error:  # noqa: BLE001 - it belongs to every caller of the batch
                outcomes = [error] * len(batch)
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                _settle(future, outcome)

    async def _settled(self) -> None:
        if self._committing is not None:
            await self._committing


def _make_private(path: Path) -> None:
    """User data is its owner's secret; SQLite gives the files beside its own the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(_named(outcome))
    else:
        future.set_result(outcome)


@contextlib.contextmanager
def _naming() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise _named(error) from error


def _named(error: BaseException) -> BaseException:
    """Extended codes say more; their low byte is the kind."""
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if kind == sqlite3.SQLITE_FULL:
        return InsufficientSpace("the state volume is full", hint="free space where the state directory lies")
    if kind in UNAVAILABLE:
        return StoreUnavailable(f"the database cannot be used: {error}", hint=UNAVAILABLE[kind])
    return error


def _transact(connection: sqlite3.Connection, batch: Sequence[Work[Any]]) -> list[Any]:
    """Run the batch in one transaction; a work that raises loses its own changes only."""
    outcomes: list[Any] = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        for work in batch:
            connection.execute("SAVEPOINT work")
            try:
                outcomes.append(work(connection))
            except Exception as error:
                if not connection.in_transaction:
                    raise
                connection.execute("ROLLBACK TO work")
                outcomes.append(error)
            connection.execute("RELEASE work")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return outcomes


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Each step and its number commit together; the old file is kept beside the new one."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise LauncherError(
            f"{path} has schema {version}, this launcher knows {len(migrations)}",
            hint="install the newer launcher again, or go back to the copy made before its migration",
        )
    if 0 < version < len(migrations):
        copy = path.with_name(f"{path.name}.before-{version + 1}")
        copy.unlink(missing_ok=True)  # of an attempt that was cut
        copy.touch(mode=0o600)
        connection.execute("VACUUM INTO ?", (str(copy),))
    for number, script in enumerate(migrations[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def _make_read_only(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = ON")


def _checkpoint(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextlib.asynccontextmanager
async def _connect(path: Path) -> AsyncIterator[aiosqlite.Connection]:
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        await connection.executescript(PRAGMAS)
        connection.row_factory = sqlite3.Row
        yield connection


async def _run(connection: aiosqlite.Connection, work: Callable[..., T], *args: Any) -> T:
    """One hop into the connection's thread. aiosqlite has no public call for it; its version is pinned."""
    result: T = await connection._execute(work, connection._conn, *args)  # type: ignore[no-untyped-call]
    return result
