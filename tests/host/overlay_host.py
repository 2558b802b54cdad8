"""Makes projects' networks as a compute host does, in whatever namespace it is started: OVERLAY PEERS SEGMENT…"""

from __future__ import annotations

import asyncio
import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from launcher.drivers.network.uplinks import Tags, Vxlan
from launcher.drivers.network.vlan import Uplink, VlanNetwork
from launcher.errors import LauncherError
from launcher.networks import Network, NetworkMode

GROUP = IPv4Address("239.255.0.1")


def network(segment: int) -> Network:
    """Every project has the same addresses."""
    return Network(
        name="default",
        project_id=f"project-{segment}",
        mode=NetworkMode.VLAN,
        bridge=f"br{segment}",
        cidr=IPv4Network("10.0.0.0/24"),
        gateway=IPv4Address("10.0.0.1"),
        segment=segment,
    )


def uplink(overlay: str, peers: str) -> Uplink | None:
    addresses = [IPv4Address(peer) for peer in peers.split(",") if peer]
    kinds: dict[str, Uplink] = {"vlan": Tags("e0"), "vxlan": Vxlan("e0", group=GROUP, peers=addresses)}
    return kinds.get(overlay)


async def main(overlay: str, peers: str, *segments: str) -> int:
    driver = VlanNetwork(Path("/nowhere"), uplink=uplink(overlay, peers))
    try:
        await driver.start()
        for _ in range(2):  # everything may be repeated
            for segment in segments:
                await driver.ensure_bridge(network(int(segment)))
    except LauncherError as error:
        sys.stdout.write(f"{error.code}: {error} {error.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
