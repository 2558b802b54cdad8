"""UUIDs for things that are numbered or named here; the same at every start, and no secret."""

from __future__ import annotations

from uuid import UUID, uuid5

from launcher.models import Instance, Nic
from launcher.networks import Network

_OURS = UUID("6d1c9b1e-53ab-5b0e-9d3f-0a3b1d1e7c55")


def uuid_of(kind: str, key: object) -> str:
    return str(uuid5(_OURS, f"{kind}/{key}"))


def of_network(network: Network) -> str:
    return uuid_of("network", network.id)


def of_subnet(network: Network, version: int = 4) -> str:
    return uuid_of("subnet", f"{network.id}/{version}")


def of_port(instance: Instance, nic: Nic) -> str:
    return uuid_of("port", f"{instance.id}/{nic.mac}")
