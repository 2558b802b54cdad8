"""The packet filter by iptables-restore: one transaction a change, holding only what changes.

Works with the nft variant and the legacy one, as root and in the user namespace of the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from launcher.drivers import process
from launcher.drivers.firewall import flows, rules
from launcher.drivers.firewall.rules import Chains
from launcher.errors import FirewallFailed, ProgramFailed
from launcher.models import InstanceRef, LaunchOrder
from launcher.networks import FixedIp, Network, NetworkMode
from launcher.policy import Policy

_HINT = "look with `iptables-save`; the chains of launcher are named nova-…"


class IptablesFirewall:
    """See FirewallDriver. A transaction is refused as a whole, so a failure leaves what was there before.

    What the table holds is remembered from the last look and carried on by our own transactions, because
    reading it back costs more with every instance. Each transaction fails where memory and kernel differ;
    then it is planned once more from a fresh look.
    """

    def __init__(self, *, allow_project_net_traffic: bool = True, metadata_port: int | None = None) -> None:
        self._allow_project = allow_project_net_traffic
        self._metadata_port = metadata_port
        self._lock = asyncio.Lock()
        self._seen: Chains | None = None

    async def start(self) -> None:
        async with self._lock:
            self._seen = None
            await self._change("the base chains", rules.base)

    async def ensure_base(self, network: Network) -> None:
        await self.start()
        async with self._lock:
            await self._change(network.bridge, lambda found: rules.open_services(found, network, self._metadata_port))
            await _ensure("iptables", "nat", network, self._redirect)
            # A flat network's bridge may be the host's own way out, whose IPv6 is not ours to stop.
            if network.mode is not NetworkMode.FLAT and _speaks_ipv6():
                await _ensure("ip6tables", "filter", network, rules.refuse_ipv6)

    async def apply(self, order: LaunchOrder, nics: Sequence[FixedIp], policy: Policy) -> None:
        def plan(found: Chains) -> list[str]:
            return rules.apply_instance(found, order, nics[0], policy, allow_project=self._allow_project)

        async with self._lock:
            await self._cut_flows(order, nics[0])
            await self._change(order.name, plan)

    async def update(self, policy: Policy) -> None:
        async with self._lock:
            await self._change("security groups", lambda found: rules.update_groups(found, policy))

    async def remove(self, order: InstanceRef) -> None:
        async with self._lock:
            await self._change(order.name, lambda found: rules.remove_instance(found, order))

    async def list_instances(self) -> Mapping[int, bool]:
        async with self._lock:
            with _blaming("the list of instances"):
                self._seen = await _look("iptables", "filter")
            return rules.instances(self._seen)

    async def _change(self, subject: str, plan: Callable[[Chains], list[str]]) -> None:
        """Plan on what is remembered; where that fails or finds nothing to do, plan again on a fresh look."""
        # Until the transaction has ended nothing is known for certain, not even when it is cancelled.
        seen, self._seen = self._seen, None
        if seen is not None and (lines := plan(seen)):
            with contextlib.suppress(ProgramFailed):
                self._seen = await _commit("iptables", "filter", seen, lines)
                return
        with _blaming(subject):
            found = await _look("iptables", "filter")
            self._seen = await _commit("iptables", "filter", found, plan(found))

    async def _cut_flows(self, order: LaunchOrder, address: FixedIp) -> None:
        """Of an address that comes to this instance now. Its domain does not run yet, so nothing answers in between."""
        with _blaming(order.name):
            found = self._seen if self._seen is not None else await _look("iptables", "filter")
        if not rules.leads_to(found, order, address):
            await asyncio.to_thread(flows.cut, address.address)

    def _redirect(self, found: Chains, bridge: str) -> list[str]:
        return rules.redirect_metadata(found, bridge, self._metadata_port)


async def _ensure(program: str, table: str, network: Network, plan: Callable[[Chains, str], list[str]]) -> None:
    with _blaming(f"the bridge {network.bridge}"):
        found = await _look(program, table)
        await _commit(program, table, found, plan(found, network.bridge))


def _speaks_ipv6() -> bool:
    return Path("/proc/net/if_inet6").exists()


async def _look(program: str, table: str) -> Chains:
    return rules.play({}, await process.run([f"{program}-save", "-t", table]))


async def _commit(program: str, table: str, found: Chains, lines: Sequence[str]) -> Chains:
    """What the table holds afterwards."""
    text = rules.transaction(table, lines)
    if lines:
        await process.run([f"{program}-restore", "--noflush", "--wait"], stdin=text)
    return rules.play(found, text)


@contextlib.contextmanager
def _blaming(subject: str) -> Iterator[None]:
    try:
        yield
    except ProgramFailed as error:
        raise FirewallFailed(f"{subject}: filtering failed, nothing was changed: {error}", hint=_HINT) from error
