"""/etc/network/interfaces of Debian and of busybox's ifup, for guests whose network has no DHCP server; pure."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.networks import FixedIp, NetworkMode

PATH = "/etc/network/interfaces"


def interfaces_text(nics: Sequence[FixedIp]) -> str | None:
    """None where DHCP tells the guest everything. The first NIC has the way out and the name servers."""
    if not any(nic.network.mode is NetworkMode.FLAT for nic in nics):
        return None
    blocks = ["# Written by launcher when the machine was made.\nauto lo\niface lo inet loopback\n", *map(_block, nics)]
    return "\n".join(blocks)


def _block(nic: FixedIp) -> str:
    device, network = f"eth{nic.nic}", nic.network
    if network.mode is not NetworkMode.FLAT:
        return f"auto {device}\niface {device} inet dhcp\n"
    lines = [
        f"auto {device}",
        f"iface {device} inet static",
        f"    address {nic.address}",
        f"    netmask {network.cidr.netmask}",
        f"    broadcast {network.cidr.broadcast_address}",
    ]
    if nic.nic == 0:
        lines.append(f"    gateway {network.gateway}")
        lines += [f"    dns-nameservers {' '.join(map(str, network.dns))}"] if network.dns else []
        lines.append(f"    dns-search {network.domain}")
    return "\n".join(lines) + "\n"
