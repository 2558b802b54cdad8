"""dnsmasq's command line, its hosts file, what its log tells, and the release of a lease in a guest's name."""

from __future__ import annotations

import re
from calendar import timegm
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from launcher.drivers.network.dnsmasq import (
    Files,
    command_line,
    host_lines,
    name_lines,
    read_evidence,
    release_packet,
    stray_leases,
)
from launcher.errors import NetworkFailed
from launcher.networks import FixedIp, Network
from tests.orders import NETWORK, make_lease, make_order

GOLDEN = Path(__file__).parent.parent / "golden"
FILES = Files(Path("/state/networks/default"))
LOG = (GOLDEN / "dnsmasq_log.txt").read_text()
WRITTEN = float(timegm((2026, 11, 22, 12, 43, 9)))


def a_lease(number: int, hostname: str = "") -> FixedIp:
    return make_lease(make_order(number, hostname=hostname or f"server-{number}"), f"10.0.0.{number + 2}")


def at(hour: int, minute: int, second: int, *, year: int = 2026, month: int = 11, day: int = 22) -> int:
    return timegm((year, month, day, hour, minute, second)) * 1000


@pytest.mark.parametrize(("name", "dns"), [("dnsmasq", ()), ("dnsmasq_dns", ("192.0.2.53", "198.51.100.53"))])
def test_the_command_line_is_as_agreed(name: str, dns: tuple[str, ...]) -> None:
    network = NETWORK.model_copy(update={"dns": tuple(IPv4Address(server) for server in dns)})
    words = command_line(network, FILES, lease_seconds=3600, user="nobody")
    assert words == (GOLDEN / f"{name}.txt").read_text().splitlines()


def test_ipv6_is_told_by_router_advertisements_and_a_small_mtu_by_dhcp() -> None:
    network = NETWORK.model_copy(update={"cidr6": IPv6Network("fd00:1::/64")})
    words = command_line(network, FILES, lease_seconds=3600, user="nobody", mtu=1450)
    assert words == (GOLDEN / "dnsmasq_ipv6_mtu.txt").read_text().splitlines()


def test_names_for_both_addresses() -> None:
    network = NETWORK.model_copy(update={"cidr6": IPv6Network("fd00:1::/64")})
    lease = make_lease(make_order(1), "10.0.0.3", network)
    assert name_lines([lease]) == ("10.0.0.3 server-1.novalocal\nfd00:1::16:3eff:fe00:1 server-1.novalocal\n"), (
        "RFC 4291's example turns the universal bit round"
    )


SHAPES = (
    re.compile(r"[0-9a-f:]{17},[A-Za-z0-9][A-Za-z0-9.-]*\.[a-z0-9.-]+,[0-9.]+"),
    re.compile(r"[0-9a-f.:]+ [A-Za-z0-9][A-Za-z0-9.-]*\.[a-z0-9.-]+"),
)
HOSTILE = st.one_of(
    st.text(max_size=300),
    st.sampled_from(["a\n00:00:00:00:00:00,ignore", "x" * 300, "0.0.0.0/33", "a,b", "--server=9.9.9.9", "a\0b", "a#b"]),
)


@given(hostname=HOSTILE, domain=HOSTILE, bridge=HOSTILE, name=HOSTILE)
def test_whatever_it_is_called_it_stays_one_line_or_is_refused(
    hostname: str, domain: str, bridge: str, name: str
) -> None:
    """Past the models of the bus, or not at all."""
    fields = {**NETWORK.model_dump(), "domain": domain, "bridge": bridge, "name": name}
    try:
        network = Network.model_validate(fields)
    except ValidationError:
        network = NETWORK
    lease = make_lease(make_order(1), "10.0.0.3", network).model_copy(update={"hostname": hostname})
    try:
        written = (host_lines([lease]), name_lines([lease]))
    except NetworkFailed:
        return
    for text, shape in zip(written, SHAPES, strict=True):
        (line,) = text.splitlines()
        assert text.endswith("\n")
        assert shape.fullmatch(line)
    assert not [word for word in command_line(network, FILES, lease_seconds=1, user="") if "\n" in word or "\0" in word]


def test_a_line_a_lease() -> None:
    assert host_lines([a_lease(1), a_lease(100)]) == (
        "02:16:3e:00:00:01,server-1.novalocal,10.0.0.3\n02:16:3e:00:00:64,server-100.novalocal,10.0.0.102\n"
    )


@pytest.mark.parametrize("name", ["a\nb", "a\r", "a,ignore", "a b", "", "-a", "a\n", "ä", "a" * 64, "#a", "id:*"])
def test_a_name_that_could_smuggle_in_more_never_reaches_the_file(name: str) -> None:
    lease = a_lease(1).model_copy(update={"hostname": name})
    with pytest.raises(NetworkFailed, match=r"10\.0\.0\.3: .* is no host name"):
        host_lines([a_lease(2), lease])


@pytest.mark.parametrize("name", ["ignore", "infinite", "45", "1h"])
def test_a_name_is_no_instruction(name: str) -> None:
    """dnsmasq reads a bare `ignore` as "give it no address" and `45` as a lease time."""
    assert host_lines([a_lease(1, name)]) == f"02:16:3e:00:00:01,{name}.novalocal,10.0.0.3\n"


def test_the_log_tells_when_a_guest_asked_and_was_answered() -> None:
    evidence = read_evidence(LOG, a_lease(1), written_s=WRITTEN)
    assert (evidence.requested_ms, evidence.answered_ms) == (at(12, 43, 0), at(12, 43, 0))
    assert evidence.last_words == "DHCPACK(br100) 10.0.0.3 02:16:3e:00:00:01 server-1"


def test_the_log_tells_that_a_guest_was_refused() -> None:
    evidence = read_evidence(LOG, a_lease(2), written_s=WRITTEN)
    assert evidence.requested_ms == at(12, 43, 2)
    assert evidence.answered_ms is None
    assert evidence.last_words == "DHCPDISCOVER(br100) 02:16:3e:00:00:02 no address available"


def test_a_guest_that_never_asked() -> None:
    evidence = read_evidence(LOG, a_lease(3), written_s=WRITTEN)
    assert (evidence.requested_ms, evidence.answered_ms, evidence.last_words) == (None, None, "")


def test_a_line_of_last_year() -> None:
    line = "Dec 31 23:59:58 dnsmasq-dhcp[7]: 1 DHCPDISCOVER(br100) 02:16:3e:00:00:01 \n"
    evidence = read_evidence(line, a_lease(1), written_s=timegm((2027, 1, 1, 0, 0, 5)))
    assert evidence.requested_ms == at(23, 59, 58, year=2026, month=12, day=31)


def test_a_guest_cannot_speak_for_another() -> None:
    told = "Nov 22 12:47:35 dnsmasq-dhcp[7]: 99 vendor class: DHCPACK(br100) 10.0.0.5 02:16:3e:00:00:03 x\n"
    renamed = "Nov 22 12:47:35 dnsmasq-dhcp[7]: 99 DHCPACK(br100) 10.0.0.9 02:16:3e:00:00:09 02:16:3e:00:00:03\n"
    assert read_evidence(told + renamed, a_lease(3), written_s=WRITTEN).last_words == ""


def test_what_is_leased_to_a_nic_that_is_gone() -> None:
    leased = (
        "1795355255 02:16:3e:00:00:01 10.0.0.3 server-1 01:02:16:3e:00:00:01\n"
        "1795355255 02:16:3e:00:00:02 10.0.0.4 * *\n"
        "1795355255 02:16:3e:00:00:03 10.0.0.9 * *\n"
        "duid 00:01\n"
    )
    hosts = host_lines([a_lease(1), a_lease(3)])
    assert stray_leases(leased, hosts) == [
        ("02:16:3e:00:00:02", IPv4Address("10.0.0.4")),
        ("02:16:3e:00:00:03", IPv4Address("10.0.0.9")),
    ]


def test_what_a_nic_had_until_now_may_be_leased_and_not_yet_written_down() -> None:
    """Its address was refused to the next NIC when both changes came within milliseconds of the first request."""
    before, now = host_lines([a_lease(1), a_lease(3)]), host_lines([a_lease(3)])
    assert stray_leases("", now, before) == [("02:16:3e:00:00:01", a_lease(1).address)]
    assert stray_leases("", now, now) == []


def test_a_release_is_the_one_of_rfc_2131() -> None:
    packet = release_packet("02:16:3e:00:00:02", IPv4Address("10.0.0.4"), IPv4Address("10.0.0.1"))
    assert len(packet) == 300
    assert packet[:4] == b"\x01\x01\x06\x00"
    assert packet[12:16] == bytes([10, 0, 0, 4])
    assert packet[28:34] == bytes.fromhex("02163e000002")
    assert packet[236:250] == b"\x63\x82\x53\x63" + b"\x35\x01\x07" + b"\x36\x04\x0a\x00\x00\x01" + b"\xff"
