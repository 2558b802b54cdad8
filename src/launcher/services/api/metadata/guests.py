"""Who a guest is and what there is to tell it: the network role knows the address, the controller the rest."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from launcher.bus import Bus
from launcher.clock import Clock
from launcher.errors import NotFound
from launcher.guestdata.guest import Guest
from launcher.messages.instances import GetGuestMetadata
from launcher.messages.network import FindLease, ListAddresses
from launcher.messaging import Context
from launcher.models import InstanceId

ASK_TIMEOUT = 5.0
KEPT_MS = 2000.0


@dataclass(frozen=True)
class Source:
    """Where a connection came from. An address alone says nothing: two networks may have the same ones."""

    bridge: str
    address: IPv4Address


class Guests:
    """What was told of an instance is remembered for two seconds, which is what a crawl of the tree takes.

    Whose address it is, is never remembered: it may belong to the next instance a moment later.
    """

    def __init__(self, *, bus: Bus, clock: Clock) -> None:
        self.bus, self.clock = bus, clock
        self.known: dict[InstanceId, tuple[float, Guest]] = {}

    async def find(self, ctx: Context, source: Source) -> Guest:
        """Raises NotFound when nobody has this address on this bridge."""
        lease = await self.bus.call(ctx, FindLease(address=source.address, bridge=source.bridge), timeout=ASK_TIMEOUT)
        if lease is None:
            raise NotFound(f"nobody has {source.address} on {source.bridge}")
        return await self.get(ctx, lease.instance_id)

    async def get(self, ctx: Context, instance_id: InstanceId) -> Guest:
        """Raises NotFound when the instance is not alive or has no address yet."""
        now = self.clock.now_ms()
        self.known = {key: value for key, value in self.known.items() if value[0] > now}
        if instance_id in self.known:
            return self.known[instance_id][1]
        nics = await self.bus.call(ctx, ListAddresses(instance_id=instance_id), timeout=ASK_TIMEOUT)
        told = await self.bus.call(ctx, GetGuestMetadata(instance_id=instance_id), timeout=ASK_TIMEOUT)
        if not nics:
            raise NotFound(f"{told.instance.name} has no address yet", hint="a guest sees nothing before it has one")
        guest = Guest(told, tuple(nics))
        self.known[instance_id] = (now + KEPT_MS, guest)
        return guest
