"""The packet filter of the instances as text for iptables-restore: pure, from what is there to what has to change.

    FORWARD, OUTPUT ─► nova-local ─(to br100, 10.0.0.3)─► nova-inst-1 ─► nova-sg-7 ─► nova-from-9
                           │                                   └────────► nova-fallback drops what nobody accepted
                           └(from a bridge's port)─► nova-out ─(tap)─► nova-free, nova-out-1 ─► nova-eg-7 ─► nova-to-9
                                                        └(tap, to its gateway on another host)─► nova-gateway
    INPUT ─(from a bridge's port)─► nova-input ─(tap)─► nova-host drops what is for the host itself and no service of it

This is the layout of the article with its mistakes mended: OUTPUT is filtered too (else the host reaches every port),
the DHCP rule accepts instead of counting, and icmp types and codes are never taken for ports. A group has a chain that
all its instances share; the members of a group that a rule names have one, too, so that a join or leave is one line.
An egress rule sets a mark, because a chain that accepts would end the way of the packet before its target is asked.

The same serves iptables and ip6tables; `six` says for which. What is sent in another's name is dropped before, by the
bridge's table (nft_rules.py). Rules are written as iptables-save prints them, so that found and wanted can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from launcher.drivers.firewall.chains import Chains, naming, on_top, play, replace, whole
from launcher.explaining import METADATA_ADDRESS, Settings
from launcher.models import InstanceRef
from launcher.networks import Network
from launcher.policy import Direction, Policy, Protocol, Rule, SecurityGroup
from launcher.ports import Port

LOCAL, FALLBACK, OUT, GATEWAY, FREE, INPUT, HOST = (
    "nova-local",
    "nova-fallback",
    "nova-out",
    "nova-gateway",
    "nova-free",
    "nova-input",
    "nova-host",
)
METADATA, INSTANCE, LIMITED = "nova-metadata", "nova-inst-", "nova-out-"
GROUPS = {Direction.INGRESS: "nova-sg-", Direction.EGRESS: "nova-eg-"}
MEMBERS = {Direction.INGRESS: "nova-from-", Direction.EGRESS: "nova-to-"}
ALLOWED = "0x8000000/0x8000000"
"""The bit of a packet's mark by which an egress rule says yes; it is clear before and after."""

NOBODY = "00000000-0000-0000-0000-000000000000"
_DROP = "-j DROP"
_ANY = "any"
_INVALID = "-m conntrack --ctstate INVALID -j DROP"
_KNOWN = "-m conntrack --ctstate RELATED,ESTABLISHED"
_LATE = "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP"
_BASE = (
    ("INPUT", f"-m physdev --physdev-is-in -j {INPUT}"),
    ("FORWARD", f"-j {LOCAL}"),
    ("OUTPUT", f"-j {LOCAL}"),
    (LOCAL, f"-m physdev --physdev-is-in -j {OUT}"),
    (FALLBACK, _DROP),
)
_GROWING = {LOCAL, OUT, INPUT}
"""The chains with rules for each instance."""


# --- what all instances need ------------------------------------------------------------------------


def base(found: Chains, *, six: bool = False) -> list[str]:
    """What is missing of the chains that every instance needs and of the jumps to them; both stay on top."""
    lines = [f":{chain} - [0:0]" for chain in (LOCAL, FALLBACK, OUT, INPUT) if chain not in found]
    lines += [line for chain, rule in _BASE for line in on_top(found, chain, rule)]
    if found.get(FREE) != _free(six):
        lines += whole(FREE, _free(six))
    host, head = found.get(HOST, []), _host(six)
    return lines if host[: len(head)] == head and host[-1:] == [_DROP] else [*lines, *whole(HOST, [*head, _DROP])]


def _free(six: bool) -> list[str]:
    """What no instance sends: RETURN is what it may."""
    # Once more than in the bridge's table, for those that came in fragments and are whole now.
    lies = [_discovery(kind, "DROP") for kind in (134, 137)] if six else []
    server = f"-p udp -m udp --sport {547 if six else 67} -j DROP"
    return [_INVALID, f"{_KNOWN} -j RETURN", _LATE, *lies, server]


def _host(six: bool) -> list[str]:
    """What an instance may ask of any host; `RETURN` leaves it to the host's own rules."""
    discovery = [_discovery(kind, "RETURN") for kind in (133, 135, 136)] if six else []
    client, server = (546, 547) if six else (68, 67)
    dhcp = f"-p udp -m udp --sport {client} --dport {server} -j RETURN"
    return [_INVALID, f"{_KNOWN} -j RETURN", _LATE, dhcp, *discovery]


def open_services(found: Chains, network: Network, settings: Settings, *, six: bool = False) -> list[str]:
    """What the instances of a network that is served here may ask of its gateway: names, metadata, ping."""
    gateway = _gateway(network, six)
    if gateway is None:
        return []
    lines = base(found, six=six)
    host, head = play(found, "\n".join(lines))[HOST], _host(six)
    others = host[len(head) : -1]
    kept = [rule for rule in others if gateway not in rule.split()]
    services = _services(gateway, settings, six)
    if [rule for rule in others if rule not in kept] == services:
        return lines
    return [*lines, *whole(HOST, [*head, *kept, *services, _DROP])]


def _services(gateway: str, settings: Settings, six: bool) -> list[str]:
    ports = [("udp", 53), ("tcp", 53)]
    ports += [("tcp", settings.metadata_port)] if settings.metadata_port and not six else []
    services = [f"-d {gateway} -p {protocol} -m {protocol} --dport {port} -j RETURN" for protocol, port in ports]
    return [*services, f"-d {gateway} {_ping(six)} -j RETURN"]


def _of_far_gateways(gateways: Iterable[IPv4Address | IPv6Address], settings: Settings) -> list[str]:
    """What else is asked of a gateway that is not on this host, or has a namespace of its own."""
    dhcp = [f"-d {gateway}/32 -p udp -m udp --sport 68 --dport 67 -j RETURN" for gateway in gateways]
    metadata = f"-d {METADATA_ADDRESS}/32 -p tcp -m tcp --dport 80 -j RETURN"
    return [*dhcp, *([metadata] if settings.metadata_port else [])]


def _far_gateway(settings: Settings, six: bool) -> list[str]:
    """What an instance may ask of its gateway where that is not on this host; `RETURN` leaves it to what follows."""
    services = [rule.removeprefix(f"-d {_ANY} ") for rule in _services(_ANY, settings, six)]
    return [*_host(six), *services, _DROP]


def _gateway(network: Network, six: bool) -> str | None:
    if not six:
        return f"{network.gateway}/32"
    return f"{network.gateway6_interface.ip}/128" if network.gateway6_interface else None


def redirect_metadata(found: Chains, bridge: str, port: int | None) -> list[str]:
    """In the table nat: what guests send to the metadata address arrives at `port` of their gateway.

    A REDIRECT on the bridge instead of the address on the host, because a host that is itself a guest of a
    cloud needs that address for its own metadata. The guest's source address is kept.
    """
    rule = f"-d {METADATA_ADDRESS}/32 -i {bridge} -p tcp -m tcp --dport 80 -j REDIRECT --to-ports {port}"
    lines = [] if METADATA in found else [f":{METADATA} - [0:0]"]
    lines += on_top(found, "PREROUTING", f"-j {METADATA}")
    if port is None:
        return lines + [f"-D {METADATA} {old}" for old in naming(found, METADATA, {bridge})]
    return lines + replace(found, METADATA, {bridge}, [rule], check=False)


# --- instances ---------------------------------------------------------------------------------------


def apply_instance(
    found: Chains, order: InstanceRef, ports: Sequence[Port], policy: Policy, settings: Settings, *, six: bool = False
) -> list[str]:
    """Replace one instance's rules; the other instances' are neither read nor written.

    While nothing of the base is missing the transaction still asks for it (`-C`), and fails where somebody
    has flushed the table meanwhile: an instance is never left behind a filter that no packet passes. The
    chains that grow with the instances are not asked for: iptables would read them as a whole.
    """
    ports = [port for port in ports if not six or port.address6]
    chains = dict(_group_chains(policy, six)) | {GATEWAY: _far_gateway(settings, six)}
    for port in ports:
        chains[_own(order, port)] = instance_rules(port, policy, settings, six=six)
    if policy.limits_egress:
        chains[f"{LIMITED}{order.number}"] = _limited_rules(ports, policy, settings, six=six)
    lines = base(found, six=six) or [
        f"-C {chain} {rule}" for chain, rule in (*_BASE, (HOST, _DROP)) if chain not in _GROWING
    ]
    lines += _changed(found, chains)
    lines += _lead_to(found, order, ports, policy, six)
    return lines + _drop_unused(play(found, "\n".join(lines)))


def remove_instance(found: Chains, order: InstanceRef) -> list[str]:
    """Nothing of one instance stays, and no group that only it used; empty when there is nothing to remove."""
    taps, owns = _taps(found, order), _owns(found, order)
    lines = [f"-D {LOCAL} {rule}" for rule in naming(found, LOCAL, owns)]
    lines += [f"-D {chain} {rule}" for chain in (OUT, INPUT) for rule in naming(found, chain, taps)]
    lines += [f":{chain} - [0:0]" for chain in sorted(owns)] + [f"-X {chain}" for chain in sorted(owns)]
    return lines + _drop_unused(play(found, "\n".join(lines)))


def update_groups(found: Chains, policy: Policy, *, six: bool = False) -> list[str]:
    """Replace the chains of groups that are in use; empty when they are as they should be."""
    everything = _group_chains(policy, six, tuple(Direction))
    used = {chain: rules for chain, rules in everything if chain in found}
    needed = {word for rules in used.values() for rule in rules for word in rule.split()}
    wanted = used | {chain: rules for chain, rules in everything if chain in needed}
    lines = _changed(found, wanted)
    return lines + _drop_unused(play(found, "\n".join(lines)))


def leads_to(found: Chains, order: InstanceRef, port: Port) -> bool:
    """Whether the address is this instance's already."""
    return _arrival(order, port, port.address) in found.get(LOCAL, ())


def instances(found: Chains) -> dict[int, bool]:
    """The numbers in the chains' names, and whether each chain has rules and is reached."""
    reached = all(rule in found.get(chain, ()) for chain, rule in (*_BASE, (HOST, _DROP))) and bool(found.get(FREE))
    names = (chain.removeprefix(INSTANCE).partition("-")[0] for chain in found if chain.startswith(INSTANCE))
    numbers = sorted({int(name) for name in names if name.isdecimal() and name[0] != "0"})
    return {number: reached and _is_whole(found, InstanceRef(instance_id=NOBODY, number=number)) for number in numbers}


def _is_whole(found: Chains, order: InstanceRef) -> bool:
    owns, taps = [chain for chain in _owns(found, order) if chain.startswith(INSTANCE)], {order.tap}
    return all(found[own] and naming(found, LOCAL, {own}) for own in owns) and all(
        naming(found, chain, taps) for chain in (OUT, INPUT)
    )


def instance_rules(port: Port, policy: Policy, settings: Settings, *, six: bool = False) -> list[str]:
    """The chain of one NIC, in Nova's order."""
    gateway, network = (port.gateway6, port.cidr6) if six else (port.gateway, port.cidr)
    bits = 128 if six else 32
    discovery = [_discovery(kind, "ACCEPT") for kind in (135, 136)] if six else []
    discovery += [_discovery(134, "ACCEPT", "fe80::/10")] if six else []
    return [
        _INVALID,
        f"{_KNOWN} -j ACCEPT",
        *(f"-j {GROUPS[Direction.INGRESS]}{group}" for group in dict.fromkeys(group.id for group in policy.groups)),
        *discovery,
        *([] if six else [f"-s {gateway}/32 -p udp -m udp --sport 67 --dport 68 -j ACCEPT"]),
        *([f"-s {gateway}/{bits} -j ACCEPT"] if settings.allow_host_traffic and gateway else []),
        *([f"-s {network} -j ACCEPT"] if settings.allow_project_net_traffic and network else []),
        f"-j {FALLBACK}",
    ]


def _limited_rules(ports: Sequence[Port], policy: Policy, settings: Settings, *, six: bool = False) -> list[str]:
    """The chain of an instance that not everything may leave."""
    gateways = dict.fromkeys(gateway for port in ports for gateway in port.gateways if (gateway.version == 6) is six)
    clear = f"-j MARK --set-xmark 0x0/{ALLOWED.partition('/')[2]}"
    return [
        f"-j {FREE}",
        f"{_KNOWN} -j RETURN",
        *([_discovery(kind, "RETURN") for kind in (133, 135, 136, 143)] if six else []),
        *(rule for gateway in gateways for rule in _services(f"{gateway}/{gateway.max_prefixlen}", settings, six)),
        *([] if six else _of_far_gateways(gateways, settings)),
        clear,
        *(f"-j {GROUPS[Direction.EGRESS]}{group}" for group in dict.fromkeys(group.id for group in policy.groups)),
        f"-m mark ! --mark {ALLOWED} -j DROP",
        clear,
    ]


def _lead_to(found: Chains, order: InstanceRef, ports: Sequence[Port], policy: Policy, six: bool) -> list[str]:
    """The jumps to an instance's chains; whatever else there was of them goes, with chains that nothing needs now."""
    out = f"{LIMITED}{order.number}" if policy.limits_egress else FREE
    owns, taps = _owns(found, order), _taps(found, order)
    arrivals = [
        _arrival(order, port, address) for port in ports for address in port.addresses if (address.version == 6) is six
    ]
    lines = replace(found, LOCAL, owns, arrivals)
    far = [
        f"-d {gateway}/{gateway.max_prefixlen} -m physdev --physdev-in {port.tap} -j {GATEWAY}"
        for port in ports
        for gateway in port.gateways
        if (gateway.version == 6) is six
    ]
    for chain, before, target in ((OUT, far, out), (INPUT, [], HOST)):
        jumps = [f"-m physdev --physdev-in {port.tap} -j {target}" for port in ports]
        lines += replace(found, chain, taps, [*before, *jumps])
    stale = sorted(owns - {_own(order, port) for port in ports} - {out})
    return [*lines, *(f":{chain} - [0:0]" for chain in stale), *(f"-X {chain}" for chain in stale)]


def _arrival(order: InstanceRef, port: Port, address: IPv4Address | IPv6Address) -> str:
    return f"-d {address}/{address.max_prefixlen} -o {port.bridge} -j {_own(order, port)}"


def _own(order: InstanceRef, port: Port) -> str:
    return order.chain + port.tap.removeprefix(order.tap)


def _owns(found: Chains, order: InstanceRef) -> set[str]:
    """The chains of this instance alone."""
    names = {order.chain, f"{LIMITED}{order.number}"}
    return {chain for chain in found if chain in names or chain.startswith(f"{order.chain}-")}


def _taps(found: Chains, order: InstanceRef) -> set[str]:
    words = {
        rule.partition("--physdev-in ")[2].partition(" ")[0] for chain in (OUT, INPUT) for rule in found.get(chain, ())
    }
    return {word for word in words if word.partition("-")[0] == order.tap}


# --- groups ------------------------------------------------------------------------------------------


def _group_chains(
    policy: Policy, six: bool, directions: Sequence[Direction] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Of each group, and of the members that its rules name; these first, because a rule needs its target."""
    if directions is None:
        directions = tuple(Direction) if policy.limits_egress else (Direction.INGRESS,)
    for direction in directions:
        for group in policy.groups:
            for rule in group.rules_for(direction):
                if rule.group_id is not None:
                    yield f"{MEMBERS[direction]}{rule.group_id}", _members(rule, policy, six)
    for direction in directions:
        for group in policy.groups:
            yield f"{GROUPS[direction]}{group.id}", group_rules(group, direction, six=six)


def group_rules(group: SecurityGroup, direction: Direction = Direction.INGRESS, *, six: bool = False) -> list[str]:
    """A security group's chain: it accepts (or marks) or returns. A rule that means nothing is left out."""
    lines = (
        " ".join([*_end(rule.cidr, direction), *_match(rule, six), f"-j {_verdict(rule)}"])
        for rule in group.rules_for(direction)
        if rule.cidr is None or (rule.cidr.version == 6) is six
    )
    return list(dict.fromkeys(lines))


def _members(rule: Rule, policy: Policy, six: bool) -> list[str]:
    members = sorted({each for each in policy.members_of(rule) if (each.version == 6) is six})
    ends = (f"{each}/{each.max_prefixlen}" for each in members)
    return [f"{_FLAGS[rule.direction]} {end} -j {_YES[rule.direction]}" for end in ends]


_FLAGS = {Direction.INGRESS: "-s", Direction.EGRESS: "-d"}
_YES = {Direction.INGRESS: "ACCEPT", Direction.EGRESS: f"MARK --set-xmark {ALLOWED}"}


def _verdict(rule: Rule) -> str:
    return _YES[rule.direction] if rule.cidr else f"{MEMBERS[rule.direction]}{rule.group_id}"


def _end(cidr: IPv4Network | IPv6Network | None, direction: Direction) -> list[str]:
    return [f"{_FLAGS[direction]} {cidr}"] if cidr and cidr.prefixlen else []


def _match(rule: Rule, six: bool) -> list[str]:
    """The protocol's part. 0 is a port, an icmp type and a code like any other; only None is any."""
    if rule.protocol is Protocol.ANY:
        return []
    if rule.protocol is Protocol.ICMP:
        return [f"-p {'ipv6-icmp' if six else 'icmp'}", *_icmp(rule, six)]
    return [f"-p {rule.protocol}", *_ports(rule)]


def _icmp(rule: Rule, six: bool) -> list[str]:
    kind, code = rule.from_port, rule.to_port
    if kind is None:
        return []
    name = "icmp6 --icmpv6-type" if six else "icmp --icmp-type"
    return [f"-m {name} {kind}" + ("" if code is None else f"/{code}")]


def _ports(rule: Rule) -> list[str]:
    if rule.ports is None:
        return []
    low, high = rule.ports
    return [f"-m {rule.protocol} --dport {low}" + (f":{high}" if high > low else "")]


def _discovery(kind: int, target: str, source: str = "") -> str:
    return f"{f'-s {source} ' if source else ''}-p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j {target}"


def _ping(six: bool) -> str:
    return "-p ipv6-icmp -m icmp6 --icmpv6-type 128" if six else "-p icmp -m icmp --icmp-type 8"


# --- from found to wanted ----------------------------------------------------------------------------


def _changed(found: Chains, chains: dict[str, list[str]]) -> list[str]:
    """Members come and go one by one; what else has changed is written anew."""
    members = {chain: rules for chain, rules in chains.items() if chain.startswith(tuple(MEMBERS.values()))}
    lines = []
    for chain, rules in members.items():
        old = found.get(chain, [])
        lines += [] if chain in found else [f":{chain} - [0:0]"]
        lines += [f"-D {chain} {rule}" for rule in old if rule not in rules]
        lines += [f"-A {chain} {rule}" for rule in rules if rule not in old]
    changed = {chain: rules for chain, rules in chains.items() if chain not in members and found.get(chain) != rules}
    lines += [f":{chain} - [0:0]" for chain in changed]
    return lines + [f"-A {chain} {rule}" for chain, rules in changed.items() for rule in rules]


def _drop_unused(found: Chains) -> list[str]:
    """Groups that no instance is in, members whom no group names, and what no gateway is asked by."""
    is_asked = GATEWAY not in found or any(rule.endswith(f" {GATEWAY}") for rule in found.get(OUT, ()))
    lines = [] if is_asked else [f":{GATEWAY} - [0:0]", f"-X {GATEWAY}"]
    users = [rules for chain, rules in found.items() if chain.startswith((INSTANCE, LIMITED))]
    for owned in (GROUPS, MEMBERS):
        used = {word for rules in users for rule in rules for word in rule.split()[-1:]}
        chains = [chain for chain in found if chain.startswith(tuple(owned.values()))]
        users = [found[chain] for chain in chains if chain in used]
        lines += [line for chain in chains if chain not in used for line in (f":{chain} - [0:0]", f"-X {chain}")]
    return lines
