"""The network role: leases of fixed IPs, and the bridge, gateway and DHCP server behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from launcher.auditing import Artefact, ArtefactKind, ListLeases, Look, PublishLeases
from launcher.bus import Bus
from launcher.clock import Clock
from launcher.db import leases
from launcher.db.database import Database
from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.network.driver import NetworkDriver
from launcher.failpoints import failpoint
from launcher.messages.network import AllocateFixedIp, FindLease, GetDhcpEvidence, ListAddresses, ReleaseFixedIp
from launcher.messaging import Context, Route
from launcher.models import DhcpEvidence, MacAddress
from launcher.networks import FixedIp, Network
from launcher.services.role import Role


class NetworkController(Role):
    """Hands out addresses of one network; the row is committed before the DHCP server hears of it."""

    topic = "network"

    def __init__(
        self,
        *,
        host: str,
        bus: Bus,
        clock: Clock,
        rng: Random,
        db: Database,
        network: Network,
        driver: NetworkDriver,
        firewall: FirewallDriver,
    ) -> None:
        super().__init__(host=host, bus=bus, clock=clock, rng=rng)
        self.db, self.network, self.driver, self.firewall = db, network, driver, firewall
        self.leased: dict[MacAddress, FixedIp] = {}
        self.publishing = asyncio.Lock()

    @property
    def routes(self) -> Sequence[Route]:
        return [
            AllocateFixedIp.to(self.allocate_fixed_ip),
            ReleaseFixedIp.to(self.release_fixed_ip),
            FindLease.to(self.find_lease),
            ListAddresses.to(self.list_addresses),
            GetDhcpEvidence.to(self.get_dhcp_evidence),
            ListLeases.to(self.list_leases),
            PublishLeases.to(self.publish_again),
        ]

    @property
    def recurring(self) -> Sequence[tuple[float, Callable[[], Awaitable[None]]]]:
        return [(30.0, self.publish_leases)]

    async def start(self) -> None:
        await self.db.write(lambda db: leases.keep_network(db, self.network))
        found = await self.db.read(lambda db: leases.list_leases(db, self.network))
        self.leased = {lease.mac: lease for lease in found}
        await self.driver.ensure_network(self.network)
        await self.firewall.ensure_base(self.network)
        await self.publish_leases()

    async def stop(self) -> None:
        await self.driver.stop()

    async def allocate_fixed_ip(self, ctx: Context, message: AllocateFixedIp) -> FixedIp:
        now = self.clock.now_ms()
        async with failpoint("lease"):
            lease = await self.db.write(
                lambda db: leases.allocate(db, self.network, message.instance_id, message.mac, message.hostname, now)
            )
        self.leased[lease.mac] = lease
        await self.publish_leases()
        return lease

    async def release_fixed_ip(self, ctx: Context, message: ReleaseFixedIp) -> None:
        async with failpoint("release"):
            released = await self.db.write(lambda db: leases.release(db, message.instance_id))
        for mac in released:
            self.leased.pop(mac, None)
        await self.publish_leases()

    async def find_lease(self, ctx: Context, message: FindLease) -> FixedIp | None:
        return await self.db.read(lambda db: leases.find_by_address(db, message.bridge, message.address))

    async def list_addresses(self, ctx: Context, message: ListAddresses) -> list[FixedIp]:
        return await self.db.read(lambda db: leases.list_by_instance(db, message.instance_id))

    async def get_dhcp_evidence(self, ctx: Context, message: GetDhcpEvidence) -> DhcpEvidence | None:
        lease = await self.db.read(lambda db: leases.find_by_instance(db, message.instance_id))
        return await self.driver.get_evidence(lease) if lease else None

    async def list_leases(self, ctx: Context, message: ListLeases) -> Look:
        """What the rows have leased and what the DHCP server was told, if there is one."""
        found = await self.db.read(lambda db: leases.list_leases(db, self.network))
        told = await self.driver.list_leases(self.network)
        ids = {lease.mac: lease.instance_id for lease in found}
        artefacts = [
            *(
                Artefact(kind=ArtefactKind.LEASE, name=str(each.address), instance_id=each.instance_id)
                for each in found
            ),
            *(Artefact(kind=ArtefactKind.DHCP, name=mac, instance_id=ids.get(mac)) for mac in told or ()),
        ]
        kinds = {ArtefactKind.LEASE} if told is None else {ArtefactKind.LEASE, ArtefactKind.DHCP}
        return Look(host=None, kinds=frozenset(kinds), artefacts=tuple(artefacts))

    async def publish_again(self, ctx: Context, message: PublishLeases) -> None:
        await self.publish_leases()

    async def publish_leases(self) -> None:
        """Tell the DHCP server what is leased now; one at a time, so that an older list never wins."""
        async with self.publishing:
            await self.driver.set_leases(self.network, tuple(self.leased.values()))
