"""EC2's clients and images: registered, copied, shared, taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.ec2_client import client, code
from tests.flow.house import House
from tests.flow.test_ec2 import told, waited

Ec2 = Any


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path).open() as opened:
        yield opened


def copy_of(ec2: Ec2, name: str, **more: Any) -> str:
    wanted = {"SourceImageId": "ami-tiny", "SourceRegion": "RegionOne", "Name": name, **more}
    made: str = ec2.copy_image(**wanted)["ImageId"]
    return made


async def test_a_copy_is_an_image_of_ones_own(house: House) -> None:
    def story(ec2: Ec2) -> None:
        token = {"ClientToken": "once", "Description": "mine"}
        made = copy_of(ec2, "copy", **token)
        assert copy_of(ec2, "copy", **token) == made
        assert code(copy_of, ec2=ec2, name="another", **token) == "IdempotentParameterMismatch"
        waited(ec2, "image_available", ImageIds=[made])
        mine = [{"Name": "is-public", "Values": ["false"]}]
        (found,) = ec2.describe_images(Owners=["self"], Filters=mine)["Images"]
        assert (found["ImageId"], found["Name"], found["Description"]) == (made, "copy", "mine")
        assert found["KernelId"].startswith("aki-")
        ran = ec2.run_instances(ImageId=made, InstanceType="m1.tiny", MinCount=1, MaxCount=1)["Instances"][0]
        waited(ec2, "instance_running", InstanceIds=[ran["InstanceId"]])
        ec2.create_tags(Resources=[made], Tags=[{"Key": "a", "Value": "b"}])
        ec2.deregister_image(ImageId=made)
        assert code(ec2.describe_images, ImageIds=[made]) == "InvalidAMIID.NotFound"
        assert ec2.describe_tags()["Tags"] == []
        far = {"SourceImageId": "ami-tiny", "Name": "far", "SourceRegion": "us-east-1"}
        assert code(ec2.copy_image, **far) == "InvalidParameterValue"

    await told(house, story)


async def test_an_image_of_an_instance_can_be_launched(house: House) -> None:
    def story(ec2: Ec2) -> None:
        run = {"InstanceType": "m1.tiny", "MinCount": 1, "MaxCount": 1}
        first = ec2.run_instances(ImageId="ami-tiny", **run)["Instances"][0]["InstanceId"]
        assert code(ec2.create_image, InstanceId="i-00000077", Name="made") == "InvalidInstanceID.NotFound"
        waited(ec2, "instance_running", InstanceIds=[first])
        tags = [{"ResourceType": "image", "Tags": [{"Key": "of", "Value": first}]}]
        made = ec2.create_image(InstanceId=first, Name="made", NoReboot=True, TagSpecifications=tags)["ImageId"]
        waited(ec2, "image_available", ImageIds=[made])
        (found,) = ec2.describe_images(Filters=[{"Name": "tag:of", "Values": [first]}])["Images"]
        assert (found["ImageId"], found["Name"], found["Public"]) == (made, "made", False)
        second = ec2.run_instances(ImageId=made, **run)["Instances"][0]["InstanceId"]
        waited(ec2, "instance_running", InstanceIds=[second])

    await told(house, story)


async def test_what_cannot_be_fetched_fails_with_its_reason(house: House) -> None:
    def story(ec2: Ec2) -> None:
        made = ec2.register_image(Name="far", ImageLocation="http://127.0.0.1:9/far.img", Architecture="arm64")
        for _ in range(500):
            (found,) = ec2.describe_images(ImageIds=[made["ImageId"]])["Images"]
            if found["State"] == "failed":
                break
        assert found["State"] == "failed"
        assert found["StateReason"]["Message"]
        assert code(ec2.register_image, Name="old", ImageLocation="bucket/manifest.xml") == "InvalidParameterValue"
        assert code(ec2.register_image, Name="a/b", ImageLocation="http://a/b") == "InvalidAMIName.Malformed"

    await told(house, story)


async def test_who_may_launch_an_image(house: House) -> None:
    """By both forms; a project is named as its administrator names it, or by its id."""
    await house.ask("POST", "/projects", {"name": "other"}, status=201)
    await house.ask("PUT", "/projects/other/users/admin/roles/member", status=204)
    keys = await house.ask("POST", "/credentials", {"project": "other", "role": "member"}, status=201)
    other = client(house.url, keys["id"], keys["secret"])

    def story(ec2: Ec2) -> None:
        this = {"ImageId": copy_of(ec2, "copy")}

        def permissions() -> list[dict[str, str]]:
            told: list[dict[str, str]] = ec2.describe_image_attribute(**this, Attribute="launchPermission")[
                "LaunchPermissions"
            ]
            return told

        assert permissions() == []
        ec2.modify_image_attribute(**this, LaunchPermission={"Add": [{"UserId": "other"}]})
        (one,) = permissions()
        (seen,) = [each for each in other.describe_images(ExecutableUsers=["self"])["Images"] if each["Name"] == "copy"]
        assert seen["ImageId"] == this["ImageId"]
        ec2.modify_image_attribute(
            **this, Attribute="launchPermission", OperationType="remove", UserIds=[one["UserId"]]
        )
        assert permissions() == []
        ec2.modify_image_attribute(**this, Attribute="launchPermission", OperationType="add", UserGroups=["all"])
        assert permissions() == [{"Group": "all"}]
        ec2.reset_image_attribute(**this, Attribute="launchPermission")
        assert permissions() == []
        ec2.modify_image_attribute(**this, Description={"Value": "said"})
        assert ec2.describe_image_attribute(**this, Attribute="description")["Description"] == {"Value": "said"}
        nobody = {"Add": [{"UserId": "nobody"}]}
        refused = code(ec2.modify_image_attribute, **this, LaunchPermission=nobody)
        assert refused == "InvalidAMIAttributeItemValue"
        assert code(ec2.modify_image_attribute, **this) == "InvalidParameterCombination"
        public = {"ImageId": "ami-tiny", "Attribute": "launchPermission"}
        assert code(other.describe_image_attribute, **public) == "UnauthorizedOperation"

    await told(house, story)
    assert (
        await asyncio.to_thread(lambda: [each["Name"] for each in other.describe_images(Owners=["self"])["Images"]])
        == []
    )
