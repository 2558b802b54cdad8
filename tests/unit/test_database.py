"""Transactions that cannot be left half done, groups of them, migrations, and a full disk."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from launcher.db.database import Database
from launcher.errors import InsufficientSpace, LauncherError, NotFound

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
