"""The native dialect's floating IPs; it translates and decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address

from pydantic import Field

from launcher.bus import Bus
from launcher.errors import Conflict, NotFound, QuotaExceeded
from launcher.floating import FloatingIp
from launcher.messages.floating_ips import (
    AllocateFloatingIp,
    AssociateFloatingIp,
    DisassociateFloatingIp,
    GetFloatingIp,
    ListFloatingIps,
    ReleaseFloatingIp,
)
from launcher.models import Model, Name
from launcher.services.api.endpoint import Answer, Ask, Endpoint


class FloatingIpBody(Model):
    """POST /floating-ips. What is left out is chosen: the first pool, its lowest free address."""

    pool: Name | None = None
    address: IPv4Address | None = None


class AssociationBody(Model):
    """POST /floating-ips/{address}/association. `reassociate` takes it from where it leads now."""

    instance: str = Field(min_length=1, max_length=255, description="id or name")
    fixed: IPv4Address | None = Field(default=None, description="else the first NIC's")
    reassociate: bool = False


class FloatingIpList(Model):
    floating_ips: list[FloatingIp]


class NativeFloatingIps:
    """Answered by the network role; it asks the controller whose an instance is."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        every, one = "/floating-ips", "/floating-ips/{address}"
        return [
            Endpoint(
                "POST",
                every,
                self.allocate_floating_ip,
                "Hold an address of a pool",
                status=201,
                body=FloatingIpBody,
                response=FloatingIp,
                raises=(QuotaExceeded, NotFound, Conflict),
            ),
            Endpoint("GET", every, self.list_floating_ips, "List floating IPs", response=FloatingIpList),
            Endpoint("GET", one, self.get_floating_ip, "Show a floating IP", response=FloatingIp),
            Endpoint(
                "DELETE", one, self.release_floating_ip, "Give it back to its pool", status=204, raises=(Conflict,)
            ),
            Endpoint(
                "POST",
                f"{one}/association",
                self.associate_floating_ip,
                "Let it lead to an instance",
                body=AssociationBody,
                response=FloatingIp,
                raises=(Conflict,),
            ),
            Endpoint(
                "DELETE",
                f"{one}/association",
                self.disassociate_floating_ip,
                "Let it lead nowhere",
                response=FloatingIp,
            ),
        ]

    async def allocate_floating_ip(self, ask: Ask) -> Answer:
        body: FloatingIpBody = ask.body
        return Answer(await self.bus.call(ask.ctx, AllocateFloatingIp(pool=body.pool, address=body.address)))

    async def list_floating_ips(self, ask: Ask) -> Answer:
        return Answer(FloatingIpList(floating_ips=await self.bus.call(ask.ctx, ListFloatingIps())))

    async def get_floating_ip(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, GetFloatingIp(address=_address(ask))))

    async def associate_floating_ip(self, ask: Ask) -> Answer:
        wanted = AssociateFloatingIp(address=_address(ask), **ask.body.model_dump())
        return Answer(await self.bus.call(ask.ctx, wanted))

    async def disassociate_floating_ip(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, DisassociateFloatingIp(address=_address(ask))))

    async def release_floating_ip(self, ask: Ask) -> Answer:
        await self.bus.call(ask.ctx, ReleaseFloatingIp(address=_address(ask)))
        return Answer()


def _address(ask: Ask) -> IPv4Address:
    try:
        return IPv4Address(ask.path["address"])
    except AddressValueError:
        raise NotFound(
            f"there is no floating IP {ask.path['address']!r}", hint="see `launcher floating-ip list`"
        ) from None
