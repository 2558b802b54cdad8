"""What one host filters by: each instance's policy when it is launched, and what changes of it afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from launcher.bus import Bus
from launcher.drivers.firewall.driver import FirewallDriver
from launcher.errors import BadRequest, Conflict, LauncherError, StaleGeneration
from launcher.explaining import ECHO, ECHO6, Decision, Kind, Packet, Settings, explain
from launcher.groups import Traffic
from launcher.messages.compute import ExplainFilters, RefreshGroups
from launcher.messages.security_groups import GetPolicy, GetPolicyChanges
from launcher.messaging import Context, Route
from launcher.models import InstanceId, InstanceRef, LaunchOrder
from launcher.networks import FixedIp
from launcher.policy import Direction
from launcher.ports import Port, ports_of

TIMEOUT = 10.0
"""Seconds to wait for a policy: all other filtering waits, too."""


class Filters:
    """One change at a time, each by a policy asked for at that moment, so that no older one overwrites a newer.

    All groups in use here are as they were at `version`, or newer.
    """

    def __init__(self, *, host: str, bus: Bus, firewall: FirewallDriver, settings: Settings) -> None:
        self.host, self.bus, self.firewall, self.settings = host, bus, firewall, settings
        self.version = 0
        self.lock = asyncio.Lock()
        self.known: dict[InstanceId, tuple[LaunchOrder, Sequence[FixedIp]]] = {}

    @property
    def routes(self) -> Sequence[Route]:
        return [RefreshGroups.to(self.refresh), ExplainFilters.to(self.explain)]

    async def apply(self, ctx: Context, order: LaunchOrder, nics: Sequence[FixedIp]) -> None:
        """By the policy of this moment: what changes after it is a RefreshGroups, which waits for the lock."""
        async with self.lock:
            await self._apply(ctx, order, nics)

    async def remove(self, ref: InstanceRef) -> None:
        """Under the lock, so that no refresh puts them back: who asks for its policy after this is told no."""
        async with self.lock:
            self.known.pop(ref.instance_id, None)
            await self.firewall.remove(ref)

    async def refresh(self, ctx: Context, message: RefreshGroups) -> None:
        """Ask for all that changed since the last time; what fails is asked for again after a heartbeat."""
        async with self.lock:
            if message.version <= self.version:
                return
            request = GetPolicyChanges(host=self.host, since=self.version)
            changes = await self.bus.call(ctx, request, timeout=TIMEOUT)
            known = [self.known[each] for each in changes.regrouped if each in self.known]
            outcomes = [await _outcome(self.firewall.update(changes.policy))]
            outcomes += [await _outcome(self._apply(ctx, order, nics)) for order, nics in known]
            if failed := [error for error in outcomes if error is not None]:
                raise failed[0]
            self.version = changes.version

    async def explain(self, ctx: Context, message: ExplainFilters) -> Decision:
        """By what the rows say now, which the filters follow."""
        name = message.order.name
        if message.order.instance_id not in self.known:
            raise Conflict(f"{name}: no filters are in place yet", hint="try again when it runs")
        _, nics = self.known[message.order.instance_id]
        policy = await self.bus.call(ctx, GetPolicy(instance_id=message.order.instance_id), timeout=TIMEOUT)
        ports, traffic = ports_of(message.order, nics), message.traffic
        return explain(_packet(traffic, ports), ports, policy, self.settings, direction=traffic.direction)

    async def _apply(self, ctx: Context, order: LaunchOrder, nics: Sequence[FixedIp]) -> None:
        policy = await self.bus.call(ctx, GetPolicy(instance_id=order.instance_id), timeout=TIMEOUT)
        self.known[order.instance_id] = (order, nics)
        await self.firewall.apply(order, nics, policy)


async def _outcome(applying: Awaitable[None]) -> LauncherError | None:
    """What went wrong; that an instance is on its way out is not wrong."""
    try:
        await applying
    except StaleGeneration:
        return None
    except LauncherError as error:
        return error
    return None


def _packet(traffic: Traffic, ports: Sequence[Port]) -> Packet:
    """Raises BadRequest where the instance has no such NIC, or the NIC no such address."""
    if traffic.nic >= len(ports):
        raise BadRequest(f"the instance has no NIC {traffic.nic}", field="nic")
    if traffic.protocol in (Kind.TCP, Kind.UDP) and traffic.port is None:
        raise BadRequest(f"{traffic.protocol} goes to a port", field="port")
    four = traffic.address.version == 4
    own = ports[traffic.nic].address if four else ports[traffic.nic].address6
    if own is None:
        raise BadRequest("the instance has no address of IPv6", field="address")
    inward = traffic.direction is Direction.INGRESS
    icmp = traffic.protocol is Kind.ICMP
    echo = ECHO if four else ECHO6
    return Packet(
        kind=traffic.protocol,
        source=traffic.address if inward else own,
        destination=own if inward else traffic.address,
        port=traffic.port,
        icmp_type=(echo if traffic.icmp_type is None else traffic.icmp_type) if icmp else None,
        icmp_code=traffic.icmp_code if icmp else None,
        nic=traffic.nic,
    )
