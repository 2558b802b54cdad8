"""cloud-init's NoCloud files: four at the root of a volume called `cidata`."""

from __future__ import annotations

import base64
import json
from typing import Any

from launcher.guestdata.guest import Guest
from launcher.guestdata.openstack import ANY, vendor_data
from launcher.guestdata.tree import Leaf, Node, text
from launcher.networks import FixedIp, NetworkMode


def root(guest: Guest) -> dict[str, Node]:
    """YAML, of which JSON is a part."""
    told, nic = guest.told, guest.nics[0]
    meta: dict[str, Any] = {
        "instance-id": told.instance.id,
        "local-hostname": f"{nic.hostname}.{nic.network.domain}",
        "availability-zone": told.availability_zone,
        "public-keys": [told.public_key] if told.public_key else [],
    }
    ethernets = {f"nic{index}": _ethernet(index, each) for index, each in enumerate(guest.nics)}
    return {
        "meta-data": text(json.dumps(meta)),
        "network-config": text(json.dumps({"version": 2, "ethernets": ethernets})),
        "user-data": Leaf(base64.b64decode(told.user_data or "")),
        "vendor-data": text(_vendor_data(guest)),
    }


def _ethernet(index: int, nic: FixedIp) -> dict[str, Any]:
    """By its MAC, whatever the kernel calls it. Only the first NIC has a way out."""
    network, found = nic.network, {"match": {"macaddress": nic.mac}, "set-name": f"eth{index}"}
    if network.mode is not NetworkMode.FLAT:
        return {**found, "dhcp4": True}
    servers = {"addresses": [str(each) for each in network.dns or (network.gateway,)], "search": [network.domain]}
    way_out = {} if index else {"routes": [{"to": f"{ANY}/0", "via": str(network.gateway)}], "nameservers": servers}
    return {**found, "addresses": [f"{nic.address}/{network.cidr.prefixlen}"], **way_out}


def _vendor_data(guest: Guest) -> str:
    """Files have no place of their own here, so cloud-init is told to write them."""
    files = [
        {"path": file.path, "encoding": "b64", "content": file.content, "permissions": "0600"}
        for file in guest.told.personality.files
    ]
    known: dict[str, Any] = json.loads(vendor_data(guest).partition("\n")[2] or "{}")
    return "#cloud-config\n" + json.dumps({**known, **({"write_files": files} if files else {})})
