"""A change of many groups in as few transactions as it takes: what is refused of it holds up nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from launcher.errors import FirewallFailed
from launcher.policy import Policy, SecurityGroup


async def in_parts(policy: Policy, update: Callable[[Policy], Awaitable[None]]) -> None:
    """All at once; where that is refused, in halves. Raises the first refusal when all has been tried."""
    try:
        await update(policy)
    except FirewallFailed:
        if len(policy.groups) < 2:
            raise
        middle = len(policy.groups) // 2
        refused = [
            await _refusal(_part(policy, part), update) for part in (policy.groups[:middle], policy.groups[middle:])
        ]
        for error in filter(None, refused):
            raise error from None


async def _refusal(policy: Policy, update: Callable[[Policy], Awaitable[None]]) -> FirewallFailed | None:
    try:
        await in_parts(policy, update)
    except FirewallFailed as error:
        return error
    return None


def _part(policy: Policy, groups: Sequence[SecurityGroup]) -> Policy:
    """With the members that these groups name."""
    named = {rule.group_id for group in groups for rule in group.rules}
    members = {number: known for number, known in policy.members.items() if number in named}
    return Policy.model_construct(groups=tuple(groups), members=members)
