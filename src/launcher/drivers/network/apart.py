"""Networks apart: their addresses are another project's, too, so neither their packets nor their gateway may meet it.

    taps ─ br105 ─ nova-port1 │ br105: 10.0.0.1, dnsmasq, filter, translation, out: 198.19.0.3 │ nova-link1: 198.19.0.2
           on every host      │ a network namespace on the network role's host                 │ the host, and beyond

In the namespace the gateway's device is called as the bridge is outside. On every host the bridge is sealed: nothing of
it gets into the host's own IP, and connection tracking keeps its flows, and fragments, in a zone.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path

from launcher.drivers import process
from launcher.drivers.network import links
from launcher.drivers.network.namespaces import Namespaces
from launcher.errors import NetworkFailed, ProgramFailed
from launcher.networks import LINK_DEVICE, Network

TABLE = "nova-apart"
OUT = "out"
METADATA = "169.254.169.254"
_BEFORE_DEFRAGMENTATION = -450
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class Apart:
    """Gateways in namespaces; guests ask them for their metadata at `metadata_port`, if there is one."""

    def __init__(self, namespaces: Namespaces, *, metadata_port: int | None) -> None:
        self.namespaces, self._metadata_port = namespaces, metadata_port

    async def ensure(self, network: Network) -> None:
        """The gateway, closed until its filter is in place; the bridge is there."""
        name = network.bridge
        await self.namespaces.ensure(name)
        await self._run(name, ["nft", "-f", "-"], gateway_rules(network, self._metadata_port))
        await self._lay(network, port_name(network), name)
        await self._lay(network, network.link_device, OUT)
        await links.run_ip(host_lines(network), name)
        await self._run(name, ["ip", "-batch", "-"], "\n".join(gateway_lines(network, links.mtu_of(name))))
        self._route(name)

    def _has(self, name: str, device: str) -> bool:
        try:
            with self.namespaces.inside(name):
                return socket.if_nametoindex(device) > 0
        except OSError:
            return False

    def _route(self, name: str) -> None:
        try:
            with self.namespaces.inside(name):
                _FORWARDING.write_text("1")
        except OSError as error:
            raise NetworkFailed(f"{name}: its gateway cannot be made a router: {error.strerror}") from error

    async def remove(self, network: Network) -> None:
        for device in (port_name(network), network.link_device):
            await links.remove_ours(device)
        await self.namespaces.remove(network.bridge)

    async def _lay(self, network: Network, device: str, inner: str) -> None:
        """A cable into the namespace, and not into one that has been replaced."""
        links.check_ours(device)
        if not (links.exists(device) and self._has(network.bridge, inner)):
            await links.remove(device)
            peer = f"peer name {inner} address {gateway_mac(network)} netns {self.namespaces.path(network.bridge)}"
            await links.run_ip([f"link add {device} type veth {peer}"], device)

    async def _run(self, name: str, argv: list[str], text: str) -> None:
        try:
            await process.run(self.namespaces.command(name, *argv), stdin=text)
        except ProgramFailed as error:
            raise NetworkFailed(f"{name}: its gateway is not as it should be: {error}") from error


def gateway_mac(network: Network) -> str:
    """The same again where a namespace was lost, or guests would go on sending to the old one."""
    return f"02:17:3e:00:{(network.apart or 0) >> 8:02x}:{(network.apart or 0) & 255:02x}"


def port_name(network: Network) -> str:
    """The gateway's way onto the bridge."""
    return f"nova-port{network.apart}"


def host_lines(network: Network) -> list[str]:
    return [
        f"link set dev {port_name(network)} alias {links.MARK} master {network.bridge} up",
        f"link set dev {network.link_device} alias {links.MARK} up",
        f"address replace {network.link[0]}/31 dev {network.link_device}",
    ]


def gateway_lines(network: Network, mtu: int) -> list[str]:
    """For ip(8), in the namespace. What fits through the bridge is not fragmented on the way."""
    six = network.gateway6_interface
    return [
        "link set dev lo up",
        f"link set dev {network.bridge} mtu {mtu} up",
        f"link set dev {OUT} up",
        f"address replace {network.gateway_interface} brd + dev {network.bridge}",
        *([f"address replace {six} dev {network.bridge} nodad"] if six else []),
        f"address replace {network.link[1]}/31 dev {OUT}",
        f"route replace default via {network.link[0]}",
    ]


def gateway_rules(network: Network, metadata_port: int | None) -> str:
    """For nft, in the namespace: the gateway's services and nothing else, and nobody's own addresses cross the link.

    Flushed, not made anew: a chain that drops what no rule lets through is hooked in before its rules are.
    """
    bridge, six = network.bridge, network.gateway6_interface
    services = [
        f"ip daddr {network.gateway} meta l4proto {{ tcp, udp }} th dport 53 accept",
        f"ip daddr {network.gateway} icmp type echo-request accept",
    ]
    if six:
        services.append(f"ip6 daddr {six.ip} meta l4proto {{ tcp, udp }} th dport 53 accept")
        services.append(f"ip6 daddr {six.ip} icmpv6 type echo-request accept")
    redirect = ""
    if metadata_port:
        services.append(f"ip daddr {network.gateway} tcp dport {metadata_port} accept")
        redirect = f'iifname "{bridge}" ip daddr {METADATA} tcp dport 80 redirect to :{metadata_port}'
    lines = "\n\t\t".join(services)
    return f"""\
add table inet {TABLE}
flush table inet {TABLE}
table inet {TABLE} {{
	chain input {{
		type filter hook input priority 0; policy drop;
		ct state established,related accept
		iifname lo accept
		iifname != "{bridge}" drop
		meta nfproto ipv4 udp sport 68 udp dport 67 accept
		meta nfproto ipv6 udp sport 546 udp dport 547 accept
		icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report }} accept
		{lines}
	}}
	chain forward {{
		type filter hook forward priority 0; policy drop;
		iifname "{OUT}" ip saddr {network.cidr} drop
		ct state established,related accept
		ct status dnat accept
		iifname "{bridge}" oifname "{OUT}" ip saddr {network.cidr} accept
	}}
	chain prerouting {{
		type nat hook prerouting priority -100; policy accept;
		{redirect}
	}}
	chain leaving {{
		type filter hook postrouting priority 200; policy accept;
		oifname "{OUT}" ip saddr {network.cidr} drop
	}}
}}
"""


# --- the seal of a bridge, on every host ----------------------------------------------------------------


async def seal(network: Network) -> None:
    """Keep the bridge's packets out of this host's IP, and its flows in a zone; repeating it is success.

    What the gateway sends on for its guests may be for anybody but the host.
    """
    try:
        await process.run(["nft", "-f", "-"], stdin=seal_text(network))
    except ProgramFailed as error:
        if "File exists" not in str(error):
            raise _unsealed(network.bridge, error) from error
        await unseal(network.bridge)  # it was another network's, in another zone
        await _nft(seal_text(network), network.bridge)


async def unseal(bridge: str) -> None:
    """The bridge goes; absent is success. The last one takes the tables along."""
    zones = await _list_zones()
    if bridge not in zones:
        return
    # The chain goes with its device, so it may be gone already.
    chain = f"add chain netdev {TABLE} {bridge}\ndelete chain netdev {TABLE} {bridge}\n"
    text = f'add table netdev {TABLE}\n{chain}delete element inet {TABLE} zones {{ "{bridge}" }}\n'
    if len(zones) == 1:
        text = f"add table netdev {TABLE}\ndelete table netdev {TABLE}\ndelete table inet {TABLE}\n"
    await _nft(text, bridge)


def seal_text(network: Network) -> str:
    bridge = network.bridge
    return f"""\
add table inet {TABLE}
add map inet {TABLE} zones {{ typeof iifname : ct zone; }}
add chain inet {TABLE} prerouting {{ type filter hook prerouting priority {_BEFORE_DEFRAGMENTATION}; policy accept; }}
flush chain inet {TABLE} prerouting
add rule inet {TABLE} prerouting ct zone set iifname map @zones
add chain inet {TABLE} input {{ type filter hook input priority -1; policy accept; }}
flush chain inet {TABLE} input
add rule inet {TABLE} input iifname "{LINK_DEVICE}*" ct state != {{ established, related }} drop
add element inet {TABLE} zones {{ "{bridge}" : {network.zone} }}
add table netdev {TABLE}
add chain netdev {TABLE} {bridge} {{ type filter hook ingress device "{bridge}" priority -500; policy drop; }}
"""


async def _list_zones() -> Mapping[str, int]:
    """Which bridges are sealed."""
    try:
        said = await process.run(["nft", "-j", "list", "map", "inet", TABLE, "zones"])
    except ProgramFailed as error:
        if "No such file" in str(error):
            return {}
        raise NetworkFailed(f"the table {TABLE} cannot be read: {error}") from error
    found = next(each["map"] for each in json.loads(said)["nftables"] if "map" in each)
    return {bridge: int(zone) for bridge, zone in found.get("elem", ())}


async def _nft(text: str, bridge: str) -> None:
    try:
        await process.run(["nft", "-f", "-"], stdin=text)
    except ProgramFailed as error:
        raise _unsealed(bridge, error) from error


def _unsealed(bridge: str, error: ProgramFailed) -> NetworkFailed:
    return NetworkFailed(
        f"{bridge}: cannot be kept apart from a network with the same addresses: {error}",
        hint="`launcher doctor` tells what the kernel lacks",
    )
