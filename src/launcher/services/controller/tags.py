"""Tags: what a project notes of the things that it sees."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from launcher.db import limits, tags
from launcher.db.database import Database
from launcher.messages.tags import ListTags, RemoveTags, SetTags
from launcher.messaging import Context, Route
from launcher.models import Quotas
from launcher.tagging import Tag


class Tags:
    """Of the asking project. Whether it sees a thing at all, its owner has said before."""

    def __init__(self, *, db: Database, quotas: Quotas) -> None:
        self.db, self.quotas = db, quotas

    @property
    def routes(self) -> Sequence[Route]:
        return [SetTags.to(self.set_tags), RemoveTags.to(self.remove_tags), ListTags.to(self.list_tags)]

    async def set_tags(self, ctx: Context, message: SetTags) -> None:
        def work(db: sqlite3.Connection) -> None:
            quota = limits.get(db, ctx.project_id, self.quotas).metadata_items
            quota = quota if message.most is None else min(quota, message.most)
            for target in message.targets:
                tags.put(db, ctx.project_id, target, message.tags, quota=quota)

        await self.db.write(work)

    async def remove_tags(self, ctx: Context, message: RemoveTags) -> None:
        def work(db: sqlite3.Connection) -> None:
            for target in message.targets:
                tags.remove(db, ctx.project_id, target, message.tags)

        await self.db.write(work)

    async def list_tags(self, ctx: Context, message: ListTags) -> list[Tag]:
        return await self.db.read(lambda db: tags.list_all(db, ctx.project_id, message.kind))
