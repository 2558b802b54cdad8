"""The tables of one name in nftables, as one object: changes are planned on what is known, and made at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from launcher.drivers.firewall.nft import Nft
from launcher.drivers.firewall.nft_tables import Tables
from launcher.errors import FirewallFailed, ProgramFailed

Plan = Callable[[Tables], None]


class Ruleset:
    """One change at a time, please. A transaction is refused as a whole, so a failure leaves what was there before.

    What the tables hold is remembered from the last look and carried on by our own transactions, because reading it
    back costs more with every instance. After somebody else's transaction the chains are compared, without elements.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._nft = Nft()
        self._seen: Tables | None = None
        self._generation = 0

    def forget(self) -> None:
        """The next change begins with a look."""
        self._seen = None

    async def stop(self) -> None:
        await self._nft.stop()

    async def look(self) -> Tables:
        with self._blaming("the list of instances"):
            self._seen = await self._look()
        return self._seen

    async def change(self, subject: str, plan: Plan) -> None:
        """Plan on what is remembered; where that fails or finds nothing to do, plan again on a fresh look."""
        with self._blaming(subject):
            before = self._nft.generation()
            # Until the transaction has ended nothing is known for certain, not even when it is cancelled.
            seen, self._seen = self._seen, None
            if seen is not None and (before == self._generation or await self._is_still(seen)):
                plan(seen)
                if commands := seen.take_commands():
                    with contextlib.suppress(ProgramFailed):
                        await self._nft.run(commands)
                        self._seen, self._generation = seen, before + 1
                        return
            before, tables = self._nft.generation(), await self._look()
            plan(tables)
            if commands := tables.take_commands():
                await self._nft.run(commands)
                before += 1
            self._seen, self._generation = tables, before

    async def _look(self) -> Tables:
        return Tables.read(self.name, await self._nft.list_tables(self.name))

    async def _is_still(self, seen: Tables) -> bool:
        """Whether chains and sets are as remembered, to the number of their rules."""
        found = Tables.read(self.name, await self._nft.list_tables(self.name, terse=True))
        sizes = ({place: len(rules) for place, rules in tables.chains.items()} for tables in (seen, found))
        return (
            len({tuple(sorted(each.items())) for each in sizes}) == 1 and seen.elements.keys() == found.elements.keys()
        )

    @contextlib.contextmanager
    def _blaming(self, subject: str) -> Iterator[None]:
        try:
            yield
        except (ProgramFailed, OSError) as error:
            hint = f"look with `nft list table inet {self.name}` and `nft list table bridge {self.name}`"
            raise FirewallFailed(f"{subject}: filtering failed, nothing was changed: {error}", hint=hint) from error
