"""Transactions that cannot be left half done, groups of them, migrations, and a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from launcher.db import database as database_module
from launcher.db.database import PRAGMAS, Database
from launcher.errors import InsufficientSpace, LauncherError, NotFound, StoreUnavailable

SCHEMA = ("CREATE TABLE words (word TEXT PRIMARY KEY) STRICT",)


def add(word: str, *, then: Exception | None = None):  # type: ignore[no-untyped-def]
    def work(db: sqlite3.Connection) -> str:
        db.execute("INSERT INTO words VALUES (?)", (word,))
        if then is not None:
            raise then
        return word

    return work


def words(db: sqlite3.Connection) -> list[str]:
    return [row["word"] for row in db.execute("SELECT word FROM words ORDER BY word").fetchall()]


async def test_works_sent_together_fail_each_for_itself(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "x.db", SCHEMA) as database:
        outcomes = await asyncio.gather(
            database.write(add("a")),
            database.write(add("b", then=NotFound("no"))),
            database.write(add("a")),
            database.write(add("c", then=TypeError("a bug"))),
            database.write(add("d")),
            return_exceptions=True,
        )
        kinds = [outcome if isinstance(outcome, str) else type(outcome).__name__ for outcome in outcomes]
        assert kinds == ["a", "NotFound", "IntegrityError", "TypeError", "d"]
        assert await database.read(words) == ["a", "d"]


async def test_a_cancelled_caller_leaves_no_transaction_open(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "x.db", SCHEMA) as database:
        writing = asyncio.ensure_future(database.write(add("a")))
        await asyncio.sleep(0)
        writing.cancel()
        await database.write(add("b"))
        assert "b" in await database.read(words)


async def test_the_reader_cannot_write(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "x.db", SCHEMA) as database:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await database.read(add("a"))


async def test_a_full_disk_is_a_named_error_and_passes(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "x.db", SCHEMA) as database:
        await database.write(lambda db: db.execute("PRAGMA max_page_count = 8").fetchall())
        many = [database.write(add(f"{number:0500d}")) for number in range(200)]
        outcomes = await asyncio.gather(*many, return_exceptions=True)
        assert any(isinstance(outcome, InsufficientSpace) for outcome in outcomes)
        kept = len(await database.read(words))
        await database.write(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchall())
        await database.write(add("after"))
        assert len(await database.read(words)) == kept + 1


async def test_a_lock_that_somebody_else_holds_is_a_named_error_and_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to come out as a bug of ours."""
    monkeypatch.setattr(database_module, "PRAGMAS", PRAGMAS.replace("busy_timeout = 5000", "busy_timeout = 20"))
    async with Database.open(tmp_path / "x.db", SCHEMA) as database:
        with contextlib.closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            outcomes = await asyncio.gather(
                *(database.write(add(f"{number}")) for number in range(5)), return_exceptions=True
            )
            assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
            assert await database.read(words) == []
            other.execute("ROLLBACK")
        await database.write(add("after"))
        assert await database.read(words) == ["after"]


@pytest.mark.parametrize("name", ["SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_CANTOPEN"])
async def test_a_file_that_fails_is_a_named_error_in_writing_and_reading(tmp_path: Path, name: str) -> None:
    def fail(db: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = getattr(sqlite3, name)
        raise error

    async with Database.open(tmp_path / "x.db", SCHEMA) as database:
        for use in (database.write, database.read):
            with pytest.raises(StoreUnavailable, match="disk I/O error"):
                await use(fail)


async def test_migrations_go_on_where_the_file_stands_and_keep_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with Database.open(path, SCHEMA) as database:
        await database.write(add("old"))
    longer = (*SCHEMA, "ALTER TABLE words ADD COLUMN meaning TEXT")
    async with Database.open(path, longer) as database:
        rows = await database.read(lambda db: [dict(row) for row in db.execute("SELECT * FROM words").fetchall()])
        assert rows == [{"word": "old", "meaning": None}]
    copy = sqlite3.connect(f"{path}.before-2")
    assert copy.execute("SELECT word FROM words").fetchall() == [("old",)]
    copy.close()


async def test_a_migration_that_was_cut_after_its_copy_is_done_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with Database.open(path, SCHEMA) as database:
        await database.write(add("old"))
    (tmp_path / "x.db.before-2").write_bytes(path.read_bytes()[:4096])
    async with Database.open(path, (*SCHEMA, "ALTER TABLE words ADD COLUMN meaning TEXT")) as database:
        assert await database.read(words) == ["old"]


async def test_only_its_owner_can_read_it_and_its_copy(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with Database.open(path, SCHEMA):
        pass
    async with Database.open(path, (*SCHEMA, "SELECT 1")) as database:
        await database.write(add("secret"))
        modes = {found.name: found.stat().st_mode & 0o777 for found in tmp_path.iterdir()}
    assert modes == dict.fromkeys(["x.db", "x.db-wal", "x.db-shm", "x.db.before-2"], 0o600)


async def test_a_file_from_a_newer_launcher_is_refused(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "x.db", (*SCHEMA, "SELECT 1")):
        pass
    with pytest.raises(LauncherError, match="has schema 2, this launcher knows 1"):
        async with Database.open(tmp_path / "x.db", SCHEMA):
            pass


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with Database.open(path, SCHEMA):
        pass
    broken = (*SCHEMA, "CREATE TABLE more (x); CREATE TABLE words (y)")
    with pytest.raises(sqlite3.OperationalError):
        async with Database.open(path, broken):
            pass
    async with Database.open(path, SCHEMA) as database:
        tables = await database.read(
            lambda db: [row["name"] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        )
        assert tables == ["words"]
