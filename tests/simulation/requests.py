"""What clients ask for besides launches and their ends: changes of groups, moves of a floating IP, stops, starts …"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from launcher.floating import FloatingPool, Outward
from launcher.life import Action
from launcher.messages.floating_ips import (
    AllocateFloatingIp,
    AssociateFloatingIp,
    DisassociateFloatingIp,
    ReleaseFloatingIp,
)
from launcher.messages.life import ActOnInstance
from launcher.messages.security_groups import (
    AddRules,
    CreateSecurityGroup,
    RemoveRules,
    RuleSpec,
    SetInstanceGroups,
)
from launcher.messaging import Call
from launcher.policy import Protocol

OUTWARD = Outward(pools=(FloatingPool(name="public", cidr=IPv4Network("203.0.113.0/29"), interface="eth0"),))
ACTIONS = (
    Action.STOP,
    Action.START,
    Action.REBOOT,
    Action.PAUSE,
    Action.UNPAUSE,
    Action.SUSPEND,
    Action.RESUME,
    Action.PAUSE,
    Action.REBOOT,
    Action.SUSPEND,
    Action.STOP,
    Action.STOP,
)
"""What clients ask for, in this order."""
FLOATING = IPv4Address("203.0.113.1")


def changes(index: int, first: str, second: str) -> Sequence[Call[Any]]:
    """A new group whose rule names the usual one, then the groups of an instance and rules, to and fro."""
    udp = RuleSpec(protocol=Protocol.UDP, from_port=53)
    web = CreateSecurityGroup(name="web", rules=(RuleSpec(protocol=Protocol.TCP, group="default"),))
    kinds: list[list[Call[Any]]] = [
        [AddRules(group="default", rules=(udp,))],
        [web, SetInstanceGroups(instance_id=first, groups=("web",))],
        [RemoveRules(group="default", rules=(udp,)), AddRules(group="web", rules=(udp,))],
        [SetInstanceGroups(instance_id=first, groups=("default", "web"))],
    ]
    return kinds[index % len(kinds)]


def floats(index: int, first: str, second: str) -> Sequence[Call[Any]]:
    """To one instance, to the other, to none, and given back."""
    kinds: list[list[Call[Any]]] = [
        [AllocateFloatingIp(address=FLOATING), AssociateFloatingIp(address=FLOATING, instance=first)],
        [AssociateFloatingIp(address=FLOATING, instance=second, reassociate=True)],
        [AssociateFloatingIp(address=FLOATING, instance=first, reassociate=True)],
        [DisassociateFloatingIp(address=FLOATING), ReleaseFloatingIp(address=FLOATING)],
    ]
    return kinds[index % len(kinds)]


def acts(index: int, first: str, second: str) -> Sequence[Call[Any]]:
    """One after the other, of the one instance and then of the other; in no state for it, it stays as it is."""
    instance = second if index // len(ACTIONS) % 2 else first
    return [ActOnInstance(instance_id=instance, action=ACTIONS[index % len(ACTIONS)], timeout_s=4.0)]
