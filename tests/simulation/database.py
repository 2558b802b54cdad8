"""The product's `Database` without threads: the same transactions on a connection that the world keeps."""

from __future__ import annotations

from launcher.db.database import Database, T, Work, _named, _transact
from launcher.errors import InsufficientSpace
from tests.simulation.life import Life


class InlineDatabase(Database):
    """`name` is the file's; a commit is one side effect, a read takes a moment."""

    def __init__(self, life: Life, name: str) -> None:
        self.life, self.name, self.connection = life, name, life.world.files[name]

    async def write(self, work: Work[T]) -> T:
        world = self.life.world
        if world.weather() == "full" and world.rng.random() < 0.15:
            await self.life.look()
            raise InsufficientSpace("the state volume is full")
        outcome = await self.life.effect(f"{self.name}.commit", lambda: self._transact(work))
        if isinstance(outcome, BaseException):
            raise _named(outcome)
        return outcome

    async def read(self, work: Work[T]) -> T:
        await self.life.look()
        return work(self.connection)

    def _transact(self, work: Work[T]) -> T | BaseException:
        outcome: T | BaseException = _transact(self.connection, [work])[0]
        self.life.world.committed(self.name)
        return outcome
