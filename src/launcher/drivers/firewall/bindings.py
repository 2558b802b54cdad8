"""What libvirt's nwfilter is told: two filters for all, and for each NIC a binding with its addresses. Pure.

A binding counts for a device, whether a domain has it or not; so it is there before the domain is. `out` is what the
instance sends. The filters say what frames.py says, but for one thing that libvirt cannot look at: whose address an
IPv6 neighbour advertisement is about. They look at frames only; who may speak to whom is asked later, by nftables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

from launcher.models import InstanceRef
from launcher.ports import Port

FOUR, SIX = "launcher-nic", "launcher-nic-ipv6"
FILTERS = (
    f"""
<filter name='{FOUR}' chain='root'>
  <uuid>6b0f7c52-3f4e-4a39-9d0a-6c61756e6304</uuid>
  <rule action='drop' direction='out' priority='-900'><mac match='no' srcmacaddr='$MAC'/></rule>
  <rule action='accept' direction='out' priority='-800'><arp arpsrcmacaddr='$MAC' arpsrcipaddr='$IP'/></rule>
  <rule action='drop' direction='out' priority='-800'><ip protocol='udp' srcportstart='67'/></rule>
  <rule action='accept' direction='out' priority='-700'><ip srcipaddr='$IP'/></rule>
  <rule action='accept' direction='out' priority='-700'>
    <ip srcipaddr='0.0.0.0' dstipaddr='255.255.255.255' protocol='udp' srcportstart='68' dstportstart='67'/>
  </rule>
  <rule action='accept' direction='in' priority='-700'><arp/></rule>
  <rule action='accept' direction='in' priority='-700'><ip dstipaddr='$IP'/></rule>
  <rule action='accept' direction='in' priority='-700'>
    <ip srcipaddr='$GATEWAY' dstipaddr='255.255.255.255' protocol='udp' srcportstart='67' dstportstart='68'/>
  </rule>
  <rule action='drop' direction='inout' priority='1000'><mac/></rule>
</filter>
""",
    f"""
<filter name='{SIX}' chain='root'>
  <uuid>6b0f7c52-3f4e-4a39-9d0a-6c61756e6306</uuid>
  <filterref filter='{FOUR}'/>
  <rule action='drop' direction='out' priority='-800'><ipv6 protocol='icmpv6' type='134'/></rule>
  <rule action='drop' direction='out' priority='-800'><ipv6 protocol='icmpv6' type='137'/></rule>
  <rule action='drop' direction='out' priority='-800'><ipv6 protocol='udp' srcportstart='547'/></rule>
  <rule action='accept' direction='out' priority='-700'><ipv6 srcipaddr='$IPV6'/></rule>
  <rule action='accept' direction='out' priority='-700'><ipv6 srcipaddr='::' protocol='icmpv6' type='133'/></rule>
  <rule action='accept' direction='out' priority='-700'><ipv6 srcipaddr='::' protocol='icmpv6' type='135'/></rule>
  <rule action='accept' direction='out' priority='-700'><ipv6 srcipaddr='::' protocol='icmpv6' type='143'/></rule>
  <rule action='accept' direction='in' priority='-700'><ipv6 dstipaddr='$IPV6'/></rule>
  <rule action='accept' direction='in' priority='-700'>
    <ipv6 dstipaddr='ff00::' dstipmask='8' protocol='icmpv6' type='135' typeend='136'/>
  </rule>
  <rule action='accept' direction='in' priority='-700'>
    <ipv6 srcipaddr='fe80::' srcipmask='10' dstipaddr='ff00::' dstipmask='8' protocol='icmpv6' type='134'/>
  </rule>
</filter>
""",
)
_TAP = re.compile(r"tap([0-9a-f]{8})(?:-\d+)?")


@dataclass(frozen=True)
class Binding:
    """A device, the MAC of who is behind it, a filter's name and what it is given."""

    tap: str
    mac: str
    filter: str
    parameters: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, port: Port) -> Self:
        given = {("IP", str(port.address)), ("GATEWAY", str(port.gateway))}
        given |= {("IPV6", str(address)) for address in port.addresses6}
        return cls(port.tap, port.mac, SIX if port.address6 else FOUR, frozenset(given))

    @classmethod
    def read(cls, xml: str) -> Self:
        """From what libvirt says of one; it adds the MAC to the parameters."""
        root = fromstring(xml)  # noqa: S314 - libvirt parsed and wrote it
        device, mac, reference = (root.find(word) for word in ("portdev", "mac", "filterref"))
        assert device is not None
        assert mac is not None
        assert reference is not None
        given = {(each.attrib["name"], each.attrib["value"]) for each in reference if each.attrib["name"] != "MAC"}
        return cls(device.attrib["name"], mac.attrib["address"], reference.attrib["filter"], frozenset(given))

    def xml(self, owner: InstanceRef) -> str:
        root = Element("filterbinding")
        about = SubElement(root, "owner")
        SubElement(about, "name").text = owner.name
        SubElement(about, "uuid").text = owner.instance_id
        SubElement(root, "portdev", name=self.tap)
        SubElement(root, "mac", address=self.mac)
        reference = SubElement(root, "filterref", filter=self.filter)
        for name, value in sorted(self.parameters):
            SubElement(reference, "parameter", name=name, value=value)
        return tostring(root, encoding="unicode")


def number_of(tap: str) -> int | None:
    """The instance whose NIC a device is by its name."""
    found = _TAP.fullmatch(tap)
    return int(found[1], 16) if found else None


def reached(listing: str) -> set[str]:
    """From `ebtables -t nat -L`: the devices whose frames are sent through chains of libvirt's that have rules."""
    jumps, filled, chain = set[str](), set[str](), ""
    for line in listing.splitlines():
        words = line.split()
        if line.startswith("Bridge chain: "):
            chain = words[2].rstrip(",")
        elif words and chain in ("PREROUTING", "POSTROUTING"):
            jumps.add(words[-1])
        elif words:
            filled.add(chain)
    used = jumps & filled
    return {
        chain.removeprefix("libvirt-I-") for chain in used if f"libvirt-O-{chain.removeprefix('libvirt-I-')}" in used
    }
