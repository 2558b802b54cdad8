"""The translation of networks apart: the same table as the host's, in the namespace of each one's gateway."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Collection, Mapping
from functools import partial
from ipaddress import IPv4Address
from typing import Any

from launcher.drivers import process
from launcher.drivers.flows import NETFILTER, Flows
from launcher.drivers.nat import rules
from launcher.drivers.network.namespaces import Namespaces
from launcher.errors import FirewallFailed, ProgramFailed
from launcher.floating import Translation


class Gateways:
    """What each was told is remembered with the namespace that it was told in."""

    def __init__(self, namespaces: Namespaces | None) -> None:
        self._namespaces = namespaces
        self._held: dict[str, tuple[int, Translation]] = {}

    def are_told(self, wanted: Translation) -> bool:
        """Those that are there; one that is not yet is not asked for."""
        return all(self._held.get(bridge) == (identity, wanted.inside(bridge)) for bridge, identity in self._of(wanted))

    async def tell(self, wanted: Translation) -> None:
        """Raises FirewallFailed."""
        self._held = {bridge: held for bridge, held in self._held.items() if bridge in wanted.apart}
        for bridge, identity in self._of(wanted):
            inside = wanted.inside(bridge)
            if self._held.pop(bridge, None) != (identity, inside):
                await self._nft(bridge, ["-f", "-"], rules.whole(inside))
            self._held[bridge] = identity, inside

    async def hold(self, wanted: Translation) -> bool:
        """Whether each has its table as it was told; one that has not is told again by the next `tell`."""
        for bridge, _ in self._of(wanted):
            if rules.read_content(await self._list_table(bridge)) != rules.content(wanted.inside(bridge)):
                self._held.pop(bridge, None)
        return self.are_told(wanted)

    async def leads(self) -> dict[IPv4Address, tuple[str, IPv4Address]]:
        """Where their tables let floating IPs lead."""
        known = self._namespaces.list_all() if self._namespaces else ()
        return {
            address: (bridge, fixed)
            for bridge in known
            for address, fixed in rules.read_floating(await self._list_table(bridge)).items()
        }

    async def cut(self, bridge: str, floating: Collection[IPv4Address]) -> None:
        """Raises FirewallFailed."""
        if self._namespaces and self._namespaces.exists(bridge):
            opens = partial(self._namespaces.open, bridge, socket.SOCK_RAW, socket.AF_NETLINK, NETFILTER)
            flows = Flows(opens)
            await asyncio.to_thread(flows.cut, *floating)
            flows.close()

    def _of(self, wanted: Translation) -> list[tuple[str, int]]:
        known: Mapping[str, int] = self._namespaces.list_all() if self._namespaces and wanted.apart else {}
        return [(bridge, known[bridge]) for bridge in wanted.apart if bridge in known]

    async def _list_table(self, bridge: str) -> list[dict[str, Any]]:
        try:
            said = await self._nft(bridge, ["-j", "list", "table", "ip", rules.TABLE])
        except FirewallFailed as error:
            if "No such file" in str(error):
                return []
            raise
        listed: list[dict[str, Any]] = json.loads(said)["nftables"]
        return listed

    async def _nft(self, bridge: str, words: list[str], text: str = "") -> str:
        assert self._namespaces
        try:
            return await process.run(self._namespaces.command(bridge, "nft", *words), stdin=text)
        except ProgramFailed as error:
            raise FirewallFailed(f"{bridge}: address translation failed, nothing was changed: {error}") from error
