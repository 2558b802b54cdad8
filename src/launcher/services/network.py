"""The network role: networks, leases of fixed IPs, and the bridges, gateways and DHCP servers behind them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from launcher.auditing import Artefact, ArtefactKind, ListLeases, Look, PublishLeases
from launcher.bus import Bus
from launcher.clock import Clock
from launcher.db import leases, networks
from launcher.db.database import Database
from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.nat.driver import NatDriver
from launcher.drivers.network.driver import NetworkDriver
from launcher.errors import Conflict, LauncherError
from launcher.failpoints import failpoint
from launcher.floating import Outward
from launcher.messages.network import (
    AllocateFixedIp,
    CheckNetworks,
    CreateNetwork,
    DeleteNetwork,
    FindLease,
    GetDhcpEvidence,
    ListAddresses,
    ListNetworks,
    ReleaseFixedIp,
)
from launcher.messaging import Context, Route
from launcher.models import DhcpEvidence, MacAddress
from launcher.networks import FixedIp, Network, ProjectRange
from launcher.services.floating_ips import FloatingIps
from launcher.services.networks import Networks
from launcher.services.role import Role

log = logging.getLogger(__name__)


class NetworkController(Role):
    """Rows are committed before the host hears of them; `served` are the networks that this host serves now."""

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
        projects: ProjectRange | None = None,
        driver: NetworkDriver,
        firewall: FirewallDriver,
        nat: NatDriver,
        outward: Outward | None = None,
    ) -> None:
        super().__init__(host=host, bus=bus, clock=clock, rng=rng)
        self.db, self.driver, self.firewall = db, driver, firewall
        self.networks = Networks(usual=network, projects=projects)
        self.served: dict[int, Network] = {}
        self.leased: dict[MacAddress, FixedIp] = {}
        self.changes = 0
        self.publishing = asyncio.Lock()
        self.floating = FloatingIps(
            db=db,
            bus=bus,
            clock=clock,
            nat=nat,
            outward=outward or Outward(),
        )

    @property
    def routes(self) -> Sequence[Route]:
        return [
            AllocateFixedIp.to(self.allocate_fixed_ip),
            ReleaseFixedIp.to(self.release_fixed_ip),
            CheckNetworks.to(self.check_networks),
            FindLease.to(self.find_lease),
            ListAddresses.to(self.list_addresses),
            GetDhcpEvidence.to(self.get_dhcp_evidence),
            CreateNetwork.to(self.create_network),
            ListNetworks.to(self.list_networks),
            DeleteNetwork.to(self.delete_network),
            ListLeases.to(self.list_leases),
            PublishLeases.to(self.publish_again),
            *self.floating.routes,
        ]

    @property
    def recurring(self) -> Sequence[tuple[float, Callable[[], Awaitable[None]]]]:
        return [(2.0, self.revive_servers), (30.0, self.publish_all), (30.0, self.floating.check)]

    async def start(self) -> None:
        """The network of the settings must come up; another that does not is served as soon as it can be."""
        await self.driver.start()
        await self.db.write(self.networks.keep_usual)
        self.leased = {lease.mac: lease for lease in await self.db.read(leases.list_leases)}
        for network in await self.db.read(networks.list_all):
            try:
                await self._take_up(network)
            except LauncherError as error:
                if network.id == self.networks.usual.id:
                    raise
                log.warning("network %s is not as it should be: %s", network.name, error)
        await self.publish_all()
        await self.floating.attempt()

    async def _take_up(self, network: Network) -> None:
        """What the last process left: a network to serve, or one whose end it had begun."""
        if await self.db.read(lambda db: networks.is_deleting(db, network)):
            await self._remove(network)
        else:
            await self._serve(network)

    async def stop(self) -> None:
        await self.floating.nat.stop()
        await self.driver.stop()

    # --- leases ----------------------------------------------------------------------------------------

    async def allocate_fixed_ip(self, ctx: Context, message: AllocateFixedIp) -> FixedIp:
        def work(db: sqlite3.Connection) -> FixedIp:
            return leases.find(db, message.instance_id, message.mac) or leases.allocate(
                db,
                self.networks.resolve(db, message.project_id, message.network),
                instance_id=message.instance_id,
                nic=message.nic,
                mac=message.mac,
                hostname=message.hostname,
                address=message.address,
                now_ms=self.clock.now_ms(),
            )

        async with failpoint("lease"):
            lease = await self.db.write(work)
        self.leased[lease.mac] = lease
        self.changes += 1
        if await self._serve(lease.network):
            await self.floating.attempt()
        await self._publish(lease.network)
        return lease

    async def release_fixed_ip(self, ctx: Context, message: ReleaseFixedIp) -> None:
        async with self.floating.letting_go(message.instance_id), failpoint("release"):
            released = await self.db.write(lambda db: leases.release(db, message.instance_id))
        for lease in released:
            self.leased.pop(lease.mac, None)
        self.changes += 1
        for network in {lease.network.id: lease.network for lease in released}.values():
            await self._publish(network)

    async def check_networks(self, ctx: Context, message: CheckNetworks) -> None:
        def work(db: sqlite3.Connection) -> None:
            for wanted, address in message.nics:
                network = networks.get(db, ctx.project_id, wanted)
                if address is not None:
                    leases.check_free(db, network, address)

        await self.db.read(work)

    async def find_lease(self, ctx: Context, message: FindLease) -> FixedIp | None:
        return await self.db.read(lambda db: leases.find_by_address(db, message.address, message.bridge))

    async def list_addresses(self, ctx: Context, message: ListAddresses) -> list[FixedIp]:
        return await self.db.read(lambda db: leases.list_of_instance(db, message.instance_id))

    async def get_dhcp_evidence(self, ctx: Context, message: GetDhcpEvidence) -> DhcpEvidence | None:
        found = await self.db.read(lambda db: leases.list_of_instance(db, message.instance_id))
        return await self.driver.get_evidence(found[0]) if found else None

    # --- networks --------------------------------------------------------------------------------------

    async def create_network(self, ctx: Context, message: CreateNetwork) -> Network:
        """What the host refuses is not kept, unless somebody has an address of it already."""
        made = await self.db.write(lambda db: self.networks.create(db, message))
        try:
            await self._serve(made)
        except LauncherError:
            with contextlib.suppress(Conflict):
                await self.db.write(lambda db: networks.begin_deleting(db, made))
                await self._remove(made)
            raise
        await self.floating.attempt()
        return made

    async def list_networks(self, ctx: Context, message: ListNetworks) -> list[Network]:
        return await self.db.read(lambda db: networks.list_visible(db, None if ctx.is_admin else ctx.project_id))

    async def delete_network(self, ctx: Context, message: DeleteNetwork) -> None:
        await self._remove(await self.db.write(lambda db: self.networks.begin_deleting(db, message.network)))
        await self.floating.attempt()

    async def _serve(self, network: Network) -> bool:
        """Bridge, gateway, DHCP server and base rules, once in the life of this process; whether it was this time."""
        async with self.publishing:
            if self.served.get(network.id) == network:
                return False
            await self.driver.ensure_network(network)
            await self.firewall.ensure_base(network)
            self.served[network.id] = network
            return True

    async def _remove(self, network: Network) -> None:
        """The host first: as long as the row is there, the next start goes on with it."""
        async with self.publishing:
            self.served.pop(network.id, None)
            await self.driver.remove_network(network)
        await self.db.write(lambda db: networks.delete(db, network))

    # --- what the host is told, and what it has -----------------------------------------------------------

    async def list_leases(self, ctx: Context, message: ListLeases) -> Look:
        """What the rows have leased and what the DHCP servers were told, if there are any."""
        found = await self.db.read(leases.list_leases)
        told = [await self.driver.list_leases(network) for network in tuple(self.served.values())]
        ids = {lease.mac: lease.instance_id for lease in found}
        artefacts = [
            *(
                Artefact(kind=ArtefactKind.LEASE, name=str(each.address), instance_id=each.instance_id)
                for each in found
            ),
            *(
                Artefact(kind=ArtefactKind.DHCP, name=mac, instance_id=ids.get(mac))
                for known in told
                for mac in known or ()
            ),
            *await self.floating.look(),
        ]
        kinds = {ArtefactKind.LEASE, ArtefactKind.FLOATING} | (set() if None in told else {ArtefactKind.DHCP})
        return Look(host=None, kinds=frozenset(kinds), artefacts=tuple(artefacts))

    async def publish_again(self, ctx: Context, message: PublishLeases) -> None:
        """By the rows: somebody saw that the servers know something else."""
        seen = self.changes
        found = await self.db.read(leases.list_leases)
        if seen == self.changes:  # else it is older than what is known
            self.leased = {lease.mac: lease for lease in found}
        await self.publish_all()
        await self.floating.check()

    async def publish_all(self) -> None:
        for network in tuple(self.served.values()):
            await self._publish(network)

    async def _publish(self, network: Network) -> None:
        """Tell the DHCP server what is leased now; one at a time, so that an older list never wins."""
        async with self.publishing:
            if network.id in self.served:
                of_it = [lease for lease in self.leased.values() if lease.network.id == network.id]
                await self.driver.set_leases(network, of_it)

    async def revive_servers(self) -> None:
        """A DHCP server that has died is started again; one that cannot be does not keep the others waiting."""
        for network in tuple(self.served.values()):
            try:
                async with self.publishing:
                    await self.driver.revive(network)
            except LauncherError as error:
                log.warning("network %s: %s", network.name, error)
