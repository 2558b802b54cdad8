"""Who may speak to whom, in nftables: pure, from what an instance is to what stands in our table of the family inet.

    table inet     forward, output ─(to bridge, address)─► in_br100_7 ─► sg_7, drop    a chain per set of groups
                   forward ─(from bridge, address)─► from_instance ─► out_any_7 ─► eg_7, drop    if egress is limited
                   input ─(from bridge, address)─► to_host

What is an instance's own are only elements of maps and sets; instances with the same groups in the same network share
their chains. So neither a packet nor a change takes longer with more instances. An address counts per bridge: the
same one may be another instance's on another bridge. Addresses stand for instances because the bridge's table
(frames.py) has seen to it that nobody sends as another, and that nothing reaches a tap that is not for its addresses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

from launcher.drivers.firewall import frames
from launcher.drivers.firewall.frames import DISCOVERY
from launcher.drivers.firewall.nft_tables import Base, Element, Elements, Place, Rules, Tables, key
from launcher.explaining import METADATA_ADDRESS, Settings
from launcher.networks import Network
from launcher.policy import Direction, Policy, Protocol, Rule, SecurityGroup
from launcher.ports import Port

INET = "inet"
DEVICE4, DEVICE6 = "type ifname . ipv4_addr", "type ifname . ipv6_addr"
ESTABLISHED = ("ct state invalid drop", "ct state established,related accept")
LATE = "tcp flags & (fin|syn|rst|ack) != syn ct state new drop"

_SETS: dict[Place, str] = {
    (INET, "in4"): f"map {{ {DEVICE4} : verdict; }}",
    (INET, "in6"): f"map {{ {DEVICE6} : verdict; }}",
    (INET, "out4"): f"map {{ {DEVICE4} : verdict; }}",
    (INET, "out6"): f"map {{ {DEVICE6} : verdict; }}",
    (INET, "own4"): f"set {{ {DEVICE4}; }}",
    (INET, "own6"): f"set {{ {DEVICE6}; }}",
    (INET, "gateways4"): f"set {{ {DEVICE4}; }}",
    (INET, "gateways6"): f"set {{ {DEVICE6}; }}",
    (INET, "metadata"): "map { type ifname : inet_service; }",
}

_HOOKS: dict[Place, str] = {
    # Two chains at one hook: what one accepts the other still looks at.
    (INET, "departures"): "{ type filter hook forward priority -2; policy accept; }",
    (INET, "arrivals"): "{ type filter hook forward priority -1; policy accept; }",
    (INET, "output"): "{ type filter hook output priority -1; policy accept; }",
    (INET, "input"): "{ type filter hook input priority -1; policy accept; }",
    (INET, "prerouting"): "{ type nat hook prerouting priority -100; policy accept; }",
}
_ARRIVALS = ("oifname . ip daddr vmap @in4", "oifname . ip6 daddr vmap @in6")


def base(settings: Settings) -> Base:
    return Base((INET,), _SETS, _chains(settings), _HOOKS)


def _chains(settings: Settings) -> dict[Place, Rules]:
    return {
        (INET, "from_instance"): (
            *ESTABLISHED,
            LATE,
            # Once more, for those that came in fragments and are whole now.
            "meta nfproto ipv4 udp sport 67 drop",
            "meta nfproto ipv6 udp sport 547 drop",
            "icmpv6 type { nd-router-advert, nd-redirect } drop",
            f"icmpv6 type {{ nd-router-solicit, {DISCOVERY}, mld2-listener-report }} accept",
            # To a gateway that is not on this host, or has a namespace of its own.
            "iifname . ip daddr @gateways4 goto services4",
            "iifname . ip6 daddr @gateways6 goto services6",
            *([f"ip daddr {METADATA_ADDRESS} tcp dport 80 accept"] if settings.metadata_port else []),
            f"ip daddr {METADATA_ADDRESS} drop",
            "iifname . ip saddr vmap @out4",
            "iifname . ip6 saddr vmap @out6",
            "accept",
        ),
        (INET, "to_host"): (
            *ESTABLISHED,
            LATE,
            "meta nfproto ipv4 udp sport 68 udp dport 67 accept",
            "meta nfproto ipv6 udp sport 546 udp dport 547 accept",
            f"icmpv6 type {{ nd-router-solicit, {DISCOVERY} }} accept",
            "iifname . ip daddr @gateways4 goto services4",
            "iifname . ip6 daddr @gateways6 goto services6",
            "drop",
        ),
        (INET, "services4"): (
            "meta l4proto { tcp, udp } th dport 53 accept",
            *([f"tcp dport {settings.metadata_port} accept"] if settings.metadata_port else []),
            "icmp type echo-request accept",
            "udp sport 68 udp dport 67 accept",
            "drop",
        ),
        (INET, "services6"): (
            "meta l4proto { tcp, udp } th dport 53 accept",
            "icmpv6 type echo-request accept",
            "drop",
        ),
        (INET, "departures"): (
            "iifname . ip saddr @own4 goto from_instance",
            "iifname . ip6 saddr @own6 goto from_instance",
        ),
        (INET, "arrivals"): _ARRIVALS,
        (INET, "output"): _ARRIVALS,
        (INET, "input"): (
            "iifname . ip saddr @own4 goto to_host",
            "iifname . ip6 saddr @own6 goto to_host",
        ),
        (INET, "prerouting"): (f"ip daddr {METADATA_ADDRESS} tcp dport 80 redirect to :iifname map @metadata",),
    }


def put_network(tables: Tables, network: Network, settings: Settings) -> None:
    """What guests of this network send to the metadata address arrives at their gateway, with their own source address.

    A redirection on the bridge instead of the address on the host, because a host that is itself a guest of a cloud
    needs that address for its own metadata.
    """
    place, name = (INET, "metadata"), key(network.bridge)
    if settings.metadata_port is not None and network.apart is None:
        tables.put_element(place, name, Element(str(settings.metadata_port)))
    elif name in tables.elements[place]:
        tables.drop_element(place, name)


def put_instance(
    tables: Tables, tap: str, ports: Sequence[Port], policy: Policy, settings: Settings, guard: Base = frames.BASE
) -> None:
    """An instance's elements, as a whole, and the chains that they lead to. `tap` is its first NIC's."""
    directions = tuple(Direction) if policy.limits_egress else (Direction.INGRESS,)
    for group in policy.groups:
        _put_group(tables, group, policy, directions)
    for port in ports:
        tables.put_chain(_arrival_chain(port, policy), _arrival_rules(port, policy, settings))
    if policy.limits_egress:
        tables.put_chain(_departure_chain(policy), _departure_rules(policy))
    tables.put_owned(tap, frames.elements(ports, guard) | elements(ports, policy))
    drop_unused(tables)


def remove_instance(tables: Tables, tap: str) -> None:
    tables.put_owned(tap, {})
    drop_unused(tables)


def drop_unused(tables: Tables) -> None:
    """Chains that no instance is led to, then groups' chains and sets that none of the others names."""
    tables.drop_unused(INET, ("in_", "out_", "sg_", "eg_", "@members"))


def has_instance(tables: Tables, tap: str, guard: Base) -> bool:
    """Whether the instance has what every one needs, and is led to a chain that has rules."""
    owned = dict(tables.owned(tap))
    if not {(INET, "own4"), (INET, "in4")} <= owned.keys() or not frames.is_guarded(tables, tap, guard):
        return False
    verdict = tables.elements[INET, "in4"][owned[INET, "in4"]].verdict
    return bool(tables.chains.get((INET, verdict.partition(" ")[2])))


def newcomers(tables: Tables, ports: Iterable[Port]) -> list[Port]:
    """Those whose address is not known to be theirs."""
    owned = tables.elements.get((INET, "own4"), {})
    return [port for port in ports if owned.get(key(port.bridge, port.address)) != Element(tap=port.tap)]


def elements(ports: Iterable[Port], policy: Policy) -> Elements:
    return dict(element for port in ports for element in _elements(port, policy))


def _elements(port: Port, policy: Policy) -> Iterator[tuple[tuple[Place, str], Element]]:
    arrival, departure = f"goto {_arrival_chain(port, policy)[1]}", f"goto {_departure_chain(policy)[1]}"
    for address in port.addresses:
        name, family = key(port.bridge, address), address.version
        yield ((INET, f"own{family}"), name), Element(tap=port.tap)
        yield ((INET, f"in{family}"), name), Element(arrival, port.tap)
        if policy.limits_egress:
            yield ((INET, f"out{family}"), name), Element(departure, port.tap)
    for gateway in port.gateways:
        yield ((INET, f"gateways{gateway.version}"), key(port.bridge, gateway)), Element()


# --- groups ----------------------------------------------------------------------------------------


def put_groups(tables: Tables, policy: Policy) -> None:
    """The rules and members of groups that are in use here."""
    for group in policy.groups:
        directions = [direction for direction in Direction if _group_chain(group, direction) in tables.chains]
        _put_group(tables, group, policy, directions)
    for number, members in policy.members.items():
        _put_members(tables, number, members)
    drop_unused(tables)


def _put_group(tables: Tables, group: SecurityGroup, policy: Policy, directions: Iterable[Direction]) -> None:
    for direction in directions:
        for rule in group.rules_for(direction):
            if rule.group_id is not None:
                for family in (4, 6):
                    tables.put_set(_members(rule.group_id, family), f"set {{ type ipv{family}_addr; }}")
                _put_members(tables, rule.group_id, policy.members_of(rule))
        tables.put_chain(_group_chain(group, direction), group_rules(group, direction))


def _put_members(tables: Tables, number: int, members: Iterable[IPv4Address | IPv6Address]) -> None:
    """A member more or less is an element more or less; nothing where no rule names the group."""
    for family in (4, 6):
        place = _members(number, family)
        if place in tables.elements:
            tables.put_all(place, tuple(member for member in members if member.version == family))


def group_rules(group: SecurityGroup, direction: Direction) -> Rules:
    """A security group's chain: it accepts or returns. What means nothing is left out."""
    lines = (line for rule in group.rules_for(direction) for line in _accept(rule))
    return tuple(dict.fromkeys(lines))


def _accept(rule: Rule) -> Iterator[str]:
    end = "saddr" if rule.direction is Direction.INGRESS else "daddr"
    for family, protocol in ((4, "ip"), (6, "ip6")):
        if rule.group_id is not None:
            yield f"{protocol} {end} @{_members(rule.group_id, family)[1]} {_match(rule, family)}"
        elif rule.cidr is not None and rule.cidr.version == family:
            narrow = f"{protocol} {end} {rule.cidr}" if rule.cidr.prefixlen else f"meta nfproto ipv{family}"
            yield f"{narrow} {_match(rule, family)}"


def _match(rule: Rule, family: int) -> str:
    """The protocol's part. 0 is a port, an icmp type and a code like any other; only None is any."""
    if rule.protocol is Protocol.ANY:
        return "accept"
    if rule.protocol is Protocol.ICMP:
        return " ".join([*_icmp(rule, "icmp" if family == 4 else "icmpv6"), "accept"])
    if rule.ports is None:
        return f"meta l4proto {rule.protocol} accept"
    low, high = rule.ports
    return f"{rule.protocol} dport {low if low == high else f'{low}-{high}'} accept"


def _icmp(rule: Rule, protocol: str) -> list[str]:
    fields = (("type", rule.from_port), ("code", rule.to_port))
    numbers = [f"{protocol} {name} {number}" for name, number in fields if number is not None]
    return numbers or [f"meta l4proto {'icmp' if protocol == 'icmp' else 'ipv6-icmp'}"]


# --- chains ----------------------------------------------------------------------------------------


def _arrival_rules(port: Port, policy: Policy, settings: Settings) -> Rules:
    host = [f"{_ip(gateway)} saddr {gateway} accept" for gateway in port.gateways]
    networks = (port.cidr, port.cidr6) if port.address6 else (port.cidr,)
    network = [f"{_ip(each.network_address)} saddr {each} accept" for each in networks if each]
    discovery = (
        f"icmpv6 type {{ {DISCOVERY} }} accept",
        "ip6 saddr fe80::/10 icmpv6 type nd-router-advert accept",
    )
    return (
        *ESTABLISHED,
        f"ip saddr {port.gateway} udp sport 67 udp dport 68 accept",
        *(discovery if port.address6 else ()),
        *(host if settings.allow_host_traffic else ()),
        *(network if settings.allow_project_net_traffic else ()),
        *(f"jump {_group_chain(group, Direction.INGRESS)[1]}" for group in policy.groups),
        "drop",
    )


def _departure_rules(policy: Policy) -> Rules:
    return (*(f"jump {_group_chain(group, Direction.EGRESS)[1]}" for group in policy.groups), "drop")


def _arrival_chain(port: Port, policy: Policy) -> Place:
    return INET, _named("in", port.bridge, policy)


def _departure_chain(policy: Policy) -> Place:
    return INET, _named("out", "any", policy)


def _named(prefix: str, bridge: str, policy: Policy) -> str:
    """By what decides the chain's content: the network and the groups, in their order."""
    name = "_".join([prefix, bridge, *(str(group.id) for group in policy.groups)])
    return name if len(name) <= 100 else f"{prefix}_{bridge}_{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _group_chain(group: SecurityGroup, direction: Direction) -> Place:
    return INET, f"sg_{group.id}" if direction is Direction.INGRESS else f"eg_{group.id}"


def _members(number: int, family: int) -> Place:
    return INET, f"members{family}_{number}"


def _ip(address: IPv4Address | IPv6Address) -> str:
    return "ip" if address.version == 4 else "ip6"
