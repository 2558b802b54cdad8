"""EC2's dialect in the tenant matrix: every operation, signed by whoever asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from urllib.parse import urlencode
from weakref import WeakKeyDictionary

from aiohttp import ClientSession

from launcher.accounts import UserRole
from tests.ec2_client import MODERN, signed
from tests.flow.house import House
from tests.flow.tenants import Dialect, Things, Verb, filled

MEMBER = UserRole.MEMBER
KEYS: WeakKeyDictionary[ClientSession, tuple[str, str]] = WeakKeyDictionary()
"""The access key of each session's user, made when it is first needed."""


def verb(
    name: str,
    needs: UserRole = UserRole.READER,
    foreign: int = 400,
    works: Sequence[int] = (200,),
    **parameters: str,
) -> Verb:
    """A double underscore is a dot."""
    body = {key.replace("__", "."): value for key, value in parameters.items()}
    return Verb(f"EC2 {name}", needs=needs, body=body, foreign=foreign, works=works)


async def ask(session: ClientSession, verb: Verb, things: Things) -> tuple[int, str]:
    """The first project's instance and group are the first ones of this house; ids follow from what is known."""
    address = int(IPv4Address(things["address"]))
    named = {
        **things,
        "i": "i-00000001",
        "sg": "sg-00000002",
        "allocation": f"eipalloc-{address:08x}",
        "sgr": f"sgr-{int(things['rule']):08x}",
        "disk_ami": f"ami-{things['disk'][:8]}",
        "vol": "vol-00000001",
        "snap": "snap-00000002",
    }
    parameters = filled({"Action": verb.route.split()[1], **dict(verb.body or {})}, named)  # type: ignore[call-overload]
    assert isinstance(parameters, dict)
    url = str(session._base_url)
    if "Authorization" not in session.headers:
        async with session.post("/", data=urlencode({"Version": MODERN, **parameters}), headers=FORM) as answer:
            return answer.status, await answer.text()
    request = signed(url, await _keys(session), parameters)
    async with ClientSession() as http, http.post(url, data=request.body, headers=_plain(request.headers)) as answer:
        return answer.status, await answer.text()


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def _plain(headers: Mapping[str, str | bytes]) -> dict[str, str]:
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in headers.items()}


async def _keys(session: ClientSession) -> tuple[str, str]:
    if session not in KEYS:
        async with session.post("/credentials", json={}) as answer:
            made = await answer.json()
            KEYS[session] = made["id"], made["secret"]
    return KEYS[session]


def _served(house: House) -> set[str]:
    return {f"EC2 {name}" for name in house.api.ec2.operations}


LISTS = (
    *("Instances", "InstanceStatus", "KeyPairs", "Images", "SecurityGroups", "SecurityGroupRules", "Addresses", "Tags"),
    *("Volumes", "VolumeStatus", "Snapshots"),
    *("Vpcs", "Subnets", "NetworkInterfaces", "Regions", "AvailabilityZones", "AccountAttributes", "InstanceTypes"),
)
RULE = {"IpProtocol": "tcp", "FromPort": "443", "ToPort": "443", "CidrIp": "0.0.0.0/0"}
OUT = {
    "IpPermissions__1__IpProtocol": "udp",
    "IpPermissions__1__FromPort": "53",
    "IpPermissions__1__ToPort": "53",
    "IpPermissions__1__IpRanges__1__CidrIp": "0.0.0.0/0",
}
PUBLIC = "c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUp2VkJYWFE2WG1XZmJBbVh4UU5TM3lUSFdlMEYwR3FOUTJUdXlONG5HZDE="
EC2 = Dialect(
    ask=ask,
    served=_served,
    verbs=[
        *(verb(f"Describe{each}", foreign=200) for each in LISTS),
        verb("DescribeInstances", InstanceId="{i}"),
        verb("DescribeInstanceStatus", InstanceId="{i}"),
        verb("DescribeInstanceAttribute", InstanceId="{i}", Attribute="userData"),
        verb("GetConsoleOutput", InstanceId="{i}"),
        verb("DescribeKeyPairs", KeyName="{key}"),
        verb("DescribeSecurityGroups", GroupId="{sg}"),
        verb("DescribeSecurityGroupRules", SecurityGroupRuleId="{sgr}"),
        verb("DescribeAddresses", PublicIp="{address}"),
        verb("CreateKeyPair", MEMBER, 200, KeyName="one", KeyType="ed25519"),
        verb("ImportKeyPair", MEMBER, 200, KeyName="two", PublicKeyMaterial=PUBLIC),
        verb("RunInstances", MEMBER, ImageId="{image}", MinCount="1", MaxCount="1", KeyName="{key}"),
        verb("CreateSecurityGroup", MEMBER, 200, GroupName="another", GroupDescription="none"),
        verb("AuthorizeSecurityGroupIngress", MEMBER, 400, (200,), GroupId="{sg}", **RULE),
        verb("RevokeSecurityGroupIngress", MEMBER, 400, (200,), GroupId="{sg}", **RULE),
        verb("AuthorizeSecurityGroupEgress", MEMBER, 400, (200,), GroupId="{sg}", **OUT),
        verb("RevokeSecurityGroupEgress", MEMBER, 400, (200,), GroupId="{sg}", **OUT),
        verb("CreateTags", MEMBER, ResourceId="{i}", Tag__1__Key="a", Tag__1__Value="b"),
        verb("DeleteTags", MEMBER, ResourceId="{i}", Tag__1__Key="a"),
        verb("AllocateAddress", MEMBER, 200),
        verb("AssociateAddress", MEMBER, PublicIp="{address}", InstanceId="{i}"),
        verb("DisassociateAddress", MEMBER, PublicIp="{address}"),
        verb("ReleaseAddress", MEMBER, AllocationId="{allocation}"),
        verb("DescribeVolumes", VolumeId="{vol}"),
        verb("DescribeVolumeStatus", VolumeId="{vol}"),
        verb("DescribeVolumeAttribute", VolumeId="{vol}", Attribute="autoEnableIO"),
        verb("DescribeVolumesModifications", foreign=200),
        verb("DescribeSnapshots", SnapshotId="{snap}"),
        verb("DescribeImageAttribute", ImageId="{disk_ami}", Attribute="launchPermission"),
        verb("RegisterImage", MEMBER, 200, Name="far", ImageLocation="http://127.0.0.1:9/far.img"),
        verb("CopyImage", MEMBER, SourceImageId="{disk_ami}", SourceRegion="RegionOne", Name="copy"),
        verb("ModifyImageAttribute", MEMBER, ImageId="{disk_ami}", Description__Value="mine"),
        verb("ResetImageAttribute", MEMBER, ImageId="{disk_ami}", Attribute="launchPermission"),
        verb("DeregisterImage", MEMBER, ImageId="{disk_ami}"),
        verb("CreateVolume", MEMBER, 200, AvailabilityZone="nova", Size="1"),
        verb("CreateVolume", MEMBER, AvailabilityZone="nova", SnapshotId="{snap}"),
        verb("CreateSnapshot", MEMBER, VolumeId="{vol}"),
        verb("AttachVolume", MEMBER, works=(200, 400), VolumeId="{vol}", InstanceId="{i}", Device="/dev/sdf"),
        verb("ModifyVolume", MEMBER, works=(200, 400), VolumeId="{vol}", Size="2"),
        verb("DetachVolume", MEMBER, works=(200, 400), VolumeId="{vol}"),
        verb("DeleteSnapshot", MEMBER, works=(200, 400), SnapshotId="{snap}"),
        verb("DeleteVolume", MEMBER, works=(200, 400), VolumeId="{vol}"),
        verb("ModifyInstanceAttribute", MEMBER, InstanceId="{i}", DisableApiTermination__Value="false"),
        verb("StopInstances", MEMBER, InstanceId="{i}"),
        verb("StartInstances", MEMBER, works=(200, 400), InstanceId="{i}"),
        verb("RebootInstances", MEMBER, works=(200, 400), InstanceId="{i}"),
        verb("CreateImage", MEMBER, works=(200, 400), InstanceId="{i}", Name="made"),
        verb("TerminateInstances", MEMBER, InstanceId="{i}"),
        verb("DeleteSecurityGroup", MEMBER, GroupName="{group}"),
        verb("DeleteKeyPair", MEMBER, 200, KeyName="{key}"),
    ],
)
