"""OpenStack's tree, in the shape in which cloud-init's OpenStack source reads it."""

from __future__ import annotations

import base64
import json
from random import Random
from typing import Any

from launcher.guestdata.guest import Guest
from launcher.guestdata.tree import Directory, Leaf, Node
from launcher.networks import FixedIp, NetworkMode

VERSIONS = (
    *("2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06", "2017-02-22"),
    *("2018-08-27", "2020-10-14", "latest"),
)
SEED_BYTES = 512
ANY = "0.0.0.0"  # noqa: S104 - the default route


def root(guest: Guest, *, rng: Random) -> Directory:
    """Every version has the same content. A password is set by its hash, so nobody asks for it: `password` is empty."""
    return Directory({**dict.fromkeys(VERSIONS, Directory(version(guest, rng=rng))), **content(guest)}, plain=True)


def version(guest: Guest, *, rng: Random) -> dict[str, Node]:
    """What stands below the name of a version."""
    vendor = vendor_data(guest)
    found: dict[str, Node] = {
        "meta_data.json": _json(_meta_data(guest, rng)),
        "network_data.json": _json(_network_data(guest)),
        "password": Leaf(b""),
        "vendor_data.json": _json({"cloud-init": vendor} if vendor else {}),
        "vendor_data2.json": _json({}),
    }
    if guest.told.user_data is not None:
        found["user_data"] = Leaf(base64.b64decode(guest.told.user_data), "application/octet-stream")
    return found


def content(guest: Guest) -> dict[str, Node]:
    """The files that `meta_data.json` names."""
    files = guest.told.personality.files
    leaves: dict[str, Node] = {
        f"{number:04}": Leaf(base64.b64decode(file.content), "application/octet-stream")
        for number, file in enumerate(files)
    }
    return {"content": Directory(leaves)} if files else {}


def vendor_data(guest: Guest) -> str:
    """The administrator's password in cloud-init's own words; its hash is set as it is. Empty without one."""
    if guest.told.personality.password_hash is None:
        return ""
    user = {"name": "root", "password": guest.told.personality.password_hash, "type": "hash"}
    return "#cloud-config\n" + json.dumps({"chpasswd": {"expire": False, "users": [user]}})


def _meta_data(guest: Guest, rng: Random) -> dict[str, Any]:
    told, instance, nic = guest.told, guest.told.instance, guest.nics[0]
    name = instance.key_name or "key"
    key = told.public_key
    return {
        "uuid": instance.id,
        "name": instance.name,
        "hostname": f"{nic.hostname}.{nic.network.domain}",
        "availability_zone": told.availability_zone,
        "launch_index": instance.launch_index,
        "project_id": instance.project_id,
        "meta": instance.metadata,
        "keys": [{"name": name, "type": "ssh", "data": key}] if key else [],
        "public_keys": {name: key} if key else {},
        "devices": [],
        **({"files": _files(guest)} if told.personality.files else {}),
        "random_seed": base64.b64encode(rng.randbytes(SEED_BYTES)).decode(),
    }


def _files(guest: Guest) -> list[dict[str, str]]:
    return [
        {"path": file.path, "content_path": f"/content/{number:04}"}
        for number, file in enumerate(guest.told.personality.files)
    ]


def _network_data(guest: Guest) -> dict[str, Any]:
    servers = dict.fromkeys(str(server) for nic in guest.nics for server in nic.network.dns or (nic.network.gateway,))
    return {
        "links": [
            {"id": f"nic{index}", "type": "phy", "ethernet_mac_address": nic.mac, "mtu": None}
            for index, nic in enumerate(guest.nics)
        ],
        "networks": [each for index, nic in enumerate(guest.nics) for each in _networks(index, nic)],
        "services": [{"type": "dns", "address": server} for server in servers],
    }


def _networks(index: int, nic: FixedIp) -> list[dict[str, Any]]:
    known = {"link": f"nic{index}", "network_id": nic.network.name}
    by_six = [{**known, "id": f"network{index}-6", "type": "ipv6_slaac"}] if nic.address6 else []
    return [{**known, "id": f"network{index}", **_by_four(index, nic)}, *by_six]


def _by_four(index: int, nic: FixedIp) -> dict[str, Any]:
    """Where no DHCP server tells the guest, the address stands here. Only the first NIC has a way out."""
    if nic.network.mode is not NetworkMode.FLAT:
        return {"type": "ipv4_dhcp"}
    gateway = str(nic.network.gateway)
    routes = [] if index else [{"network": ANY, "netmask": ANY, "gateway": gateway}]
    address, netmask = str(nic.address), str(nic.network.cidr.netmask)
    return {"type": "ipv4", "ip_address": address, "netmask": netmask, "routes": routes}


def _json(value: object) -> Leaf:
    return Leaf(json.dumps(value).encode(), "application/json")
