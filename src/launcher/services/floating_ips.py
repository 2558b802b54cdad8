"""Floating IPs, and the translation of addresses that a host of networks does. Rows first, then the host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from ipaddress import IPv4Address

from launcher.auditing import Artefact, ArtefactKind
from launcher.bus import Bus
from launcher.clock import Clock
from launcher.db import floating_ips, leases, networks
from launcher.db.database import Database
from launcher.db.floating_ips import Led
from launcher.drivers.nat.driver import NatDriver
from launcher.errors import BadRequest, Conflict, LauncherError, NetworkFailed, NotFound
from launcher.floating import Beyond, FloatingIp, FloatingPool, Lead, Outward, Translation
from launcher.messages.accounts import GetQuotas
from launcher.messages.floating_ips import (
    AllocateFloatingIp,
    AssociateFloatingIp,
    DisassociateFloatingIp,
    GetFloatingIp,
    ListFloatingIps,
    ListFloatingPools,
    ReleaseFloatingIp,
)
from launcher.messages.instances import GetInstance
from launcher.messaging import Context, Route
from launcher.models import Instance, InstanceId
from launcher.networks import FixedIp, Network

log = logging.getLogger(__name__)


class FloatingIps:
    """A part of the network role. `leaving` are the instances whose fixed IPs are being given back.

    `led` is where the host may lead floating IPs to; None is anywhere. The rows do not tell: they are ahead of it.
    """

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        nat: NatDriver,
        outward: Outward,
    ) -> None:
        self.db, self.bus, self.clock, self.nat = db, bus, clock, nat
        self.outward = outward
        self.translating = asyncio.Lock()
        self.leaving: set[InstanceId] = set()
        self.led: set[Lead] | None = None

    @property
    def routes(self) -> Sequence[Route]:
        return [
            AllocateFloatingIp.to(self.allocate),
            ListFloatingIps.to(self.list_all),
            ListFloatingPools.to(self.list_pools),
            GetFloatingIp.to(self.get),
            AssociateFloatingIp.to(self.associate),
            DisassociateFloatingIp.to(self.disassociate),
            ReleaseFloatingIp.to(self.release),
        ]

    async def allocate(self, ctx: Context, message: AllocateFloatingIp) -> FloatingIp:
        pool = self._pool(message)
        quotas = await self.bus.call(ctx, GetQuotas(project=ctx.project_id))

        def work(db: sqlite3.Connection) -> FloatingIp:
            return floating_ips.allocate(
                db,
                pool,
                project_id=ctx.project_id,
                address=message.address,
                quota=quotas.floating_ips,
                now_ms=self.clock.now_ms(),
            )

        return await self.db.write(work)

    async def list_all(self, ctx: Context, message: ListFloatingIps) -> list[FloatingIp]:
        return await self.db.read(lambda db: floating_ips.list_visible(db, _whose(ctx)))

    async def list_pools(self, ctx: Context, message: ListFloatingPools) -> list[FloatingPool]:
        return list(self.outward.pools)

    async def get(self, ctx: Context, message: GetFloatingIp) -> FloatingIp:
        return await self.db.read(lambda db: floating_ips.get(db, _whose(ctx), message.address))

    async def associate(self, ctx: Context, message: AssociateFloatingIp) -> FloatingIp:
        instance = await self.bus.call(ctx, GetInstance(instance_id=message.instance))

        def work(db: sqlite3.Connection) -> tuple[FloatingIp, Led | None, Led]:
            floating = floating_ips.get(db, _whose(ctx), message.address)
            if floating.project_id != instance.project_id:
                raise BadRequest(f"{floating.address} is of another project than the instance", field="instance")
            lease = _lease(db, instance, message.fixed)
            before = next((led for led in floating_ips.list_led(db) if led.address == floating.address), None)
            made = floating_ips.associate(db, floating, lease, reassociate=message.reassociate)
            return made, before, Led(made.address, lease.network.id, lease.address, lease.instance_id)

        made, before, now = await self.db.write(work)
        try:
            refused = await self.translate()
            if made.address in refused:
                raise refused[made.address]
        except LauncherError:
            await self.db.write(lambda db: floating_ips.put_back(db, now, before))
            await self.attempt()
            raise
        return made

    async def disassociate(self, ctx: Context, message: DisassociateFloatingIp) -> FloatingIp:
        freed = await self._disassociate(await self.get(ctx, GetFloatingIp(address=message.address)))
        await self.translate()
        return freed

    async def release(self, ctx: Context, message: ReleaseFloatingIp) -> None:
        """If its disassociation was not carried out yet, it is before somebody else may get the address."""
        await self.translate()

        def work(db: sqlite3.Connection) -> None:
            floating_ips.release(db, floating_ips.get(db, _whose(ctx), message.address))

        await self.db.write(work)

    @contextlib.asynccontextmanager
    async def letting_go(self, instance_id: InstanceId) -> AsyncIterator[None]:
        """Inside, nothing leads to the instance: its fixed IPs can be given back, and with them go the associations."""
        self.leaving.add(instance_id)
        try:
            if await self.db.read(lambda db: self._may_lead_to(db, instance_id)):
                await self.translate()
            yield
        finally:
            self.leaving.discard(instance_id)

    def _may_lead_to(self, db: sqlite3.Connection, instance_id: InstanceId) -> bool:
        if self.led is None:
            return bool(floating_ips.list_visible(db, None))
        return bool(self.led & set(map(_lead, leases.list_of_instance(db, instance_id))))

    async def translate(self) -> Mapping[IPv4Address, NetworkFailed]:
        """The host as the rows say, and what it refused; one at a time, so that older rows never win."""
        async with self.translating:
            led, known = await self.db.read(lambda db: (floating_ips.list_led(db), networks.list_all(db)))
            stay = [each for each in led if each.instance_id not in self.leaving]
            wanted = _translation(known, stay, self.outward.masquerade)
            new = set(wanted.leads.values())
            self.led = None if self.led is None else self.led | new
            refused = await self.nat.apply(wanted)
            self.led = new
            return refused

    async def attempt(self) -> None:
        """Networks are of use without it; what fails is tried again by `check`."""
        try:
            for error in (await self.translate()).values():
                log.error("floating IP: %s", error)
        except LauncherError as error:
            log.error("address translation: %s%s", error, f" – {error.hint}" if error.hint else "")

    async def check(self) -> None:
        """Somebody may have been at the host's rules."""
        await self.translate()
        await self.nat.check()

    async def look(self) -> list[Artefact]:
        """What the host has and should have of them; what the rows do not know has no instance."""
        async with self.translating:
            found = await self.db.read(lambda db: floating_ips.list_visible(db, None))
            there = await self.nat.look()
        owners = {each.address: each.instance_id for each in found if each.fixed is not None}
        return [
            Artefact(
                kind=ArtefactKind.FLOATING,
                name=str(address),
                instance_id=owners.get(address),
                whole=there.get(address, False),
            )
            for address in sorted({*owners, *there})
        ]

    async def _disassociate(self, floating: FloatingIp) -> FloatingIp:
        await self.db.write(lambda db: floating_ips.disassociate(db, floating))
        return floating.model_copy(update={"instance_id": None, "fixed": None})

    def _pool(self, message: AllocateFloatingIp) -> FloatingPool:
        if not self.outward.pools:
            hint = "make one: [network] pools in config.toml"
            raise Conflict("there is no pool of floating IPs", hint=hint, field="pool")
        for pool in self.outward.pools:
            if message.pool == pool.name or (message.pool is None and (message.address or pool.first) in pool.cidr):
                return pool
        known = ", ".join(f"{pool.name} ({pool.cidr})" for pool in self.outward.pools)
        if message.pool is None:
            raise BadRequest(f"{message.address} is of no pool; there are {known}", field="address")
        raise NotFound(f"there is no pool {message.pool!r}; there are {known}", field="pool")


def _lease(db: sqlite3.Connection, instance: Instance, fixed: IPv4Address | None) -> FixedIp:
    """The one of the instance that is meant."""
    found = leases.list_of_instance(db, instance.id)
    if not found:
        raise Conflict(
            f"instance {instance.name!r} is {instance.status} and has no address", hint="wait until it is ACTIVE"
        )
    for lease in found:
        if fixed in (None, lease.address):
            return lease
    known = ", ".join(str(lease.address) for lease in found)
    raise BadRequest(f"{fixed} is not of instance {instance.name!r}, which has {known}", field="fixed")


def _lead(lease: FixedIp) -> Lead:
    """The lease, as a translation has it."""
    return lease.network.bridge if lease.network.apart else "", lease.address


def _translation(known: Sequence[Network], led: Sequence[Led], masquerade: bool) -> Translation:
    """The gateways of networks apart translate their own; to the host they are the links that lead there."""
    by_network: dict[int, dict[IPv4Address, IPv4Address]] = {network.id: {} for network in known}
    for each in led:
        by_network[each.network][each.address] = each.fixed
    here, apart = [each for each in known if not each.apart], [each for each in known if each.apart]
    return Translation(
        networks={each.bridge: each.cidr for each in here} | {each.link_device: each.link for each in apart},
        masquerade=masquerade,
        floating={address: fixed for each in here for address, fixed in by_network[each.id].items()},
        apart={
            each.bridge: Beyond(cidr=each.cidr, link=each.link, device=each.link_device, floating=by_network[each.id])
            for each in apart
        },
    )


def _whose(ctx: Context) -> str | None:
    """An admin sees all."""
    return None if ctx.is_admin else ctx.project_id
