"""Every operation's answer, byte for byte but for what changes from run to run: one story that asks for all of them."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from launcher.services.api.ec2.operations import operations
from tests.ec2_client import MODERN, masked
from tests.flow.house import House
from tests.flow.test_ec2 import POOL, asked
from tests.waiting import eventually

GOLDEN = Path(__file__).parents[1] / "golden" / "ec2"
WRITE = os.environ.get("LAUNCHER_WRITE_GOLDEN") == "1"
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJvVBXXQ6XmWfbAmXxQNS3yTHWe0F0GqNQ2TuyN4nGd1 somebody"
VOLUME = {"VolumeId": "vol-00000001"}
TINY = {"SourceRegion": "RegionOne"}
COPY = {"ImageId": "copy"}
ONE = {"InstanceId.1": "i-00000001"}
WEB = {"IpPermissions.1.IpProtocol": "tcp", "IpPermissions.1.FromPort": "80", "IpPermissions.1.ToPort": "443"}
MEMBERS = {"IpPermissions.1.Groups.1.GroupId": "sg-00000001"}
WORLD = {"IpPermissions.1.IpRanges.1.CidrIp": "0.0.0.0/0"}
LAUNCH = {"ImageId": "ami-tiny", "InstanceType": "m1.tiny", "MinCount": "1", "MaxCount": "1", "KeyName": "made"}

Step = tuple[str, dict[str, str]]
BEFORE: list[Step] = [
    ("CreateKeyPair", {"KeyName": "made"}),
    ("ImportKeyPair", {"KeyName": "taken", "PublicKeyMaterial": base64.b64encode(PUBLIC.encode()).decode()}),
    ("DescribeKeyPairs", {"IncludePublicKey": "true", "KeyName.1": "taken"}),
    ("CreateSecurityGroup", {"GroupName": "web", "GroupDescription": "a < b"}),
    ("AuthorizeSecurityGroupIngress", {"GroupName": "web", **WEB, **WORLD}),
    (
        "AuthorizeSecurityGroupEgress",
        {"GroupId": "sg-00000002", **WEB, "IpPermissions.1.Groups.1.GroupId": "sg-00000001"},
    ),
    ("DescribeSecurityGroups", {"GroupName": "web"}),
    ("DescribeSecurityGroupRules", {"Filter.1.Name": "group-id", "Filter.1.Value": "sg-00000002"}),
    ("RunInstances", {**LAUNCH, "SecurityGroup.1": "web", "UserData": "aGVsbG8="}),
]
AFTER: list[Step] = [
    (
        "CreateVolume",
        {
            **{"AvailabilityZone": "nova", "Size": "1", "TagSpecification.1.ResourceType": "volume"},
            **{"TagSpecification.1.Tag.1.Key": "Name", "TagSpecification.1.Tag.1.Value": "data"},
        },
    ),
    ("AllocateAddress", {}),
    ("AssociateAddress", {"InstanceId": "i-00000001", "PublicIp": "203.0.113.1"}),
    ("DescribeAddresses", {}),
    ("CreateTags", {"ResourceId.1": "i-00000001", "Tag.1.Key": "Name", "Tag.1.Value": "123"}),
    ("DescribeTags", {}),
    ("AttachVolume", {**VOLUME, "InstanceId": "i-00000001", "Device": "/dev/sdf"}),
    ("DescribeInstances", {}),
    ("DescribeVolumes", {}),
    ("DescribeVolumeStatus", VOLUME),
    ("DescribeVolumeAttribute", {**VOLUME, "Attribute": "autoEnableIO"}),
    ("CreateSnapshot", {**VOLUME, "Description": "a < b"}),
    ("DescribeSnapshots", {}),
    ("DetachVolume", VOLUME),
    ("DeleteSnapshot", {"SnapshotId": "snap-00000002"}),
    ("ModifyVolume", {**VOLUME, "Size": "2"}),
    ("DescribeVolumesModifications", {}),
    ("DeleteVolume", VOLUME),
    ("DescribeInstanceStatus", ONE),
    ("DescribeInstanceAttribute", {"InstanceId": "i-00000001", "Attribute": "userData"}),
    ("DescribeNetworkInterfaces", {}),
    ("DescribeVpcs", {}),
    ("DescribeSubnets", {}),
    ("DescribeImages", {}),
    ("CopyImage", {**TINY, "SourceImageId": "ami-tiny", "Name": "copy"}),
    ("ModifyImageAttribute", {**COPY, "LaunchPermission.Add.1.UserId": "admin"}),
    ("DescribeImageAttribute", {**COPY, "Attribute": "launchPermission"}),
    ("ResetImageAttribute", {**COPY, "Attribute": "launchPermission"}),
    ("DeregisterImage", COPY),
    ("RegisterImage", {"Name": "far", "ImageLocation": "http://127.0.0.1:9/far.img"}),
    ("CreateImage", {"InstanceId": "i-00000001", "Name": "made"}),
    ("DescribeInstanceTypes", {"InstanceType.1": "m1.small"}),
    ("DescribeRegions", {}),
    ("DescribeAvailabilityZones", {}),
    ("DescribeAccountAttributes", {}),
    ("GetConsoleOutput", {"InstanceId": "i-00000001"}),
    ("StopInstances", ONE),
    ("StartInstances", ONE),
    ("RebootInstances", ONE),
    ("ModifyInstanceAttribute", {"InstanceId": "i-00000001", "DisableApiTermination.Value": "false"}),
    ("DeleteTags", {"ResourceId.1": "i-00000001", "Tag.1.Key": "Name"}),
    ("DisassociateAddress", {"AssociationId": "eipassoc-cb007101"}),
    ("ReleaseAddress", {"AllocationId": "eipalloc-cb007101"}),
    ("TerminateInstances", ONE),
    ("RevokeSecurityGroupIngress", {"GroupName": "web", **WEB, **WORLD}),
    ("RevokeSecurityGroupEgress", {"GroupId": "sg-00000002", "SecurityGroupRuleId.1": "sgr-00000003"}),
    ("DeleteKeyPair", {"KeyName": "made"}),
]
AGES = ("2009-11-30", "2010-08-31", "2011-01-01", "2012-08-15")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path, pools=(POOL,)).open() as opened:
        yield opened


async def compare(house: House, step: Step, version: str = MODERN) -> None:
    name, parameters = step
    status, xml = await asked(house, parameters={"Action": name, "Version": version, **parameters})
    assert status == 200, (name, xml)
    golden = GOLDEN / (f"{name}.xml" if version == MODERN else f"{name}-{version}.xml")
    if WRITE:
        golden.write_text(masked(xml))
    assert masked(xml) == golden.read_text(), golden.name


async def test_every_answer_is_the_golden_one(house: House) -> None:
    for step in BEFORE:
        await compare(house, step)
    await running(house)
    for step in AFTER:
        await compare(house, step)
        await settled(house)
    (instance,) = (await house.ask("GET", "/instances?deleted=true", status=200))["instances"]
    await house.until(instance["id"], "DELETED")
    await compare(house, ("DeleteSecurityGroup", {"GroupName": "web"}))
    assert {name for name, _ in (*BEFORE, *AFTER)} | {"DeleteSecurityGroup"} == {each.name for each in operations()}
    kept = {path.name.split("-")[0].removesuffix(".xml") for path in GOLDEN.iterdir()}
    assert kept == {each.name for each in operations()}


async def running(house: House) -> None:
    async def look() -> bool:
        found = (await house.ask("GET", "/instances", status=200))["instances"]
        return bool(found) and all(each["status"] == "ACTIVE" for each in found)

    await eventually(look, what="the instances run")


async def settled(house: House) -> None:
    """Nothing is under way but ends."""

    async def look() -> bool:
        found = (await house.ask("GET", "/instances", status=200))["instances"]
        disks = [each for kind in ("volumes", "snapshots") for each in (await house.ask("GET", f"/{kind}"))[kind]]
        rest = all(each["status"] in ("available", "in-use") for each in disks)
        return rest and all(each["task_state"] in (None, "deleting") for each in found)

    await eventually(look, what="what was asked for is done")


async def test_an_answer_has_nothing_that_its_version_did_not_have(house: House) -> None:
    """Clients of 2011 and before read a nested set that they do not know as a set of instances."""
    await house.launch(name="old")
    await running(house)
    for version in AGES:
        await compare(house, ("DescribeInstances", {}), version)
        await compare(house, ("DescribeSecurityGroups", {}), version)
    old = (GOLDEN / "DescribeInstances-2009-11-30.xml").read_text()
    assert set(re.findall(r"<(\w+Set)>", old)) == {"reservationSet", "groupSet", "instancesSet"}
