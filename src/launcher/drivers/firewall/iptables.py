"""The packet filter by iptables-restore, and by nftables where iptables cannot see: in the bridge.

Works with the nft variant and the legacy one, as root and in the user namespace of the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from launcher.drivers import process
from launcher.drivers.firewall import chains, frames, rules
from launcher.drivers.firewall.chains import Chains
from launcher.drivers.firewall.cutting import Cutting
from launcher.drivers.firewall.knowledge import Guest, Knowledge, report_nonsense
from launcher.drivers.firewall.nft_tables import Tables
from launcher.drivers.firewall.parts import in_parts
from launcher.drivers.firewall.ruleset import Ruleset
from launcher.errors import FirewallFailed, ProgramFailed
from launcher.explaining import Settings
from launcher.models import InstanceRef, LaunchOrder
from launcher.networks import FixedIp, Network
from launcher.policy import Policy
from launcher.ports import ports_of

FRAMES = "launcher-frames"
"""Of the table in the family bridge."""

_HINT = "look with `iptables-save`; the chains of launcher are named nova-…"

Plan = Callable[[Chains], list[str]]


class IptablesFirewall:
    """See FirewallDriver. What each sends is checked in the bridge's table, who may speak to whom in iptables' filter.

    The table of IPv6 is touched only for networks that have IPv6.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._knowledge = Knowledge()
        self._cutting = Cutting(settings)
        self._frames = Ruleset(FRAMES)
        self._four, self._six = Filter("iptables"), Filter("ip6tables")

    async def start(self) -> None:
        async with self._lock:
            for each in (self._frames, self._four, self._six):
                each.forget()
            await self._frames.change("the bridge's table", lambda tables: tables.put_base(frames.BASE))
            await self._four.change("the base chains", rules.base)

    async def stop(self) -> None:
        await self._cutting.stop()
        await self._frames.stop()

    async def ensure_base(self, network: Network) -> None:
        def redirect(found: Chains) -> list[str]:
            port = None if network.apart else self._settings.metadata_port
            return rules.redirect_metadata(found, network.bridge, port)

        await self.start()
        async with self._lock:
            for six in (False, True) if network.cidr6 else (False,):
                await self._filter(six).change(network.bridge, self._open(network, six))
            await Filter("iptables", "nat").change(network.bridge, redirect)

    async def apply(self, order: LaunchOrder, nics: Sequence[FixedIp], policy: Policy) -> None:
        """The bridge first: what a later step does not get done stays closed."""
        guest = Guest(order, ports_of(order, nics), policy)
        report_nonsense(policy)
        async with self._lock:
            found = await self._four.look_once(order.name)
            new = [port for port in guest.ports if not rules.leads_to(found, order, port)]
            await self._put(guest)
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
            for six in (False, True):
                if not six or self._six.used:
                    await self._filter(six).change(f"security groups {policy.names}", self._regroup(policy, six))
            self._knowledge.learn(changed)
            for before, after in changed:
                if before.policy.limits_egress != after.policy.limits_egress:
                    await self._put(after)
        await self._cutting.end_forbidden([after for _, after in changed])

    async def remove(self, order: InstanceRef) -> None:
        def plan(found: Chains) -> list[str]:
            return rules.remove_instance(found, order)

        async with self._lock:
            await self._four.change(order.name, plan)
            if self._six.used or self._six.seen is None:
                await self._six.change(order.name, plan)
            await self._frames.change(order.name, lambda tables: tables.put_owned(order.tap, {}))
            self._cutting.end(self._knowledge.forget(order.number))

    async def list_instances(self) -> Mapping[int, bool]:
        async with self._lock:
            tables, found = await self._frames.look(), await self._four.look("the list of instances")
            whole, filtered = tables.has_base(frames.BASE), rules.instances(found)
            framed = {int(tap.removeprefix("tap"), 16): tap for tap in tables.owners()}
            return {
                number: whole
                and filtered.get(number, False)
                and frames.is_guarded(tables, framed.get(number, ""), frames.BASE)
                for number in sorted(filtered.keys() | framed.keys())
            }

    async def _put(self, guest: Guest) -> None:
        def frame(tables: Tables) -> None:
            tables.ensure_base(frames.BASE)
            tables.put_owned(guest.ref.tap, frames.elements(guest.ports, frames.BASE))

        await self._frames.change(guest.ref.name, frame)
        for six in (False, True):
            if not six or any(port.address6 for port in guest.ports):
                await self._filter(six).change(guest.ref.name, self._apply(guest, six))

    def _filter(self, six: bool) -> Filter:
        return self._six if six else self._four

    def _apply(self, guest: Guest, six: bool) -> Plan:
        settings = self._settings
        return lambda found: rules.apply_instance(found, guest.ref, guest.ports, guest.policy, settings, six=six)

    def _regroup(self, policy: Policy, six: bool) -> Plan:
        return lambda found: rules.update_groups(found, policy, six=six)

    def _open(self, network: Network, six: bool) -> Plan:
        return lambda found: rules.open_services(found, network, self._settings, six=six)


class Filter:
    """One table of one program. A transaction is refused as a whole, so a failure leaves what was there before.

    What the table holds is remembered from the last look and carried on by our own transactions, because
    reading it back costs more with every instance. Each transaction fails where memory and kernel differ;
    then it is planned once more from a fresh look.
    """

    def __init__(self, program: str, table: str = "filter") -> None:
        self.program, self.table = program, table
        self.seen: Chains | None = None

    @property
    def used(self) -> bool:
        return self.seen is not None and rules.LOCAL in self.seen

    def forget(self) -> None:
        self.seen = None

    async def look(self, subject: str) -> Chains:
        with _blaming(subject):
            self.seen = chains.play({}, await process.run([f"{self.program}-save", "-t", self.table]))
        return self.seen

    async def look_once(self, subject: str) -> Chains:
        """As remembered, if it is."""
        return await self.look(subject) if self.seen is None else self.seen

    async def change(self, subject: str, plan: Plan) -> None:
        """Plan on what is remembered; where that fails or finds nothing to do, plan again on a fresh look."""
        # Until the transaction has ended nothing is known for certain, not even when it is cancelled.
        seen, self.seen = self.seen, None
        if seen is not None and (lines := plan(seen)):
            with contextlib.suppress(ProgramFailed):
                self.seen = await self._commit(seen, lines)
                return
        found = await self.look(subject)
        self.seen = None
        with _blaming(subject):
            self.seen = await self._commit(found, plan(found))

    async def _commit(self, found: Chains, lines: Sequence[str]) -> Chains:
        """What the table holds afterwards."""
        text = chains.transaction(self.table, lines)
        if lines:
            await process.run([f"{self.program}-restore", "--noflush", "--wait"], stdin=text)
        return chains.play(found, text)


@contextlib.contextmanager
def _blaming(subject: str) -> Iterator[None]:
    try:
        yield
    except ProgramFailed as error:
        raise FirewallFailed(f"{subject}: filtering failed, nothing was changed: {error}", hint=_HINT) from error
