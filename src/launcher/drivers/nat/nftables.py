"""Address translation by nft, in a table of its own (docs/decisions/0011-nat-in-a-table-of-its-own.md)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from launcher.drivers import process
from launcher.drivers.flows import Flows
from launcher.drivers.nat import addresses, routes, rules
from launcher.drivers.nat.gateways import Gateways
from launcher.drivers.network.namespaces import Namespaces
from launcher.errors import DriverError, FirewallFailed, HostResourceMissing, NetworkFailed, ProgramFailed
from launcher.floating import FloatingPool, Translation

ROUTING = Path("/proc/sys/net/ipv4/ip_forward")
NOTE = "ip-forward.json"
"""In the state directory: what the host's setting was before launcher changed it. `launcher doctor` reads it."""

log = logging.getLogger(__name__)


class NftablesNat:
    """See NatDriver. What was applied is remembered, and carried on by transactions that hold only what changes.

    `note` is the file that says what a setting of the host was before; None in the sandbox, whose settings are its own.
    """

    def __init__(
        self, *, note: Path | None, pools: Sequence[FloatingPool] = (), namespaces: Namespaces | None = None
    ) -> None:
        self._note, self._pools = note, tuple(pools)
        self._lock = asyncio.Lock()
        self._wanted: Translation | None = None
        self._held: Translation | None = None
        self._refused: Mapping[IPv4Address, NetworkFailed] = {}
        self._told_of: set[str] = set()
        self._flows, self._gateways = Flows(), Gateways(namespaces)

    async def apply(self, wanted: Translation) -> Mapping[IPv4Address, NetworkFailed]:
        async with self._lock:
            self._wanted = wanted
            if wanted != self._held or not self._gateways.are_told(wanted):
                self._refused = await self._apply(wanted)
            return self._refused

    async def check(self) -> None:
        async with self._lock:
            wanted = self._wanted
            if wanted is None or (wanted == self._held and await self._holds(wanted)):
                return
            self._held = None
            self._refused = await self._apply(wanted)

    async def stop(self) -> None:
        self._flows.close()

    async def look(self) -> Mapping[IPv4Address, bool]:
        leads, ways = await self._leads(), await routes.look(self._pools)
        present = addresses.ours(await addresses.list_all(), self._pools)
        whole = {each for each, (bridge, _) in leads.items() if each in (ways.whole if bridge else present)}
        return {each: each in whole for each in sorted({*leads, *present, *ways.links, *ways.answering})}

    async def _apply(self, wanted: Translation) -> Mapping[IPv4Address, NetworkFailed]:
        """An address goes before its rule and comes after it: the host itself never answers by it meanwhile."""
        before, self._held = self._held, None
        leads = before.leads if before else await self._leads()
        found, ways = await addresses.list_all(), await routes.look(self._pools)
        ours = addresses.ours(found, self._pools)
        await addresses.remove(ours, wanted.floating)
        await routes.remove(ways, wanted.routed)
        if wanted.forwards:
            await asyncio.to_thread(self._route)
        await self._translate(before, wanted)
        await self._gateways.tell(wanted)
        await self._cut(rules.stale(leads, wanted))
        await self._accept_forwarding(wanted)
        refused = await addresses.add(found, wanted.floating, self._pools)
        others = [each for each in found if each.address not in ours]
        refused |= await routes.add(ways, others, wanted.routed, self._pools)
        self._held = wanted
        return refused

    async def _translate(self, before: Translation | None, wanted: Translation) -> None:
        if not wanted.forwards:
            text = rules.nothing() if await _list_table() else ""
        elif before is None or not before.forwards or before.masquerade != wanted.masquerade:
            text = rules.whole(wanted)
        else:
            text = rules.difference(before, wanted)
            with contextlib.suppress(ProgramFailed):
                await _nft(text)
                return
            text = rules.whole(wanted)  # somebody else was at our table
        try:
            await _nft(text)
        except ProgramFailed as error:
            raise FirewallFailed(
                f"address translation failed, nothing was changed: {error}",
                hint=f"look with `nft list table ip {rules.TABLE}`; `launcher doctor` tells what the kernel lacks",
            ) from error

    async def _holds(self, wanted: Translation) -> bool:
        """Whether the addresses lead where they should, and the host routes."""
        if not wanted.forwards:
            return True
        present = addresses.ours(await addresses.list_all(), self._pools)
        ways = (await routes.look(self._pools)).whole
        led = {each: beyond.device for each, beyond in wanted.routed.items() if each not in self._refused}
        if present.keys() != wanted.floating.keys() - self._refused.keys() or ways != led:
            return False
        if await asyncio.to_thread(_routes) is False or not await self._gateways.hold(wanted):
            return False
        await self._accept_forwarding(wanted)
        return rules.read_content(await _list_table()) == rules.content(wanted)

    def _route(self) -> None:
        """Be a router, and remember that the host was none."""
        if _routes():
            return
        try:
            if self._note is not None:
                self._note.write_text(json.dumps({"was": ROUTING.read_text().strip()}))
            ROUTING.write_text("1")
        except OSError as error:
            raise NetworkFailed(
                f"{ROUTING} cannot be set to 1 ({error.strerror}); guests reach nothing beyond this host",
                hint="set it yourself (`sysctl net.ipv4.ip_forward=1`), or set [network] nat = false",
            ) from error
        if self._note is not None:
            log.warning("this host is a router now: net.ipv4.ip_forward was 0, guests need 1; it is left so")

    async def _accept_forwarding(self, wanted: Translation) -> None:
        """Where the host drops what nobody accepts (Docker's setting, for one), accept our own."""
        try:
            found = await self._list_filter()
            links = {beyond.device for beyond in wanted.apart.values()}
            if lines := rules.accept_forwarding(found, wanted.networks if wanted.forwards else (), links):
                text = "\n".join(("*filter", *lines, "COMMIT\n"))
                await process.run(["iptables-restore", "--noflush", "--wait"], stdin=text)
                self._tell("the policy of iptables' FORWARD is DROP: a chain at its end accepts what guests need")
        except DriverError as error:
            self._tell(f"whether the host's own filter drops what guests send is not known: {error}")

    async def _list_filter(self) -> list[str]:
        """The policy and rules of FORWARD, and of our chain if there is one."""
        found = (await process.run(["iptables", "--wait", "-S", "FORWARD"])).splitlines()
        if any(rules.FORWARD in line.split() for line in found):
            found += (await process.run(["iptables", "--wait", "-S", rules.FORWARD])).splitlines()
        return found

    async def _leads(self) -> dict[IPv4Address, tuple[str, IPv4Address]]:
        here = await _look()
        return {each: ("", fixed) for each, fixed in here.items()} | await self._gateways.leads()

    async def _cut(self, stale: Mapping[str, Sequence[IPv4Address]]) -> None:
        """End the flows, in and out, that a translation which is gone had begun; the host has seen all of them."""
        try:
            for bridge, floating in stale.items():
                await asyncio.to_thread(self._flows.cut, *floating)
                if bridge:
                    await self._gateways.cut(bridge, floating)
        except FirewallFailed as error:
            log.warning("what came by an address that leads elsewhere now goes on until it ends: %s", error)

    def _tell(self, words: str) -> None:
        """Once in the life of this process."""
        if words not in self._told_of:
            self._told_of.add(words)
            log.warning(words)


def _routes() -> bool:
    return ROUTING.read_text().strip() == "1"


async def _nft(text: str) -> None:
    if text:
        await process.run(["nft", "-f", "-"], stdin=text)


async def _look() -> dict[IPv4Address, IPv4Address]:
    """Where the table lets floating IPs lead; nothing without a table."""
    return rules.read_floating(await _list_table())


async def _list_table() -> list[dict[str, Any]]:
    """As nft's JSON; nothing where there is no table, which is so where there is no nft."""
    try:
        said = await process.run(["nft", "-j", "list", "table", "ip", rules.TABLE])
    except HostResourceMissing:
        return []
    except ProgramFailed as error:
        if "No such file" in str(error):
            return []
        raise FirewallFailed(f"the table {rules.TABLE} cannot be read: {error}") from error
    listed: list[dict[str, Any]] = json.loads(said)["nftables"]
    return listed
