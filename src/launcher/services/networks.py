"""Which networks there are, which one a NIC gets, and what is chosen for a new one. Decided in transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

from launcher.db import networks
from launcher.errors import BadRequest, Conflict, NoMoreFixedIps
from launcher.messages.network import CreateNetwork
from launcher.networks import LINKS, MOST_APART, Network, ProjectRange

Range = IPv4Network | IPv6Network
FIRST_BRIDGE = 101
"""Bridges of networks without a segment are numbered from here."""


class Networks:
    """`usual` is the network of the settings. With `projects` there is none of that name for all: each has its own."""

    def __init__(self, *, usual: Network, projects: ProjectRange | None) -> None:
        self.usual, self.projects = usual, projects

    def keep_usual(self, db: sqlite3.Connection) -> None:
        """The network of the settings is the first row, and as the settings say."""
        if self.projects is None:
            _check_range(self.usual, [other for other in networks.list_all(db) if not _is(other, self.usual)])
            self.usual = networks.keep(db, self.usual)

    def resolve(self, db: sqlite3.Connection, project_id: str, wanted: str | None) -> Network:
        """The network that a NIC of the project asked for; a project's usual one is made if there is none yet."""
        if wanted is not None:
            return networks.get(db, project_id, wanted)
        if self.projects is None:
            return self.usual
        return networks.find_own(db, project_id) or self._take(db, project_id, self.projects)

    def create(self, db: sqlite3.Connection, message: CreateNetwork) -> Network:
        if message.cidr.num_addresses < 4:
            raise BadRequest(f"{message.cidr} has no room for a gateway and an instance", field="cidr")
        if message.cidr6 is not None and message.cidr6.prefixlen != 64:
            raise BadRequest(f"{message.cidr6} is no /64, in which guests make their addresses", field="cidr6")
        known = networks.list_all(db)
        segment = self._segment(message, known)
        made = self.usual.model_copy(
            update={
                "id": 0,
                "name": message.name,
                "project_id": message.project_id,
                "cidr": message.cidr,
                "gateway": message.gateway or message.cidr.network_address + 1,
                "bridge": message.bridge or _bridge(segment, known),
                "segment": segment,
                "cidr6": message.cidr6,
                "dns": self.usual.dns if message.dns is None else message.dns,
            }
        )
        if not made.first <= made.gateway <= made.last:
            raise BadRequest(f"the gateway {made.gateway} is no host's address of {made.cidr}", field="gateway")
        return networks.create(db, made.model_copy(update={"apart": _apart(made, known)}))

    def begin_deleting(self, db: sqlite3.Connection, name_or_id: str) -> Network:
        network = networks.get(db, None, name_or_id)
        if self.projects is None and network.id == self.usual.id:
            raise Conflict(f"network {network.name} is the one of the settings", hint="see [network] in config.toml")
        networks.begin_deleting(db, network)
        return network

    def _take(self, db: sqlite3.Connection, project_id: str, projects: ProjectRange) -> Network:
        """The lowest free segment, and the lowest part of the range that no network has."""
        known = networks.list_all(db)
        for cidr in projects.cidr.subnets(new_prefix=projects.prefix):
            if not any(cidr.overlaps(other.cidr) for other in known):
                return self.create(db, CreateNetwork(name=self.usual.name, project_id=project_id, cidr=cidr))
        raise NoMoreFixedIps(
            f"no part of {projects.cidr} is left for a network of project {project_id}",
            hint="enlarge [network] cidr, or delete networks: `launcher network list`",
        )

    def _segment(self, message: CreateNetwork, known: Sequence[Network]) -> int | None:
        if self.projects is None:
            if message.segment is not None:
                raise BadRequest("only networks of the mode vlan have segments", field="segment")
            return None
        if message.segment is not None:
            return message.segment
        taken = {other.segment for other in known}
        free = next((segment for segment in self.projects.segments if segment not in taken), None)
        if free is None:
            last = self.projects.segments[-1]
            raise Conflict(
                f"all segments from {self.projects.segments[0]} to {last} are in use",
                hint="enlarge [network] segments, or delete networks: `launcher network list`",
            )
        return free


def _bridge(segment: int | None, known: Sequence[Network]) -> str:
    if segment is not None:
        return f"br{segment}"
    taken, number = {other.bridge for other in known}, FIRST_BRIDGE
    while f"br{number}" in taken:
        number += 1
    return f"br{number}"


def _apart(network: Network, known: Sequence[Network]) -> int | None:
    """The lowest free number, if a network of another project has addresses of its range; None where nobody has.

    An instance is of one project, whose own networks and everybody's never overlap: so none can be in two that do.
    """
    isolated = [other for other in known if network.project_id and other.project_id not in (None, network.project_id)]
    _check_range(network, [other for other in known if other not in isolated])
    for other in isolated:
        if _overlap(network.cidr6, other.cidr6):
            raise Conflict(f"the range {network.cidr6} is another network's; IPv6 is not translated", field="cidr6")
    if not any(_overlap(network.cidr, other.cidr) for other in isolated):
        return None
    if _overlap(network.cidr, LINKS):
        raise Conflict(f"{network.cidr} is taken, and overlaps {LINKS} of the host's own links", field="cidr")
    taken = {other.apart for other in known}
    return next(number for number in range(1, MOST_APART + 1) if number not in taken)


def _check_range(network: Network, others: Iterable[Network]) -> None:
    """Networks meet on the network role's host: the same address cannot be on both sides of it."""
    for other in others:
        for mine, theirs, field in ((network.cidr, other.cidr, "cidr"), (network.cidr6, other.cidr6, "cidr6")):
            if _overlap(mine, theirs):
                raise Conflict(f"the range {mine} overlaps {theirs} of network {other.name}", field=field)


def _overlap(one: Range | None, other: Range | None) -> bool:
    return one is not None and other is not None and one.overlaps(other)


def _is(other: Network, usual: Network) -> bool:
    return other.name == usual.name and other.project_id is None
