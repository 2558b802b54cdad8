"""What one host filters by: each instance's policy when it is launched, and what changes of it afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from launcher.bus import Bus
from launcher.drivers.firewall.driver import FirewallDriver
from launcher.errors import LauncherError, StaleGeneration
from launcher.messages.compute import RefreshGroups
from launcher.messages.security_groups import GetPolicy, GetPolicyChanges
from launcher.messaging import Context
from launcher.models import InstanceId, InstanceRef, LaunchOrder
from launcher.networks import FixedIp

TIMEOUT = 10.0
"""Seconds to wait for a policy: all other filtering waits, too."""


class Filters:
    """One change at a time, each by a policy asked for at that moment, so that no older one overwrites a newer.

    All groups in use here are as they were at `version`, or newer.
    """

    def __init__(self, *, host: str, bus: Bus, firewall: FirewallDriver) -> None:
        self.host, self.bus, self.firewall = host, bus, firewall
        self.version = 0
        self.lock = asyncio.Lock()
        self.known: dict[InstanceId, tuple[LaunchOrder, Sequence[FixedIp]]] = {}

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
            await self.firewall.update(changes.policy)
            known = [self.known[each] for each in changes.regrouped if each in self.known]
            outcomes = [await _outcome(self._apply(ctx, order, nics)) for order, nics in known]
            if failed := [error for error in outcomes if error is not None]:
                raise failed[0]
            self.version = changes.version

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
