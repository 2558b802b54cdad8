"""/etc/network/interfaces: what is written where there is no DHCP server."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from launcher.drivers.images.inject.interfaces import interfaces_text
from launcher.models import Nic
from launcher.networks import NetworkMode
from tests.orders import NETWORK, make_lease, make_order

FLAT = NETWORK.model_copy(update={"mode": NetworkMode.FLAT, "dns": (IPv4Address("9.9.9.9"), IPv4Address("1.1.1.1"))})
BACK = FLAT.model_copy(update={"cidr": IPv4Network("10.7.0.0/29"), "gateway": IPv4Address("10.7.0.1")})


def test_addresses_of_all_nics_and_one_way_out() -> None:
    order = make_order(1, nics=(Nic(mac="02:16:3e:00:00:01"), Nic(mac="02:16:3e:00:01:01")))
    nics = [make_lease(order, "10.0.0.3", FLAT), make_lease(order, "10.7.0.5", BACK, nic=1)]
    assert interfaces_text(nics) == (
        "# Written by launcher when the machine was made.\n"
        "auto lo\n"
        "iface lo inet loopback\n"
        "\n"
        "auto eth0\n"
        "iface eth0 inet static\n"
        "    address 10.0.0.3\n"
        "    netmask 255.255.255.0\n"
        "    broadcast 10.0.0.255\n"
        "    gateway 10.0.0.1\n"
        "    dns-nameservers 9.9.9.9 1.1.1.1\n"
        "    dns-search novalocal\n"
        "\n"
        "auto eth1\n"
        "iface eth1 inet static\n"
        "    address 10.7.0.5\n"
        "    netmask 255.255.255.248\n"
        "    broadcast 10.7.0.7\n"
    )


def test_where_dhcp_tells_everything_nothing_is_written() -> None:
    assert interfaces_text([make_lease(make_order(1))]) is None
