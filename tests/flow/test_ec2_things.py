"""EC2's clients and what belongs to instances: groups, addresses, tags, quotas, and how long an end is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from launcher.accounts import UserRole
from launcher.services.api.ec2 import finding
from tests.ec2_client import client, code
from tests.flow.house import ADMIN, House
from tests.flow.test_ec2 import KEYS, POOL, asked, said, told, waited

Ec2 = Any
RUN = {"ImageId": "ami-tiny", "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
TCP = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path, pools=(POOL,)).open() as opened:
        yield opened


async def test_groups_and_rules_in_both_forms(house: House) -> None:
    def story(ec2: Ec2) -> None:
        web = ec2.create_security_group(GroupName="web", Description="front")["GroupId"]
        db = ec2.create_security_group(GroupName="db", Description="back")["GroupId"]
        assert code(ec2.create_security_group, GroupName="web", Description="x") == "InvalidGroup.Duplicate"
        waited(ec2, "security_group_exists", GroupIds=[web, db])
        old = {"GroupName": "web", "CidrIp": "10.0.0.0/8", **TCP}
        ec2.authorize_security_group_ingress(**old)
        assert code(ec2.authorize_security_group_ingress, **old) == "InvalidPermission.Duplicate"
        many = [
            {**TCP, "IpRanges": [{"CidrIp": "192.0.2.0/24"}], "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}]},
            {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": db}]},
        ]
        rules = ec2.authorize_security_group_ingress(GroupId=web, IpPermissions=many)["SecurityGroupRules"]
        assert len(rules) == 4
        (found,) = ec2.describe_security_groups(Filters=[{"Name": "ip-permission.cidr", "Values": ["192.0.2.*"]}])[
            "SecurityGroups"
        ]
        ssh, ping, group = found["IpPermissions"]
        assert [each["CidrIp"] for each in ssh["IpRanges"]] == ["10.0.0.0/8", "192.0.2.0/24"]
        assert (ping["FromPort"], ping["ToPort"]) == (8, -1)
        assert group["UserIdGroupPairs"][0]["GroupName"] == "db"
        assert code(ec2.delete_security_group, GroupId=db) == "DependencyViolation"
        ec2.revoke_security_group_ingress(GroupId=web, IpPermissions=many[:2])
        ec2.revoke_security_group_ingress(GroupId=web, SecurityGroupRuleIds=[rules[3]["SecurityGroupRuleId"]])
        assert (
            code(ec2.revoke_security_group_ingress, GroupId=web, IpPermissions=many[:1]) == "InvalidPermission.NotFound"
        )
        for bad in ({**TCP, "ToPort": 21}, {"IpProtocol": "tcp"}, {**TCP, "IpProtocol": "carrier-pigeon"}):
            asked_for = [{**bad, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
            refused = code(ec2.authorize_security_group_ingress, GroupId=web, IpPermissions=asked_for)
            assert refused == "InvalidPermission.Malformed"
        wrong = [{**TCP, "IpRanges": [{"CidrIp": "10.0.0.0/99"}]}]
        assert code(ec2.authorize_security_group_ingress, GroupId=web, IpPermissions=wrong) == "InvalidParameterValue"
        ec2.run_instances(**RUN, SecurityGroupIds=[db], SecurityGroups=["web"])
        assert code(ec2.delete_security_group, GroupName="web") == "DependencyViolation"

    await told(house, story)


async def test_addresses_by_address_and_by_id(house: House) -> None:
    def story(ec2: Ec2) -> None:
        names = [ec2.run_instances(**RUN)["Instances"][0]["InstanceId"] for _ in range(2)]
        waited(ec2, "instance_running", InstanceIds=names)
        tags = [{"ResourceType": "elastic-ip", "Tags": [{"Key": "for", "Value": "web"}]}]
        held = ec2.allocate_address(Domain="vpc", TagSpecifications=tags)
        other = ec2.allocate_address()
        both = {"AllocationId": held["AllocationId"]}
        bound = ec2.associate_address(InstanceId=names[0], **both)["AssociationId"]
        assert code(ec2.associate_address, InstanceId=names[1], **both) == "Resource.AlreadyAssociated"
        assert code(ec2.release_address, **both) == "InvalidIPAddress.InUse"
        ec2.associate_address(InstanceId=names[1], AllowReassociation=True, **both)
        ec2.associate_address(InstanceId=names[0], PublicIp=held["PublicIp"])
        (shown,) = ec2.describe_addresses(Filters=[{"Name": "tag:for", "Values": ["w*"]}])["Addresses"]
        assert (shown["InstanceId"], shown["AssociationId"]) == (names[0], bound)
        (machine,) = ec2.describe_instances(Filters=[{"Name": "ip-address", "Values": [held["PublicIp"]]}])[
            "Reservations"
        ]
        assert machine["Instances"][0]["PublicDnsName"] == held["PublicIp"]
        ec2.disassociate_address(AssociationId=bound)
        assert code(ec2.disassociate_address, AssociationId=bound) == "InvalidAssociationID.NotFound"
        (nic,) = ec2.describe_network_interfaces(
            Filters=[{"Name": "private-ip-address", "Values": [machine["Instances"][0]["PrivateIpAddress"]]}]
        )["NetworkInterfaces"]
        ec2.associate_address(NetworkInterfaceId=nic["NetworkInterfaceId"], PublicIp=other["PublicIp"])
        ec2.release_address(PublicIp=other["PublicIp"])
        ec2.release_address(**both)
        assert ec2.describe_addresses()["Addresses"] == []
        again = ec2.allocate_address(Address=held["PublicIp"])
        assert ec2.describe_addresses(AllocationIds=[again["AllocationId"]])["Addresses"][0]["Tags"] == []
        ec2.create_tags(Resources=[again["AllocationId"]], Tags=tags[0]["Tags"])

    await told(house, story)
    for method, path in (("DELETE", "/203.0.113.1"), ("POST", "")):
        await house.ask(method, f"/floating-ips{path}", {"address": "203.0.113.1"})
    (found,) = (await told(house, lambda ec2: ec2.describe_addresses()))["Addresses"]
    assert (found["PublicIp"], found["Tags"]) == ("203.0.113.1", [])


async def test_everything_can_be_tagged(house: House) -> None:
    def story(ec2: Ec2) -> None:
        things = [
            ec2.run_instances(**RUN)["Instances"][0]["InstanceId"],
            ec2.describe_images(Filters=[{"Name": "image-type", "Values": ["machine"]}])["Images"][0]["ImageId"],
            ec2.create_key_pair(KeyName="key", KeyType="ed25519")["KeyPairId"],
            ec2.create_security_group(GroupName="web", Description="x")["GroupId"],
            ec2.allocate_address()["AllocationId"],
            ec2.describe_vpcs()["Vpcs"][0]["VpcId"],
            ec2.create_volume(AvailabilityZone="nova", Size=1)["VolumeId"],
        ]
        ec2.create_tags(Resources=things, Tags=[{"Key": "team", "Value": "red"}, {"Key": "123", "Value": ""}])
        team = [{"Name": "tag:team", "Values": ["red"]}]
        assert sorted(
            each["ResourceId"] for each in ec2.describe_tags(Filters=[{"Name": "key", "Values": ["team"]}])["Tags"]
        ) == sorted(things)
        assert ec2.describe_instances(Filters=team)["Reservations"]
        for ask, where in (("images", "Images"), ("key_pairs", "KeyPairs"), ("security_groups", "SecurityGroups")):
            (found,) = getattr(ec2, f"describe_{ask}")(Filters=team)[where]
            assert found["Tags"] == [{"Key": "123", "Value": ""}, {"Key": "team", "Value": "red"}]
        ec2.delete_tags(Resources=things, Tags=[{"Key": "team", "Value": "blue"}, {"Key": "123"}])
        assert {each["Key"] for each in ec2.describe_tags()["Tags"]} == {"team"}
        ec2.delete_tags(Resources=things)
        assert ec2.describe_tags()["Tags"] == []
        aws = [{"Key": "aws:mine", "Value": "x"}]
        assert code(ec2.create_tags, Resources=things, Tags=aws) == "InvalidParameterValue"
        many = [{"Key": str(number), "Value": ""} for number in range(51)]
        assert code(ec2.create_tags, Resources=things[:1], Tags=many) == "TagLimitExceeded"
        assert code(ec2.create_tags, Resources=things[3:4], Tags=many) == "TagLimitExceeded"
        assert ec2.describe_tags()["Tags"] == []

    await told(house, story)


async def test_a_terminated_instance_is_told_for_an_hour(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await house.launch()
    await house.until(made["id"], "ACTIVE")
    await house.ask("DELETE", f"/instances/{made['id']}", status=202)
    await house.until(made["id"], "DELETED")

    def names(ec2: Ec2) -> list[str]:
        return [
            each["State"]["Name"] for found in ec2.describe_instances()["Reservations"] for each in found["Instances"]
        ]

    assert await told(house, names) == ["terminated"]
    monkeypatch.setattr(finding, "VISIBLE", -1)
    assert await told(house, names) == []
    gone = await told(house, lambda ec2: code(ec2.describe_instances, InstanceIds=["i-00000001"]))
    assert gone == "InvalidInstanceID.NotFound"


async def test_what_a_quota_refuses_has_ec2s_code(tmp_path: Path) -> None:
    async with House(tmp_path, pools=(POOL,)).open() as house:
        small = {"quotas": {"instances": 2, "key_pairs": 0, "security_groups": 1, "floating_ips": 0}}
        await house.ask("PUT", "/projects/admin/quotas", small, status=200)

        def story(ec2: Ec2) -> None:
            assert len(ec2.run_instances(**{**RUN, "MaxCount": 5})["Instances"]) == 2
            assert code(ec2.run_instances, **RUN) == "InstanceLimitExceeded"
            assert code(ec2.create_key_pair, KeyName="key", KeyType="ed25519") == "KeyPairLimitExceeded"
            assert code(ec2.create_security_group, GroupName="web", Description="x") == "SecurityGroupLimitExceeded"
            assert code(ec2.allocate_address) == "AddressLimitExceeded"
            (limit,) = ec2.describe_account_attributes(AttributeNames=["max-instances"])["AccountAttributes"]
            assert limit["AttributeValues"] == [{"AttributeValue": "2"}]

        await told(house, story)


async def test_a_dry_run_tells_a_reader_that_it_would_not_be_allowed(house: House) -> None:
    made = await house.ask("POST", "/credentials", {"role": UserRole.READER}, status=201)

    def story() -> tuple[str, str]:
        reader = client(house.url, made["id"], made["secret"])
        return code(reader.run_instances, **RUN, DryRun=True), code(reader.describe_instances, DryRun=True)

    assert await asyncio.to_thread(story) == ("UnauthorizedOperation", "DryRunOperation")


async def test_guessing_locks_a_key_and_its_owner_hears_the_same_words(house: House) -> None:
    wrong = {said((await asked(house, keys=(ADMIN.access_key, str(guess))))[1]) for guess in range(10)}
    right = said((await asked(house, keys=KEYS))[1])
    assert wrong == {right}
    assert right[0] == "AuthFailure"


async def test_instances_are_stopped_started_and_protected(house: House) -> None:
    def story(ec2: Ec2) -> None:
        made = ec2.run_instances(**RUN, DisableApiTermination=True, InstanceInitiatedShutdownBehavior="terminate")
        one = {"InstanceIds": [each["InstanceId"] for each in made["Instances"]]}
        waited(ec2, "instance_running", **one)
        assert code(ec2.terminate_instances, **one) == "OperationNotPermitted"
        assert code(ec2.stop_instances, **one, Hibernate=True) == "UnsupportedOperation"
        assert code(ec2.stop_instances, **one, DryRun=True) == "DryRunOperation"
        (stopping,) = ec2.stop_instances(**one)["StoppingInstances"]
        assert stopping["PreviousState"]["Name"] == "running"
        assert stopping["CurrentState"]["Name"] in ("stopping", "stopped")
        waited(ec2, "instance_stopped", **one)
        assert ec2.stop_instances(**one)["StoppingInstances"][0]["CurrentState"] == {"Code": 80, "Name": "stopped"}
        assert code(ec2.reboot_instances, **one) == "IncorrectInstanceState"
        ec2.start_instances(**one)
        waited(ec2, "instance_running", **one)
        ec2.reboot_instances(**one)
        waited(ec2, "instance_status_ok", **one)
        ec2.modify_instance_attribute(InstanceId=one["InstanceIds"][0], DisableApiTermination={"Value": False})
        ec2.terminate_instances(**one)
        waited(ec2, "instance_terminated", **one)

    await told(house, story)


async def test_one_property_is_changed_at_a_time_in_both_forms(house: House) -> None:
    def story(ec2: Ec2) -> None:
        this = {"InstanceId": ec2.run_instances(**RUN)["Instances"][0]["InstanceId"]}
        waited(ec2, "instance_running", InstanceIds=[this["InstanceId"]])
        bigger = {"InstanceType": {"Value": "t3.small"}}
        assert code(ec2.modify_instance_attribute, **this, **bigger) == "IncorrectInstanceState"
        ec2.stop_instances(InstanceIds=[this["InstanceId"]])
        waited(ec2, "instance_stopped", InstanceIds=[this["InstanceId"]])
        group = ec2.create_security_group(GroupName="web", Description="x")["GroupId"]
        for change in (bigger, {"Attribute": "userData", "Value": "aGVsbG8="}, {"Groups": [group]}):
            ec2.modify_instance_attribute(**this, **change)
        wrong = {"Attribute": "instanceInitiatedShutdownBehavior", "Value": "explode"}
        assert code(ec2.modify_instance_attribute, **this, **wrong) == "InvalidParameterValue"
        assert code(ec2.modify_instance_attribute, **this) == "InvalidParameterCombination"
        assert code(ec2.modify_instance_attribute, **this, InstanceType={"Value": "t9.vast"}) == "InvalidParameterValue"
        shown = {each: ec2.describe_instance_attribute(**this, Attribute=each) for each in TOLD}
        assert shown["instanceType"]["InstanceType"] == {"Value": "t3.small"}
        assert shown["userData"]["UserData"] == {"Value": "aGVsbG8="}
        assert shown["disableApiTermination"]["DisableApiTermination"] == {"Value": False}
        assert shown["groupSet"]["Groups"] == [{"GroupId": group, "GroupName": "web"}]

    await told(house, story)


TOLD = ("instanceType", "userData", "disableApiTermination", "groupSet")
