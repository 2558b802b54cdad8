"""Packet filters that filter nothing: for the demo without a network, for benchmarks and for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from launcher.drivers.firewall.parts import in_parts
from launcher.models import InstanceRef, LaunchOrder
from launcher.networks import FixedIp, Network
from launcher.policy import Policy

Fault = Callable[[str, str], Awaitable[None]]
"""Called with a point and an instance's id: `apply`, `remove` before the effect, `applied`, `removed` after it;
or with `update` and the names of the groups.

What it raises is what the caller gets, so an error at `applied` is "done, but the answer was lost".
"""


class FakeFirewall:
    """The contract is `FirewallDriver`'s; `delay` is the seconds one apply or remove takes.

    `applied` is what the real one would enforce, by the instance's number; `torn` is what somebody spoilt of it.
    """

    def __init__(self, *, delay: float = 0.0, fault: Fault | None = None) -> None:
        self.delay = delay
        self.fault = fault
        self.networks: dict[str, Network] = {}
        self.applied: dict[int, tuple[LaunchOrder, tuple[FixedIp, ...], Policy]] = {}
        self.torn: set[int] = set()

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def ensure_base(self, network: Network) -> None:
        self.networks[network.name] = network

    async def apply(self, order: LaunchOrder, nics: Sequence[FixedIp], policy: Policy) -> None:
        await self._reach("apply", order.instance_id)
        await asyncio.sleep(self.delay)
        self.applied[order.number] = (order, tuple(nics), policy)
        self.torn.discard(order.number)
        await self._reach("applied", order.instance_id)

    async def update(self, policy: Policy) -> None:
        """Who is in the same groups shares one Policy: there may be thousands of them."""
        await in_parts(policy, self._update)

    async def _update(self, policy: Policy) -> None:
        await self._reach("update", policy.names)
        changed, made = {group.id for group in policy.groups}, dict[tuple[int, ...], Policy]()
        for number, (order, nics, old) in self.applied.items():
            ids = tuple(group.id for group in old.groups)
            if not changed.isdisjoint(ids):
                made[ids] = made.get(ids) or _merged(old, policy)
                self.applied[number] = (order, nics, made[ids])

    async def remove(self, order: InstanceRef) -> None:
        await self._reach("remove", order.instance_id)
        await asyncio.sleep(self.delay)
        self.applied.pop(order.number, None)
        await self._reach("removed", order.instance_id)

    async def list_instances(self) -> Mapping[int, bool]:
        return {number: number not in self.torn for number in sorted(self.applied)}

    async def _reach(self, point: str, subject: str) -> None:
        if self.fault is not None:
            await self.fault(point, subject)


def _merged(old: Policy, new: Policy) -> Policy:
    changed = {group.id: group for group in new.groups}
    groups = tuple(changed.get(group.id, group) for group in old.groups)
    named = {rule.group_id for group in groups for rule in group.rules}
    members = {group: known for group, known in {**old.members, **new.members}.items() if group in named}
    return Policy.model_construct(groups=groups, members=members)
