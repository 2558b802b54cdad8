"""The packet filter by nftables: one transaction a change, through a kept worker, holding only what changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from launcher.drivers.firewall import nft_rules
from launcher.drivers.firewall.cutting import cut_all, cut_forbidden
from launcher.drivers.firewall.knowledge import Guest, Knowledge, report_nonsense
from launcher.drivers.firewall.nft import Nft, generation
from launcher.drivers.firewall.nft_tables import NAME, Tables
from launcher.errors import FirewallFailed, ProgramFailed
from launcher.explaining import Settings
from launcher.models import InstanceRef, LaunchOrder
from launcher.networks import FixedIp, Network
from launcher.policy import Policy
from launcher.ports import Port, ports_of

_HINT = f"look with `nft list table inet {NAME}` and `nft list table bridge {NAME}`"

log = logging.getLogger(__name__)

Plan = Callable[[Tables], None]


class NftablesFirewall:
    """See FirewallDriver. A transaction is refused as a whole, so a failure leaves what was there before.

    What the tables hold is remembered from the last look and carried on by our own transactions, because reading it
    back costs more with every instance. After somebody else's transaction the chains are compared, without elements.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._nft = Nft()
        self._lock = asyncio.Lock()
        self._knowledge = Knowledge()
        self._seen: Tables | None = None
        self._generation = 0

    async def start(self) -> None:
        async with self._lock:
            self._seen = None
            await self._change("the base chains", lambda tables: nft_rules.put_base(tables, self._settings))

    async def stop(self) -> None:
        await self._nft.stop()

    async def ensure_base(self, network: Network) -> None:
        def plan(tables: Tables) -> None:
            nft_rules.put_network(tables, network, self._settings)

        await self.start()
        async with self._lock:
            await self._change(network.bridge, plan)

    async def apply(self, order: LaunchOrder, nics: Sequence[FixedIp], policy: Policy) -> None:
        guest = Guest(order, ports_of(order, nics), policy)
        report_nonsense(policy)
        new: list[Port] = []

        def plan(tables: Tables) -> None:
            new[:] = nft_rules.newcomers(tables, guest.ports)
            self._put(tables, guest)

        async with self._lock:
            await self._change(order.name, self._based(plan))
            self._knowledge.tell(guest)
        await cut_all(new)
        if len(new) < len(guest.ports):
            await cut_forbidden([guest], self._settings)

    async def update(self, policy: Policy) -> None:
        report_nonsense(policy)
        async with self._lock:
            changed = self._knowledge.learn(policy)
            turned = [after for before, after in changed if before.policy.limits_egress != after.policy.limits_egress]

            def plan(tables: Tables) -> None:
                nft_rules.put_groups(tables, policy)
                for guest in turned:
                    self._put(tables, guest)

            await self._change("security groups", self._based(plan))
        await cut_forbidden([after for _, after in changed], self._settings)

    async def remove(self, order: InstanceRef) -> None:
        async with self._lock:
            await self._change(order.name, lambda tables: nft_rules.remove_instance(tables, order.tap))
            self._knowledge.forget(order.number)

    async def list_instances(self) -> Mapping[int, bool]:
        async with self._lock:
            with _blaming("the list of instances"):
                tables = self._seen = await self._look()
            whole = nft_rules.base_is_whole(tables, self._settings)
            numbers = sorted((int(tap.removeprefix("tap"), 16), tap) for tap in tables.owners())
            return {number: whole and nft_rules.has_instance(tables, tap) for number, tap in numbers}

    def _put(self, tables: Tables, guest: Guest) -> None:
        nft_rules.put_instance(tables, guest.ref.tap, guest.ports, guest.policy, self._settings)

    def _based(self, plan: Plan) -> Plan:
        """The plan, after what is missing of the base."""

        def based(tables: Tables) -> None:
            if not nft_rules.base_is_whole(tables, self._settings):
                nft_rules.put_base(tables, self._settings)
            plan(tables)

        return based

    async def _change(self, subject: str, plan: Plan) -> None:
        """Plan on what is remembered; where that fails or finds nothing to do, plan again on a fresh look."""
        with _blaming(subject):
            before = generation()
            # Until the transaction has ended nothing is known for certain, not even when it is cancelled.
            seen, self._seen = self._seen, None
            if seen is not None and (before == self._generation or await self._is_still(seen)):
                plan(seen)
                if commands := seen.take_commands():
                    with contextlib.suppress(ProgramFailed):
                        await self._nft.run(commands)
                        self._seen, self._generation = seen, before + 1
                        return
            before, tables = generation(), await self._look()
            plan(tables)
            if commands := tables.take_commands():
                await self._nft.run(commands)
                before += 1
            self._seen, self._generation = tables, before

    async def _look(self) -> Tables:
        return Tables.read(await self._nft.list_tables(NAME))

    async def _is_still(self, seen: Tables) -> bool:
        """Whether chains and sets are as remembered, to the number of their rules."""
        found = Tables.read(await self._nft.list_tables(NAME, terse=True))
        sizes = ({place: len(rules) for place, rules in tables.chains.items()} for tables in (seen, found))
        return (
            len({tuple(sorted(each.items())) for each in sizes}) == 1 and seen.elements.keys() == found.elements.keys()
        )


@contextlib.contextmanager
def _blaming(subject: str) -> Iterator[None]:
    try:
        yield
    except (ProgramFailed, OSError) as error:
        raise FirewallFailed(f"{subject}: filtering failed, nothing was changed: {error}", hint=_HINT) from error
