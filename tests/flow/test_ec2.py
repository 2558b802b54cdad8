"""EC2's clients against the whole house: boto3 for breadth, requests of every age by hand."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from launcher.floating import FloatingPool
from launcher.services.api.ec2 import service, signature
from tests.ec2_client import client, code, signed
from tests.flow.house import ADMIN, House

KEYS = (ADMIN.access_key, ADMIN.secret_key)
POOL = FloatingPool(name="public", cidr=IPv4Network("203.0.113.0/28"), interface="eth0")
Ec2 = Any


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path, pools=(POOL,)).open() as opened:
        yield opened


async def told(house: House, story: Callable[[Ec2], Any]) -> Any:
    """A story told in boto3's blocking calls."""
    return await asyncio.to_thread(lambda: story(client(house.url, *KEYS)))


async def sent(house: House, request: Any) -> tuple[int, str]:
    """A signed request, as it is."""
    async with (
        aiohttp.ClientSession() as http,
        http.request(
            request.method,
            request.url if isinstance(request.url, str) else str(request.url),
            data=request.body,
            headers={name: _text(value) for name, value in request.headers.items()},
        ) as answer,
    ):
        return answer.status, await answer.text()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


async def asked(house: House, path: str = "/", **options: Any) -> tuple[int, str]:
    parameters = options.pop("parameters", {"Action": "DescribeRegions"})
    return await sent(house, signed(house.url + path, options.pop("keys", KEYS), parameters, **options))


def said(xml: str) -> tuple[str, str]:
    """Code and message of a refusal."""
    root = ET.fromstring(xml)
    assert root.tag == "Response"
    assert root.findtext("RequestID")
    return root.findtext("Errors/Error/Code") or "", root.findtext("Errors/Error/Message") or ""


# --- who asks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/services/Cloud", "/services/Cloud/"])
async def test_both_signatures_are_taken_in_queries_and_in_forms(house: House, path: str) -> None:
    for version in (2, 4):
        for method in ("GET", "POST"):
            status, xml = await asked(house, path, version=version, method=method)
            assert status == 200, (version, method, xml)
            assert "RegionOne" in xml


async def test_an_unknown_key_and_a_bad_signature_are_refused_in_the_same_words(house: House) -> None:
    refusals = {
        (status, said(xml))
        for version in (2, 4)
        for keys in ((ADMIN.access_key, "another"), ("LANOBODY", ADMIN.secret_key))
        for status, xml in [await asked(house, keys=keys, version=version)]
    }
    message = "AWS was not able to validate the provided access credentials"
    assert refusals == {(401, ("AuthFailure", message))}


async def test_without_a_signature_nothing_is_told(house: House) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{house.url}/?Action=DescribeRegions&Version=2016-11-15") as no,
    ):
        assert said(await no.text())[0] == "MissingAuthenticationToken"


async def test_what_was_changed_on_the_way_is_refused(house: House) -> None:
    request = signed(house.url + "/", KEYS, {"Action": "DescribeRegions"})
    request.body = request.body.replace("DescribeRegions", "DescribeSubnets")
    assert said((await sent(house, request))[1])[0] == "AuthFailure"


async def test_old_requests_have_expired(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature, "SKEW", -1.0)
    for version in (2, 4):
        status, xml = await asked(house, version=version)
        assert (status, said(xml)[0]) == (400, "RequestExpired")


async def test_a_recorded_request_changes_nothing_a_second_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the client's own second it may: two equal requests have one signature then."""
    change = signed(house.url + "/", KEYS, {"Action": "AllocateAddress"})
    look = signed(house.url + "/", KEYS, {"Action": "DescribeAddresses"})
    for _ in range(2):
        assert (await sent(house, change))[0] == 200
    monkeypatch.setattr(service, "SEEN_AGAIN", -1.0)
    assert said((await sent(house, change))[1])[0] == "RequestExpired"
    for _ in range(2):
        status, xml = await sent(house, look)
        assert (status, xml.count("<publicIp>")) == (200, 2)


# --- what is asked ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({}, "MissingAction"),
        ({"Action": "LaunchRockets"}, "InvalidAction"),
        ({"Action": "DescribeRegions", "Version": "2031-01-01"}, "NoSuchVersion"),
        ({"Action": "DescribeRegions", "Version": ""}, "MissingParameter"),
        ({"Action": "DescribeRegions", "Colour": "red"}, "UnknownParameter"),
        ({"Action": "DescribeRegions", "DryRun": "perhaps"}, "InvalidParameterValue"),
        ({"Action": "DescribeRegions", "RegionName": "x", "RegionName.1": "y"}, "InvalidParameterCombination"),
        ({"Action": "DescribeRegions", "RegionName.1": "x", "RegionName.1.y": "z"}, "InvalidParameterCombination"),
        ({"Action": "DescribeRegions", "RegionName.1": "x", "RegionName.01": "y"}, "InvalidParameterCombination"),
        ({"Action": "DescribeRegions", "RegionName.1": "\x00"}, "InvalidCharacter"),
        ({"Action": "TerminateInstances"}, "MissingParameter"),
        ({"Action": "RunInstances", "ImageId": "ami-tiny", "MinCount": "1"}, "MissingParameter"),
        (
            {"Action": "RunInstances", "ImageId": "ami-tiny", "MinCount": "one", "MaxCount": "1"},
            "InvalidParameterValue",
        ),
        ({"Action": "RunInstances", "ImageId": "ami-tiny", "MinCount": "0", "MaxCount": "1"}, "InvalidParameterValue"),
        ({"Action": "DescribeInstances", "MaxResults": "1001"}, "InvalidParameterValue"),
        ({"Action": "DescribeInstances", "MaxResults": "5", "InstanceId": "i-00000001"}, "InvalidParameterCombination"),
        ({"Action": "DescribeInstances", "NextToken": "bm9uZQ=="}, "InvalidParameterValue"),
        ({"Action": "DescribeInstances", "Filter.1.Name": "colour", "Filter.1.Value": "red"}, "InvalidParameterValue"),
    ],
)
async def test_what_does_not_fit_is_refused(house: House, parameters: dict[str, str], code: str) -> None:
    status, xml = await asked(house, parameters=parameters)
    assert (status, said(xml)[0]) == (400, code)


async def test_what_does_not_exist_is_refused_by_ec2s_codes(house: House) -> None:
    def story(ec2: Ec2) -> None:
        run: dict[str, Any] = {"MinCount": 1, "MaxCount": 1}
        assert code(ec2.run_instances, ImageId="ami-00000009", **run) == "InvalidAMIID.NotFound"
        assert code(ec2.run_instances, ImageId="a picture", **run) == "InvalidAMIID.Malformed"
        run["ImageId"] = "ami-tiny"
        assert code(ec2.run_instances, InstanceType="t9.vast", **run) == "InvalidParameterValue"
        assert code(ec2.run_instances, KeyName="nobody's", **run) == "InvalidKeyPair.NotFound"
        assert code(ec2.run_instances, SecurityGroups=["none"], **run) == "InvalidGroup.NotFound"
        assert code(ec2.run_instances, SecurityGroupIds=["sg-00000009"], **run) == "InvalidGroup.NotFound"
        assert code(ec2.run_instances, SecurityGroupIds=["none"], **run) == "InvalidGroupId.Malformed"
        assert code(ec2.run_instances, SubnetId="subnet-00000009", **run) == "InvalidSubnetID.NotFound"
        assert code(ec2.run_instances, Placement={"AvailabilityZone": "moon"}, **run) == "InvalidParameterValue"
        assert code(ec2.run_instances, KernelId="aki-00000000", **run) == "UnsupportedOperation"
        assert code(ec2.run_instances, **{**run, "MinCount": 2}) == "InvalidParameterValue"
        for ask in (ec2.describe_instances, ec2.terminate_instances, ec2.describe_instance_status):
            assert code(ask, InstanceIds=["i-00000009"]) == "InvalidInstanceID.NotFound"
            assert code(ask, InstanceIds=["i-0000000000000000f"]) == "InvalidInstanceID.NotFound"
            assert code(ask, InstanceIds=["server-1"]) == "InvalidInstanceID.Malformed"
        assert code(ec2.get_console_output, InstanceId="i-00000009") == "InvalidInstanceID.NotFound"
        assert code(ec2.describe_key_pairs, KeyNames=["none"]) == "InvalidKeyPair.NotFound"
        assert code(ec2.describe_images, ImageIds=["ami-00000009"]) == "InvalidAMIID.NotFound"
        assert code(ec2.describe_security_groups, GroupNames=["none"]) == "InvalidGroup.NotFound"
        assert code(ec2.delete_security_group, GroupName="default") == "CannotDelete"
        assert code(ec2.describe_instance_types, InstanceTypes=["t9.vast"]) == "InvalidInstanceType"
        assert code(ec2.describe_addresses, PublicIps=["203.0.113.9"]) == "InvalidAddress.NotFound"
        assert code(ec2.release_address, AllocationId="eipalloc-00000009") == "InvalidAllocationID.NotFound"
        assert code(ec2.disassociate_address, AssociationId="eipassoc-00000009") == "InvalidAssociationID.NotFound"
        assert code(ec2.create_tags, Resources=["thing"], Tags=[{"Key": "a", "Value": "b"}]) == "InvalidID"
        assert code(ec2.create_tags, Resources=["i-00000009"], Tags=[{"Key": "a"}]) == "InvalidInstanceID.NotFound"
        assert code(ec2.import_key_pair, KeyName="x", PublicKeyMaterial=b"no key") == "InvalidKeyPair.Format"

    await told(house, story)


# --- stories ------------------------------------------------------------------------------------------


async def test_instances_live_and_end_in_boto3s_waiters(house: House) -> None:
    def story(ec2: Ec2) -> None:
        run = {"ImageId": "ami-tiny", "InstanceType": "m1.tiny", "MinCount": 1, "MaxCount": 3, "ClientToken": "once"}
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "123"}]}]
        made = ec2.run_instances(**run, TagSpecifications=tags)
        names = [each["InstanceId"] for each in made["Instances"]]
        assert [each["State"] for each in made["Instances"]] == [{"Code": 0, "Name": "pending"}] * 3
        assert [each["AmiLaunchIndex"] for each in made["Instances"]] == [0, 1, 2]
        again = ec2.run_instances(**run, TagSpecifications=tags)
        assert again["ReservationId"] == made["ReservationId"]
        assert code(ec2.run_instances, **{**run, "MaxCount": 2}) == "IdempotentParameterMismatch"
        assert code(ec2.run_instances, **run, DryRun=True) == "DryRunOperation"
        waited(ec2, "instance_running", InstanceIds=names)
        waited(ec2, "instance_exists", InstanceIds=names)
        waited(ec2, "instance_status_ok", InstanceIds=names)
        waited(ec2, "system_status_ok", InstanceIds=names)
        (found,) = ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["1?3"]}])["Reservations"]
        assert [each["InstanceId"] for each in found["Instances"]] == names
        assert all(each["PrivateDnsName"].endswith(".novalocal") for each in found["Instances"])
        for wanted in ({"instance-state-code": "16"}, {"private-ip-address": "10.0.0.*"}, {"tag-key": "Name"}):
            filters = [{"Name": name, "Values": ["nothing", value]} for name, value in wanted.items()]
            assert len(ec2.describe_instances(Filters=filters)["Reservations"][0]["Instances"]) == 3
        assert ec2.describe_instances(Filters=[{"Name": "image-id", "Values": ["ami-1*"]}])["Reservations"] == []
        assert code(ec2.terminate_instances, InstanceIds=[names[0], "i-00000099"]) == "InvalidInstanceID.NotFound"
        assert code(ec2.terminate_instances, InstanceIds=names, DryRun=True) == "DryRunOperation"
        ended = ec2.terminate_instances(InstanceIds=names)["TerminatingInstances"]
        assert [each["PreviousState"]["Name"] for each in ended] == ["running"] * 3
        waited(ec2, "instance_terminated", InstanceIds=names)
        (gone,) = ec2.describe_instances(InstanceIds=names[:1])["Reservations"]
        assert gone["Instances"][0]["State"] == {"Code": 48, "Name": "terminated"}
        assert ec2.terminate_instances(InstanceIds=names[:1])["TerminatingInstances"][0]["CurrentState"]["Code"] == 48

    await told(house, story)


def waited(ec2: Ec2, what: str, **wanted: Any) -> None:
    ec2.get_waiter(what).wait(**wanted, WaiterConfig={"Delay": 0.05, "MaxAttempts": 200})


async def test_a_launch_that_failed_is_terminated_with_its_reason(house: House) -> None:
    house.break_step("spawning")

    await house.until((await house.launch())["id"], "ERROR")

    def story(ec2: Ec2) -> None:
        waited(ec2, "instance_terminated", InstanceIds=["i-00000001"])
        (found,) = ec2.describe_instances(InstanceIds=["i-00000001"])["Reservations"][0]["Instances"]
        assert found["StateReason"]["Code"] == "Server.InternalError"
        assert "spawning" in found["StateReason"]["Message"]

    await told(house, story)


async def test_long_answers_come_in_pages(house: House) -> None:
    def story(ec2: Ec2) -> None:
        ec2.run_instances(ImageId="ami-tiny", InstanceType="m1.tiny", MinCount=12, MaxCount=12)
        pages = list(ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}))
        assert [sum(len(each["Instances"]) for each in page["Reservations"]) for page in pages] == [5, 5, 2]
        names = [one["InstanceId"] for page in pages for each in page["Reservations"] for one in each["Instances"]]
        assert names == sorted(set(names))
        token = pages[0]["NextToken"]
        other = [{"Name": "image-id", "Values": ["ami-*"]}]
        assert code(ec2.describe_instances, NextToken=token, MaxResults=5, Filters=other) == "InvalidParameterValue"
        for name in ("describe_instance_status", "describe_tags", "describe_security_groups", "describe_vpcs"):
            assert list(ec2.get_paginator(name).paginate(PaginationConfig={"PageSize": 5})), name

    await told(house, story)


async def test_key_pairs_have_ec2s_fingerprints(house: House) -> None:
    """Those of AWS's own example keys would be as good; these are computed by the tools that AWS's documents name."""

    def story(ec2: Ec2) -> None:
        made = ec2.create_key_pair(KeyName="made")
        assert made["KeyFingerprint"] == openssl_sha1(made["KeyMaterial"])
        short = ec2.create_key_pair(KeyName="short", KeyType="ed25519")
        (found,) = ec2.describe_key_pairs(KeyNames=["short"], IncludePublicKey=True)["KeyPairs"]
        assert ssh_sha256(found["PublicKey"]) == short["KeyFingerprint"].rstrip("=")
        assert (found["KeyType"], found["KeyPairId"]) == ("ed25519", short["KeyPairId"])
        public = public_of(made["KeyMaterial"])
        taken = ec2.import_key_pair(KeyName="taken", PublicKeyMaterial=public.encode())
        assert taken["KeyFingerprint"] == openssl_md5(made["KeyMaterial"])
        waited(ec2, "key_pair_exists", KeyNames=["taken"])
        assert code(ec2.create_key_pair, KeyName="taken") == "InvalidKeyPair.Duplicate"
        ec2.delete_key_pair(KeyName="taken")
        ec2.delete_key_pair(KeyName="taken")
        assert code(ec2.describe_key_pairs, KeyNames=["taken"]) == "InvalidKeyPair.NotFound"
        assert [each["KeyName"] for each in ec2.describe_key_pairs()["KeyPairs"]] == ["made", "short"]

    await told(house, story)


def openssl_sha1(private: str) -> str:
    return colons(digest("openssl pkcs8 -inform PEM -outform DER -topk8 -nocrypt | openssl sha1 -c", private))


def openssl_md5(private: str) -> str:
    return colons(digest("openssl rsa -pubout -outform DER 2>/dev/null | openssl md5 -c", private))


def colons(said: str) -> str:
    return said.rpartition("= ")[2].strip()


def ssh_sha256(public: str) -> str:
    return digest("ssh-keygen -lf /dev/stdin -E sha256", public).split()[1].removeprefix("SHA256:")


def public_of(private: str) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    key = load_pem_private_key(private.encode(), None)
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def digest(command: str, text: str) -> str:
    import subprocess

    return subprocess.run(["sh", "-c", command], input=text, capture_output=True, text=True, check=True).stdout
