"""EC2's tree, in the shape in which cloud-init's Ec2 source and the SDKs read it.

Not in it, because nothing here could stand behind it: signatures of the identity document, IAM credentials, ids of
subnets, VPCs and interfaces. `public-ipv4` is the first NIC's floating IP, and empty without one.
"""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from typing import Any

from launcher.guestdata.guest import Guest
from launcher.guestdata.tree import Directory, Leaf, Node, text
from launcher.networks import FixedIp

VERSIONS = (
    *("1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01"),
    *("2009-04-04", "2011-01-01", "2011-05-01", "2012-01-12", "2014-02-25", "2014-11-05", "2015-10-20"),
    *("2016-04-19", "2016-06-30", "2016-09-02", "2018-03-28", "2018-08-17", "2018-09-24", "2019-10-01"),
    *("2020-10-27", "2021-01-03", "2021-03-23", "2021-07-15", "2022-09-24", "latest"),
)
ROOT_DEVICE = "vda"
TAG = re.compile(r"(?!\.{1,2}$|_index$)[A-Za-z0-9+.,_:@-]{1,128}")
"""Names of tags that can be a path and a line of a listing: EC2's, without the `=` that means a key there."""


def root(guest: Guest, *, tags: bool) -> Directory:
    """Every version has the same content. Versions and what is in them are listed without slashes, as EC2 does."""
    return Directory(dict.fromkeys(VERSIONS, Directory(version(guest, tags=tags), plain=True)), plain=True)


def version(guest: Guest, *, tags: bool) -> dict[str, Node]:
    """What stands below the name of a version."""
    found: dict[str, Node] = {
        "dynamic": Directory({"instance-identity": Directory({"document": _identity(guest)})}),
        "meta-data": Directory(_meta_data(guest, tags=tags)),
    }
    if guest.told.user_data is not None:
        found["user-data"] = Leaf(base64.b64decode(guest.told.user_data), "application/octet-stream")
    return found


def _meta_data(guest: Guest, *, tags: bool) -> dict[str, Node]:
    told, instance, nic = guest.told, guest.told.instance, guest.nics[0]
    hostname = text(_hostname(nic))
    macs: dict[str, Node] = {each.mac: _interface(guest, index) for index, each in enumerate(guest.nics)}
    found: dict[str, Node] = {
        "ami-id": text(_short("ami", instance.image_id)),
        "ami-launch-index": text(instance.launch_index),
        "ami-manifest-path": text("(unknown)"),
        "block-device-mapping": _block_devices(guest),
        "hostname": hostname,
        "instance-action": text("none"),
        "instance-id": text(_instance_id(guest)),
        "instance-life-cycle": text("on-demand"),
        "instance-type": text(instance.flavor.name),
        **({"kernel-id": text(_short("aki", told.kernel_id))} if told.kernel_id else {}),
        "local-hostname": hostname,
        "local-ipv4": text(nic.address),
        "mac": text(nic.mac),
        "network": Directory({"interfaces": Directory({"macs": Directory(macs)})}),
        "placement": Directory({"availability-zone": text(told.availability_zone), "region": text(told.region)}),
        "public-hostname": hostname,
        "public-ipv4": text(nic.floating or ""),
        **({"public-keys": Directory({"0": _key(guest)})} if told.public_key else {}),
        **({"ramdisk-id": text(_short("ari", told.ramdisk_id))} if told.ramdisk_id else {}),
        "reservation-id": text(instance.reservation_id),
        "security-groups": text("\n".join(instance.security_groups)),
        "services": Directory({"domain": text(nic.network.domain), "partition": text("aws")}),
    }
    if tags:
        named: dict[str, Node] = {key: text(value) for key, value in instance.metadata.items() if TAG.fullmatch(key)}
        found["tags"] = Directory({"instance": Directory(named)})
    return found


def _block_devices(guest: Guest) -> Directory:
    """cloud-init mounts the one and swaps to the other."""
    names = {"ami": ROOT_DEVICE, "root": f"/dev/{ROOT_DEVICE}", **guest.told.instance.flavor.devices}
    return Directory({name: text(device) for name, device in names.items()})


def _interface(guest: Guest, index: int) -> Directory:
    nic = guest.nics[index]
    return Directory(
        {
            "device-number": text(index),
            "local-hostname": text(_hostname(nic)),
            "local-ipv4s": text(nic.address),
            "mac": text(nic.mac),
            "owner-id": text(guest.told.instance.project_id),
            **({"public-ipv4s": text(nic.floating)} if nic.floating else {}),
            "security-groups": text("\n".join(guest.told.instance.security_groups)),
            "subnet-ipv4-cidr-block": text(nic.network.cidr),
        }
    )


def _key(guest: Guest) -> Directory:
    return Directory({"openssh-key": text(guest.told.public_key)}, label=guest.told.instance.key_name or "key")


def _identity(guest: Guest) -> Leaf:
    """The document without its signature: whoever it is shown to has only the guest's word for it."""
    told, instance = guest.told, guest.told.instance
    born = datetime.fromtimestamp(instance.created_ms // 1000, UTC)
    document: dict[str, Any] = {
        "accountId": instance.project_id,
        "architecture": "x86_64",
        "availabilityZone": told.availability_zone,
        "billingProducts": None,
        "devpayProductCodes": None,
        "marketplaceProductCodes": None,
        "imageId": _short("ami", instance.image_id),
        "instanceId": _instance_id(guest),
        "instanceType": instance.flavor.name,
        "kernelId": _short("aki", told.kernel_id) if told.kernel_id else None,
        "pendingTime": born.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "privateIp": str(guest.nics[0].address),
        "ramdiskId": _short("ari", told.ramdisk_id) if told.ramdisk_id else None,
        "region": told.region,
        "version": "2017-09-30",
    }
    return text(json.dumps(document, indent=2))


def _hostname(nic: FixedIp) -> str:
    return f"{nic.hostname}.{nic.network.domain}"


def _instance_id(guest: Guest) -> str:
    return f"i-{guest.told.instance.number:08x}"


def _short(kind: str, uuid: str) -> str:
    return f"{kind}-{uuid[:8]}"
