"""EC2's ids of things that have a number or a UUID here, and which of its errors speaks of them."""

from __future__ import annotations

import hashlib
import re
from ipaddress import IPv4Address
from typing import NamedTuple

from launcher.models import LARGEST, MacAddress
from launcher.services.api.ec2.refusals import Refusal

HEX = re.compile(r"[0-9a-f]{8}|[0-9a-f]{17}")


class Kind(NamedTuple):
    """`prefix-` and 8 or 17 hexadecimal digits."""

    prefix: str
    noun: str
    unknown: str
    malformed: str

    def id(self, number: int) -> str:
        return f"{self.prefix}-{number:08x}" if number < 1 << 32 else f"{self.prefix}-{number:017x}"

    def number(self, text: str) -> int:
        """Raises Refusal for what is no such id. The number may be nobody's."""
        prefix, dash, digits = text.partition("-")
        if (prefix, dash) != (self.prefix, "-") or not HEX.fullmatch(digits):
            raise Refusal(self.malformed, f'Invalid id: "{text}" (expecting "{self.prefix}-...")')
        number = int(digits, 16)
        if number > LARGEST or self.id(number) != text:
            raise self.not_found(text)
        return number

    def not_found(self, *wanted: str) -> Refusal:
        if len(wanted) > 1:
            return Refusal(self.unknown, f"The {self.noun}s '{', '.join(wanted)}' do not exist")
        return Refusal(self.unknown, f"The {self.noun} '{''.join(wanted)}' does not exist")


INSTANCE = Kind("i", "instance ID", "InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed")
GROUP = Kind("sg", "security group", "InvalidGroup.NotFound", "InvalidGroupId.Malformed")
RULE = Kind(
    "sgr", "security group rule ID", "InvalidSecurityGroupRuleId.NotFound", "InvalidSecurityGroupRuleId.Malformed"
)
ALLOCATION = Kind("eipalloc", "allocation ID", "InvalidAllocationID.NotFound", "InvalidAllocationID.NotFound")
ASSOCIATION = Kind("eipassoc", "association ID", "InvalidAssociationID.NotFound", "InvalidAssociationID.NotFound")
VPC = Kind("vpc", "vpc ID", "InvalidVpcID.NotFound", "InvalidVpcID.Malformed")
SUBNET = Kind("subnet", "subnet ID", "InvalidSubnetID.NotFound", "InvalidSubnetID.Malformed")
INTERFACE = Kind(
    "eni", "networkInterface ID", "InvalidNetworkInterfaceID.NotFound", "InvalidNetworkInterfaceId.Malformed"
)
VOLUME = Kind("vol", "volume", "InvalidVolume.NotFound", "InvalidVolumeID.Malformed")
SNAPSHOT = Kind("snap", "snapshot", "InvalidSnapshot.NotFound", "InvalidSnapshotID.Malformed")
IMAGE = Kind("ami", "image id", "InvalidAMIID.NotFound", "InvalidAMIID.Malformed")
KEY = Kind("key", "key pair ID", "InvalidKeyPair.NotFound", "InvalidKeyPair.NotFound")


def of_address(kind: Kind, address: IPv4Address) -> str:
    return kind.id(int(address))


def of_interface(mac: MacAddress) -> str:
    return INTERFACE.id(int(mac.replace(":", ""), 16))


def of_key(project_id: str, name: str, created_ms: int) -> str:
    digest = hashlib.sha256(f"{project_id}/{name}/{created_ms}".encode()).hexdigest()
    return f"{KEY.prefix}-{digest[:17]}"


def of_image(prefix: str, uuid: str) -> str:
    """`ami-`, `aki-` or `ari-`, as the metadata service tells the guest."""
    return f"{prefix}-{uuid[:8]}"
