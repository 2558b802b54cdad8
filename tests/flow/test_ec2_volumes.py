"""EC2's clients and volumes: boto3 with its waiters, and what a real EC2 would refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.ec2_client import code
from tests.flow.house import House
from tests.flow.test_ec2 import POOL, told, waited

Ec2 = Any
RUN = {"ImageId": "ami-tiny", "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
ZONE = {"AvailabilityZone": "nova"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path, pools=(POOL,)).open() as opened:
        yield opened


def named(kind: str, name: str) -> dict[str, Any]:
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": [{"Key": "Name", "Value": name}]}]}


def machine(ec2: Ec2) -> str:
    made: str = ec2.run_instances(**RUN)["Instances"][0]["InstanceId"]
    waited(ec2, "instance_running", InstanceIds=[made])
    return made


def volume(ec2: Ec2, **more: Any) -> str:
    made: str = ec2.create_volume(**{**ZONE, "Size": 1, **more})["VolumeId"]
    waited(ec2, "volume_available", VolumeIds=[made])
    return made


async def test_a_volume_from_its_making_to_its_end(house: House) -> None:
    def story(ec2: Ec2) -> None:
        made = ec2.create_volume(**ZONE, Size=2, VolumeType="gp3", Encrypted=False, **named("volume", "data"))
        assert (made["Size"], made["State"], made["Tags"]) == (2, "creating", [{"Key": "Name", "Value": "data"}])
        this, name = {"VolumeIds": [made["VolumeId"]]}, made["VolumeId"]
        waited(ec2, "volume_available", **this)
        instance = machine(ec2)
        attached = ec2.attach_volume(VolumeId=name, InstanceId=instance, Device="/dev/sdf")
        assert (attached["State"], attached["Device"]) == ("attaching", "/dev/vdf")
        waited(ec2, "volume_in_use", **this)
        mine = [{"Name": "attachment.instance-id", "Values": [instance]}]
        (found,) = ec2.describe_volumes(Filters=mine)["Volumes"]
        assert found["Attachments"][0] | {"AttachTime": None} == {
            **{"VolumeId": name, "InstanceId": instance, "Device": "/dev/vdf", "State": "attached"},
            **{"AttachTime": None, "DeleteOnTermination": False},
        }
        (shown,) = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
        assert [(each["DeviceName"], each["Ebs"]["VolumeId"]) for each in shown["BlockDeviceMappings"]] == [
            ("/dev/vdf", name)
        ]
        assert shown["RootDeviceType"] == "instance-store"
        (status,) = ec2.describe_volume_status(**this)["VolumeStatuses"]
        assert status["VolumeStatus"]["Status"] == "ok"
        assert ec2.detach_volume(VolumeId=name, InstanceId=instance, Device="/dev/xvdf")["State"] == "detaching"
        waited(ec2, "volume_available", **this)
        ec2.delete_volume(VolumeId=name)
        waited(ec2, "volume_deleted", **this)
        assert code(ec2.describe_volumes, **this) == "InvalidVolume.NotFound"

    await told(house, story)


async def test_a_snapshot_outlives_its_volume(house: House) -> None:
    def story(ec2: Ec2) -> None:
        first, instance = volume(ec2), machine(ec2)
        ec2.attach_volume(VolumeId=first, InstanceId=instance, Device="/dev/vdb")
        waited(ec2, "volume_in_use", VolumeIds=[first])
        made = ec2.create_snapshot(VolumeId=first, Description="monday", **named("snapshot", "monday"))
        assert (made["VolumeId"], made["Tags"]) == (first, [{"Key": "Name", "Value": "monday"}])
        waited(ec2, "snapshot_completed", SnapshotIds=[made["SnapshotId"]])
        ec2.terminate_instances(InstanceIds=[instance])
        waited(ec2, "volume_available", VolumeIds=[first])
        ec2.delete_volume(VolumeId=first)
        waited(ec2, "volume_deleted", VolumeIds=[first])
        (kept,) = ec2.describe_snapshots(OwnerIds=["self"], Filters=[{"Name": "volume-id", "Values": [first]}])[
            "Snapshots"
        ]
        assert (kept["Description"], kept["Progress"], kept["VolumeSize"]) == ("monday", "100%", 1)
        assert ec2.describe_snapshots(OwnerIds=["amazon"])["Snapshots"] == []
        second = ec2.create_volume(**ZONE, SnapshotId=made["SnapshotId"])
        assert (second["SnapshotId"], second["Size"]) == (made["SnapshotId"], 1)
        waited(ec2, "volume_available", VolumeIds=[second["VolumeId"]])
        ec2.delete_snapshot(SnapshotId=made["SnapshotId"])
        assert code(ec2.delete_snapshot, SnapshotId=made["SnapshotId"]) == "InvalidSnapshot.NotFound"
        assert ec2.describe_snapshots()["Snapshots"] == []

    await told(house, story)


async def test_what_does_not_go_has_ec2s_code(house: House) -> None:
    def story(ec2: Ec2) -> None:
        data, one, other = volume(ec2), machine(ec2), machine(ec2)
        at = {"VolumeId": data, "InstanceId": one, "Device": "/dev/sdf"}
        assert code(ec2.detach_volume, VolumeId=data) == "IncorrectState"
        assert code(ec2.attach_volume, **{**at, "Device": "/dev/sda1"}) == "InvalidParameterValue"
        assert code(ec2.attach_volume, **{**at, "VolumeId": "vol-00000077"}) == "InvalidVolume.NotFound"
        assert code(ec2.attach_volume, **{**at, "InstanceId": "i-00000077"}) == "InvalidInstanceID.NotFound"
        assert code(ec2.attach_volume, **at, DryRun=True) == "DryRunOperation"
        ec2.attach_volume(**at)
        waited(ec2, "volume_in_use", VolumeIds=[data])
        for ask, more in ((ec2.attach_volume, at), (ec2.attach_volume, {**at, "InstanceId": other})):
            assert code(ask, **more) == "VolumeInUse"
        assert code(ec2.delete_volume, VolumeId=data) == "VolumeInUse"
        assert code(ec2.attach_volume, **{**at, "VolumeId": volume(ec2)}) == "InvalidParameterValue"
        assert code(ec2.detach_volume, VolumeId=data, InstanceId=other) == "InvalidAttachment.NotFound"
        assert code(ec2.detach_volume, VolumeId=data, Device="/dev/sdg") == "InvalidAttachment.NotFound"
        assert code(ec2.create_volume, AvailabilityZone="moon", Size=1) == "InvalidZone.NotFound"
        assert code(ec2.create_volume, **ZONE) == "InvalidParameterCombination"
        assert code(ec2.create_volume, **ZONE, Size=0) == "InvalidParameterValue"
        assert code(ec2.create_volume, **ZONE, SnapshotId="snap-00000077") == "InvalidSnapshot.NotFound"
        assert code(ec2.create_volume, **ZONE, SnapshotId="data") == "InvalidSnapshotID.Malformed"
        assert code(ec2.create_volume, **ZONE, Size=1, Encrypted=True) == "UnsupportedOperation"
        assert code(ec2.create_snapshot, VolumeId="vol-00000077") == "InvalidVolume.NotFound"
        assert code(ec2.describe_volumes, VolumeIds=["i-00000001"]) == "InvalidVolumeID.Malformed"

    await told(house, story)


async def test_a_repetition_with_its_token_is_the_same_volume(house: House) -> None:
    def story(ec2: Ec2) -> None:
        wanted = {**ZONE, "Size": 1, "ClientToken": "once"}
        made = ec2.create_volume(**wanted)["VolumeId"]
        waited(ec2, "volume_available", VolumeIds=[made])
        assert ec2.create_volume(**wanted)["VolumeId"] == made
        assert code(ec2.create_volume, **{**wanted, "Size": 2}) == "IdempotentParameterMismatch"
        assert [each["State"] for each in ec2.describe_volumes()["Volumes"]] == ["available"]

    await told(house, story)


async def test_volumes_come_in_pages_and_by_their_tags(house: House) -> None:
    def story(ec2: Ec2) -> None:
        made = [volume(ec2, **named("volume", f"disk-{number}")) for number in range(7)]
        pages = list(ec2.get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 5}))
        assert [len(each["Volumes"]) for each in pages] == [5, 2]
        assert [each["VolumeId"] for page in pages for each in page["Volumes"]] == made
        ec2.create_tags(Resources=made[:1], Tags=[{"Key": "kubernetes.io/created-for", "Value": "x" * 256}])
        of = [{"Name": "tag-key", "Values": ["kubernetes.io/*"]}]
        assert [each["VolumeId"] for each in ec2.describe_volumes(Filters=of)["Volumes"]] == made[:1]
        assert {each["ResourceType"] for each in ec2.describe_tags()["Tags"]} == {"volume"}
        ec2.delete_volume(VolumeId=made[0])
        waited(ec2, "volume_deleted", VolumeIds=made[:1])
        assert made[0] not in {each["ResourceId"] for each in ec2.describe_tags()["Tags"]}
        assert code(ec2.create_tags, Resources=made[:1], Tags=[{"Key": "a", "Value": "b"}]) == "InvalidVolume.NotFound"

    await told(house, story)


async def test_quotas_of_volumes_have_ec2s_codes(house: House) -> None:
    await house.ask("PUT", "/projects/admin/quotas", {"quotas": {"volumes": 1, "snapshots": 0}}, status=200)

    def story(ec2: Ec2) -> None:
        made = volume(ec2)
        assert code(ec2.create_volume, **ZONE, Size=1) == "VolumeLimitExceeded"
        assert code(ec2.create_snapshot, VolumeId=made) == "SnapshotLimitExceeded"

    await told(house, story)


async def test_a_volume_grows_and_says_so(house: House) -> None:
    def story(ec2: Ec2) -> None:
        data = volume(ec2)
        asked = {"VolumeIds": [data]}
        assert code(ec2.describe_volumes_modifications, **asked) == "InvalidVolumeModification.NotFound"
        assert ec2.describe_volumes_modifications()["VolumesModifications"] == []
        made = ec2.modify_volume(VolumeId=data, Size=3, VolumeType="gp3")["VolumeModification"]
        assert (made["OriginalSize"], made["TargetSize"]) == (1, 3)
        assert made["ModificationState"] in ("modifying", "completed")
        done = [{"Name": "modification-state", "Values": ["completed"]}]
        for _ in range(500):
            if ec2.describe_volumes_modifications(**asked, Filters=done)["VolumesModifications"]:
                break
        (found,) = ec2.describe_volumes(**asked)["Volumes"]
        assert (found["Size"], found["State"]) == (3, "available")
        assert code(ec2.modify_volume, VolumeId=data, Size=3) == "InvalidParameterValue"
        ec2.delete_volume(VolumeId=data)
        assert code(ec2.modify_volume, VolumeId=data, Size=4) in (
            "IncorrectModificationState",
            "InvalidVolume.NotFound",
        )

    await told(house, story)
