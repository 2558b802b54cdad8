"""The packet filter of the instances as text for iptables-restore: pure, from what is there to what has to change.

    FORWARD, OUTPUT ─► nova-local ─(to 10.0.0.3)─► nova-inst-1 ─► nova-sg-7     one chain per security group, shared
    INPUT, nova-local ─► nova-spoof                    └────────► nova-fallback drops what nobody accepted
    INPUT ─► nova-input ─(from its tap)─► nova-host drops what is for the host itself and no service of a network

This is the layout of the article with its mistakes mended: OUTPUT is filtered too (else the host reaches every port),
the DHCP rule accepts instead of counting, and icmp types and codes are never taken for ports.

nova-spoof drops what leaves a tap with a source address other than its own; MAC and ARP spoofing are not looked at
yet. Whatever else a guest sends is free until it reaches another guest, or the host: nova-host lets pass answers,
DHCP, DNS and the metadata service, which `ensure_base` opens for the networks served here, and leaves these to the
host's own rules.

Rules are written as iptables-save prints them, so that what is found can be compared with what is wanted.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from launcher.errors import FirewallFailed
from launcher.models import InstanceRef, LaunchOrder
from launcher.networks import FixedIp, Network, NetworkMode
from launcher.policy import Direction, Policy, Protocol, Rule, SecurityGroup

Chains = dict[str, list[str]]
"""A table: each chain's rules in order, without the leading `-A chain`."""

LOCAL, SPOOF, FALLBACK, METADATA = "nova-local", "nova-spoof", "nova-fallback", "nova-metadata"
INPUT, HOST = "nova-input", "nova-host"
INSTANCE, GROUP = "nova-inst-", "nova-sg-"
METADATA_ADDRESS = "169.254.169.254"

_FROM_A_PORT_OF_A_BRIDGE = f"-m physdev --physdev-is-in -j {SPOOF}"
_DHCP_REQUEST = "-s 0.0.0.0/32 -d 255.255.255.255/32 -p udp -m udp --sport 68 --dport 67 -j RETURN"
_DROP = "-j DROP"
_ANSWERS = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
_TOPS = (
    ("INPUT", f"-m physdev --physdev-is-in -j {INPUT}"),
    (INPUT, _FROM_A_PORT_OF_A_BRIDGE),
    ("FORWARD", f"-j {LOCAL}"),
    ("OUTPUT", f"-j {LOCAL}"),
    (LOCAL, _FROM_A_PORT_OF_A_BRIDGE),
    (SPOOF, _DHCP_REQUEST),
    (FALLBACK, _DROP),
)
_GROWING = {LOCAL, SPOOF, INPUT}
"""The chains with rules for each instance."""


def play(chains: Chains, text: str) -> Chains:
    """What `chains` becomes by `text`, which is a transaction for iptables-restore or the output of iptables-save."""
    after = {chain: list(rules) for chain, rules in chains.items()}
    for line in text.split("\n"):
        verb, chain, rule = ([*line.split(maxsplit=2), "", "", ""])[:3]
        rule = " ".join(rule.split())
        if verb.startswith(":"):
            after[verb[1:]] = []
        elif verb == "-A":
            after.setdefault(chain, []).append(rule)
        elif verb == "-I":
            after.setdefault(chain, []).insert(0, rule)
        elif verb == "-D":
            after[chain].remove(rule)
        elif verb == "-X":
            del after[chain]
    return after


def transaction(table: str, lines: Iterable[str]) -> str:
    return "\n".join((f"*{table}", *lines, "COMMIT\n"))


def base(found: Chains) -> list[str]:
    """What is missing of the chains that every instance needs and of the jumps to them; both stay on top."""
    lines = [f":{chain} - [0:0]" for chain in (LOCAL, SPOOF, FALLBACK, INPUT) if chain not in found]
    lines += [line for chain, rule in _TOPS for line in _on_top(found, chain, rule)]
    host = found.get(HOST, [])
    return lines if host[:1] == [_ANSWERS] and host[-1:] == [_DROP] else [*lines, *_whole(HOST, (_ANSWERS, _DROP))]


def open_services(found: Chains, network: Network, metadata_port: int | None) -> list[str]:
    """What the guests of a network that is served here may ask of this host: addresses, names, metadata."""
    lines = base(found)
    host, gateway = play(found, "\n".join(lines))[HOST], f"{network.gateway}/32"
    kept = [rule for rule in host[1:-1] if not {gateway, network.bridge} & set(rule.split())]
    served = network.mode is not NetworkMode.FLAT
    services = [f"-i {network.bridge} -p udp -m udp --dport 67 -j RETURN"] if served else []
    ports = [("udp", 53), ("tcp", 53)] if served else []
    ports += [("tcp", metadata_port)] if metadata_port else []
    services += [f"-d {gateway} -p {protocol} -m {protocol} --dport {port} -j RETURN" for protocol, port in ports]
    wanted = [_ANSWERS, *kept, *services, _DROP]
    return lines if sorted(wanted) == sorted(host) else [*lines, *_whole(HOST, wanted)]


def apply_instance(
    found: Chains, order: LaunchOrder, address: FixedIp, policy: Policy, *, allow_project: bool
) -> list[str]:
    """Replace one instance's rules; the other instances' are neither read nor written.

    While nothing of the base is missing the transaction still asks for it (`-C`), and fails where somebody
    has flushed the table meanwhile: an instance is never left behind a filter that no packet passes. The
    chains that grow with the instances are not asked for: iptables would read them as a whole.
    """
    own = order.chain
    chains = {f"{GROUP}{group.id}": group_rules(group, policy) for group in policy.groups}
    chains = {chain: rules for chain, rules in chains.items() if found.get(chain) != rules}
    chains[own] = instance_rules(address, policy, allow_project=allow_project)
    checked = (*_TOPS, (HOST, _DROP))
    lines = base(found) or [f"-C {chain} {rule}" for chain, rule in checked if chain not in _GROWING]
    lines += [f":{chain} - [0:0]" for chain in chains]
    lines += [f"-A {chain} {rule}" for chain, rules in chains.items() for rule in rules]
    lines += _replace(found, LOCAL, {own, f"{address.address}/32"}, f"-d {address.address}/32 -j {own}")
    guard = f"! -s {address.address}/32 -m physdev --physdev-in {order.tap} -j DROP"
    lines += _replace(found, SPOOF, {order.tap}, guard)
    lines += _replace(found, INPUT, {order.tap}, f"-m physdev --physdev-in {order.tap} -j {HOST}")
    return lines + _drop_unused_groups(play(found, "\n".join(lines)))


def leads_to(found: Chains, order: InstanceRef, address: FixedIp) -> bool:
    """Whether the address is this instance's already."""
    return f"-d {address.address}/32 -j {order.chain}" in found.get(LOCAL, ())


def remove_instance(found: Chains, order: InstanceRef) -> list[str]:
    """Nothing of one instance stays, and no group that only it used; empty when there is nothing to remove."""
    own = order.chain
    lines = [f":{own} - [0:0]"] if own in found else []
    lines += [f"-D {LOCAL} {rule}" for rule in _naming(found, LOCAL, {own})]
    lines += [f"-D {chain} {rule}" for chain in (SPOOF, INPUT) for rule in _naming(found, chain, {order.tap})]
    lines += [f"-X {own}"] if own in found else []
    return lines + _drop_unused_groups(play(found, "\n".join(lines)))


def update_groups(found: Chains, policy: Policy) -> list[str]:
    """Replace the chains of groups that are in use; empty when they are as they should be."""
    chains = {f"{GROUP}{group.id}": group_rules(group, policy) for group in policy.groups}
    changed = {chain: rules for chain, rules in chains.items() if chain in found and found[chain] != rules}
    lines = [f":{chain} - [0:0]" for chain in changed]
    return lines + [f"-A {chain} {rule}" for chain, rules in changed.items() for rule in rules]


def instance_rules(address: FixedIp, policy: Policy, *, allow_project: bool) -> list[str]:
    """The instance's own chain, in Nova's order."""
    groups = dict.fromkeys(group.id for group in policy.groups)
    network = address.network
    return [
        "-m conntrack --ctstate INVALID -j DROP",
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        *(f"-j {GROUP}{group}" for group in groups),
        f"-s {network.gateway}/32 -p udp -m udp --sport 67 --dport 68 -j ACCEPT",
        *([f"-s {network.cidr} -j ACCEPT"] if allow_project else []),
        f"-j {FALLBACK}",
    ]


def group_rules(group: SecurityGroup, policy: Policy) -> list[str]:
    """A security group's chain: it accepts or returns. Raises FirewallFailed for a rule that means nothing."""
    incoming = (rule for rule in group.rules if rule.direction is Direction.INGRESS)
    return list(dict.fromkeys(line for rule in incoming for line in _accept(rule, policy)))


def redirect_metadata(found: Chains, bridge: str, port: int | None) -> list[str]:
    """In the table nat: what guests send to the metadata address arrives at `port` of their gateway.

    A REDIRECT on the bridge instead of the address on the host, because a host that is itself a guest of a
    cloud needs that address for its own metadata. The guest's source address is kept.
    """
    rule = f"-d {METADATA_ADDRESS}/32 -i {bridge} -p tcp -m tcp --dport 80 -j REDIRECT --to-ports {port}"
    lines = [] if METADATA in found else [f":{METADATA} - [0:0]"]
    lines += _on_top(found, "PREROUTING", f"-j {METADATA}")
    if port is None:
        return lines + [f"-D {METADATA} {old}" for old in _naming(found, METADATA, {bridge})]
    return lines + _replace(found, METADATA, {bridge}, rule, check=False)


def refuse_ipv6(found: Chains, bridge: str) -> list[str]:
    """In the table filter of IPv6: no packet in or out, because no security group's rule can speak of IPv6."""
    lines = [] if LOCAL in found else [f":{LOCAL} - [0:0]"]
    for chain in ("INPUT", "FORWARD", "OUTPUT"):
        lines += _on_top(found, chain, f"-j {LOCAL}")
    drops = (f"-i {bridge} -j DROP", f"-o {bridge} -j DROP")
    return lines + [f"-A {LOCAL} {drop}" for drop in drops if drop not in found.get(LOCAL, ())]


def instances(found: Chains) -> dict[int, bool]:
    """The numbers in the chains' names, and whether each chain has rules and is reached."""
    reached = all(rule in found.get(chain, ()) for chain, rule in (*_TOPS, (HOST, _DROP)))
    names = (chain.removeprefix(INSTANCE) for chain in found if chain.startswith(INSTANCE))
    numbers = sorted(int(name) for name in names if name.isdecimal() and name[0] != "0")
    return {number: reached and _leads_there(found, number) for number in numbers}


def _leads_there(found: Chains, number: int) -> bool:
    own, tap = f"{INSTANCE}{number}", f"tap{number:08x}"
    ways = ((LOCAL, own), (SPOOF, tap), (INPUT, tap))
    return bool(found.get(own)) and all(_naming(found, chain, {word}) for chain, word in ways)


def _whole(chain: str, rules: Iterable[str]) -> list[str]:
    """The lines that make these the chain's only rules."""
    return [f":{chain} - [0:0]", *(f"-A {chain} {rule}" for rule in rules)]


def _on_top(found: Chains, chain: str, rule: str) -> list[str]:
    """The lines that make `rule` the chain's first; none when it is."""
    rules = found.get(chain, [])
    if rules[:1] == [rule]:
        return []
    return [*(f"-D {chain} {old}" for old in rules if old == rule), f"-I {chain} {rule}"]


def _replace(found: Chains, chain: str, words: set[str], rule: str, *, check: bool = True) -> list[str]:
    """The lines that leave `rule` as the chain's only one naming any of `words`."""
    old = _naming(found, chain, words)
    if old == [rule]:
        return [f"-C {chain} {rule}"] if check else []
    return [*(f"-D {chain} {each}" for each in old), f"-A {chain} {rule}"]


def _naming(found: Chains, chain: str, words: set[str]) -> list[str]:
    """The chain's rules with one of `words` as a whole word: nova-inst-1 is no part of nova-inst-10."""
    return [rule for rule in found.get(chain, ()) if words & set(rule.split())]


def _drop_unused_groups(found: Chains) -> list[str]:
    instances = [rules for chain, rules in found.items() if chain.startswith(INSTANCE)]
    used = {word for rules in instances for rule in rules for word in rule.split()}
    unused = [chain for chain in found if chain.startswith(GROUP) and chain not in used]
    return [line for chain in unused for line in (f":{chain} - [0:0]", f"-X {chain}")]


def _accept(rule: Rule, policy: Policy) -> list[str]:
    """A line for each source that the rule names; those of IPv6 are not for this table."""
    sources = [rule.cidr] if rule.cidr else [ip_network(member) for member in policy.members_of(rule)]
    return [
        " ".join([*([f"-s {source}"] if source.prefixlen else []), *_match(rule), "-j ACCEPT"])
        for source in sources
        if source.version == 4
    ]


def _match(rule: Rule) -> list[str]:
    """The protocol's part. 0 is a port, an icmp type and a code like any other; only None is any."""
    if rule.protocol is Protocol.ANY:
        return []
    if rule.protocol is Protocol.ICMP:
        return ["-p icmp", *_icmp(rule)]
    return [f"-p {rule.protocol}", *_ports(rule)]


def _icmp(rule: Rule) -> list[str]:
    kind, code = rule.from_port, rule.to_port
    if kind is None and code is None:
        return []
    if kind is None or kind > 255 or (code or 0) > 255:
        raise _meaningless(rule, f"icmp type {kind} with code {code}; both are 0–255, and a code needs a type")
    return [f"-m icmp --icmp-type {kind}" + ("" if code is None else f"/{code}")]


def _ports(rule: Rule) -> list[str]:
    given = [port for port in (rule.from_port, rule.to_port) if port is not None]
    if not given:
        return []
    low, high = given[0], given[-1]
    if low > high:
        raise _meaningless(rule, f"ports {low} to {high} run backwards")
    return [f"-m {rule.protocol} --dport {low}" + (f":{high}" if high > low else "")]


def _meaningless(rule: Rule, why: str) -> FirewallFailed:
    return FirewallFailed(
        f"a rule for {rule.protocol} from {rule.cidr}: {why}", hint="correct the security group's rule"
    )
