"""The packet filter by nftables: one transaction a change, through a kept worker, holding only what changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from launcher.drivers.firewall import frames, nft_rules
from launcher.drivers.firewall.cutting import Cutting
from launcher.drivers.firewall.knowledge import Guest, Knowledge, report_nonsense
from launcher.drivers.firewall.nft_tables import Base, Tables
from launcher.drivers.firewall.parts import in_parts
from launcher.drivers.firewall.ruleset import Plan, Ruleset
from launcher.explaining import Settings
from launcher.models import InstanceRef, LaunchOrder
from launcher.networks import FixedIp, Network
from launcher.policy import Policy
from launcher.ports import Port, ports_of

NAME = "launcher"
"""Of our tables; nothing outside them is read or written."""

log = logging.getLogger(__name__)


class NftablesFirewall:
    """See FirewallDriver. `guard` is what looks at frames."""

    def __init__(self, settings: Settings, *, name: str = NAME, guard: Base = frames.BASE) -> None:
        self._guard = guard
        self._settings = settings
        self._base = nft_rules.base(settings)
        self._ruleset = Ruleset(name)
        self._lock = asyncio.Lock()
        self._knowledge = Knowledge()
        self._cutting = Cutting(settings)

    async def start(self) -> None:
        async with self._lock:
            self._ruleset.forget()
            await self._ruleset.change("the base chains", self._put_base)

    async def stop(self) -> None:
        await self._cutting.stop()
        await self._ruleset.stop()

    async def ensure_base(self, network: Network) -> None:
        def plan(tables: Tables) -> None:
            nft_rules.put_network(tables, network, self._settings)

        await self.start()
        async with self._lock:
            await self._ruleset.change(network.bridge, plan)

    async def apply(self, order: LaunchOrder, nics: Sequence[FixedIp], policy: Policy) -> None:
        guest = Guest(order, ports_of(order, nics), policy)
        report_nonsense(policy)
        new: list[Port] = []

        def plan(tables: Tables) -> None:
            new[:] = nft_rules.newcomers(tables, guest.ports)
            self._put(tables, guest)

        async with self._lock:
            await self._ruleset.change(order.name, self._based(plan))
            self._knowledge.tell(guest)
        await self._cutting.begin(guest.ports, new)
        if len(new) < len(guest.ports):
            await self._cutting.end_forbidden([guest])

    async def update(self, policy: Policy) -> None:
        report_nonsense(policy)
        await in_parts(policy, self._update)

    async def _update(self, policy: Policy) -> None:
        async with self._lock:
            changed = self._knowledge.foresee(policy)
            turned = [after for before, after in changed if before.policy.limits_egress != after.policy.limits_egress]

            def plan(tables: Tables) -> None:
                nft_rules.put_groups(tables, policy)
                for guest in turned:
                    self._put(tables, guest)

            await self._ruleset.change(f"security groups {policy.names}", self._based(plan))
            self._knowledge.learn(changed)
        await self._cutting.end_forbidden([after for _, after in changed])

    async def remove(self, order: InstanceRef) -> None:
        async with self._lock:
            await self._ruleset.change(order.name, lambda tables: nft_rules.remove_instance(tables, order.tap))
            self._cutting.end(self._knowledge.forget(order.number))

    async def list_instances(self) -> Mapping[int, bool]:
        async with self._lock:
            tables = await self._ruleset.look()
            whole = tables.has_base(self._base) and tables.has_base(self._guard)
            numbers = sorted((int(tap.removeprefix("tap"), 16), tap) for tap in tables.owners())
            return {number: whole and nft_rules.has_instance(tables, tap, self._guard) for number, tap in numbers}

    async def list_taps(self) -> dict[str, int]:
        """The NICs that there are rules for, and the number of the instance of each."""
        async with self._lock:
            tables = await self._ruleset.look()
            found = {
                tables.elements[place][name].tap for first in tables.owners() for place, name in tables.owned(first)
            }
            return {tap: int(tap.removeprefix("tap").partition("-")[0], 16) for tap in found}

    def _put(self, tables: Tables, guest: Guest) -> None:
        nft_rules.put_instance(tables, guest.ref.tap, guest.ports, guest.policy, self._settings, self._guard)

    def _put_base(self, tables: Tables) -> None:
        tables.put_base(self._guard)
        tables.put_base(self._base)

    def _based(self, plan: Plan) -> Plan:
        """The plan, after what is missing of the base."""

        def based(tables: Tables) -> None:
            tables.ensure_base(self._guard)
            tables.ensure_base(self._base)
            plan(tables)

        return based
