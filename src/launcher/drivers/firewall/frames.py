"""What instances send and get on the bridge, in nftables: nothing in another's name, and only what is for them. Pure.

    from a tap    (tap, MAC) of the sender, then by kind: ARP, IPv4, IPv6 with addresses that are the tap's
    to a tap      ARP, what is for its addresses, and the DHCP server's and IPv6's announcements to all

Nothing else passes: no other kind of frame, so no tagged one either. It is asked before bridge-netfilter hands a packet
to the filters of IP; these may therefore take an address for the instance that has it.

No rule looks into an anonymous map: its elements end with the transaction that writes the chain anew, and a packet that
is in the chain at that moment would find nothing, and be dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address

from launcher.drivers.firewall.nft_tables import Base, Element, Elements, Place, Tables, key
from launcher.ports import Port

BRIDGE = "bridge"
DISCOVERY = "nd-neighbor-solicit, nd-neighbor-advert"
_ADVERTISED = "icmpv6 type nd-neighbor-advert iifname . @nh,384,128 != @advertised drop"

_SETS = {
    (BRIDGE, "taps"): "set { type ifname; }",
    (BRIDGE, "taps6"): "set { type ifname; }",
    (BRIDGE, "macs"): "set { type ifname . ether_addr; }",
    (BRIDGE, "own4"): "set { type ifname . ipv4_addr; }",
    (BRIDGE, "own6"): "set { type ifname . ipv6_addr; }",
    (BRIDGE, "advertised"): "set { typeof iifname . @nh,384,128; }",
    (BRIDGE, "servers"): "set { type ifname . ipv4_addr; }",
}
_HOOKS = {
    (BRIDGE, hook): f"{{ type filter hook {hook} priority -200; policy accept; }}"
    for hook in ("prerouting", "forward", "output")
}
_CHAINS = {
    (BRIDGE, "from_arp"): (
        "iifname . arp saddr ether != @macs drop",
        "iifname . arp saddr ip @own4 accept",
        "drop",
    ),
    (BRIDGE, "from_ip4"): (
        "udp sport 67 drop",
        "iifname . ip saddr @own4 accept",
        "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept",
        "drop",
    ),
    (BRIDGE, "from_ip6"): (
        "iifname != @taps6 drop",
        "icmpv6 type { nd-router-advert, nd-redirect } drop",
        "udp sport 547 drop",
        _ADVERTISED,
        "iifname . ip6 saddr @own6 accept",
        "ip6 saddr :: icmpv6 type { nd-router-solicit, nd-neighbor-solicit, mld2-listener-report } accept",
        "drop",
    ),
    (BRIDGE, "from_tap"): (
        "iifname . ether saddr != @macs drop",
        "ether type arp goto from_arp",
        "ether type ip goto from_ip4",
        "ether type ip6 goto from_ip6",
        "drop",
    ),
    (BRIDGE, "to_ip4"): (
        "oifname . ip daddr @own4 accept",
        "ip daddr 255.255.255.255 oifname . ip saddr @servers udp sport 67 udp dport 68 accept",
        "drop",
    ),
    (BRIDGE, "to_ip6"): (
        "oifname . ip6 daddr @own6 accept",
        f"oifname @taps6 ip6 daddr ff00::/8 icmpv6 type {{ {DISCOVERY} }} accept",
        "oifname @taps6 ip6 daddr ff00::/8 ip6 saddr fe80::/10 icmpv6 type nd-router-advert accept",
        "drop",
    ),
    (BRIDGE, "to_tap"): (
        "ether type arp accept",
        "ether type ip goto to_ip4",
        "ether type ip6 goto to_ip6",
        "drop",
    ),
    (BRIDGE, "prerouting"): ("iifname @taps goto from_tap",),
    (BRIDGE, "forward"): ("oifname @taps goto to_tap",),
    (BRIDGE, "output"): ("oifname @taps goto to_tap",),
}
BASE = Base((BRIDGE,), _SETS, _CHAINS, _HOOKS)
ADVERTISED = Base(
    (BRIDGE,),
    {place: kind for place, kind in _SETS.items() if place[1] in ("taps6", "advertised")},
    {(BRIDGE, "prerouting"): (f"iifname @taps6 {_ADVERTISED}",)},
    {(BRIDGE, "prerouting"): _HOOKS[BRIDGE, "prerouting"]},
)
"""The one thing that libvirt's nwfilter cannot look at; the rest is its own."""


def elements(ports: Iterable[Port], base: Base) -> Elements:
    """Those that the base has a set for."""
    return dict(found for port in ports for found in _elements(port) if found[0][0] in base.sets)


def _elements(port: Port) -> Iterator[tuple[tuple[Place, str], Element]]:
    own = Element(tap=port.tap)
    yield ((BRIDGE, "taps"), key(port.tap)), own
    yield ((BRIDGE, "macs"), key(port.tap, port.mac)), own
    yield ((BRIDGE, "servers"), key(port.tap, port.gateway)), own
    if port.address6:
        yield ((BRIDGE, "taps6"), key(port.tap)), own
    for address in port.addresses:
        yield ((BRIDGE, f"own{address.version}"), key(port.tap, address)), own
        if isinstance(address, IPv6Address):
            yield ((BRIDGE, "advertised"), key(port.tap, f"0x{int(address):032x}")), own


def is_guarded(tables: Tables, tap: str, base: Base) -> bool:
    """Whether the instance with this first NIC has what every one needs."""
    needed = {(BRIDGE, "taps"), (BRIDGE, "macs"), (BRIDGE, "own4")} & base.sets.keys()
    return needed <= {place for place, _ in tables.owned(tap)}
