"""What stands in a config drive, read back by others than its writer: cloud-init, ISO and FAT tools."""

from __future__ import annotations

import base64
import importlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pycdlib import PyCdlib

from launcher.drivers import process
from launcher.drivers.images.config_drive import ConfigDrives, Content, FileSystem
from launcher.guestdata.guest import Guest
from launcher.models import GuestFile, Personality
from launcher.networks import NetworkMode
from tests.orders import NETWORK, make_instance, make_lease, make_order, make_told

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here"
FLAT = NETWORK.model_copy(update={"mode": NetworkMode.FLAT, "cidr": IPv4Network("10.0.0.0/24")})
USER_DATA = b"#!/bin/sh\n" + bytes(65526)
HASH = "$6$salt$0123456789abcdef./"
CLOUD_INIT = Path(__file__).parents[2] / ".cache/cloud-init/usr/lib/python3/dist-packages"


def a_guest() -> Guest:
    """On a flat network, with all that can be told."""
    personality = Personality(
        files=(GuestFile(path="/etc/motd", content=base64.b64encode(b"hello\n").decode()),), password_hash=HASH
    )
    told = make_told(
        make_instance(metadata={"role": "web"}),
        public_key=KEY,
        user_data=base64.b64encode(USER_DATA).decode(),
        personality=personality,
    )
    return Guest(told, (make_lease(make_order(), "10.0.0.7", FLAT),))


async def write(path: Path, content: Content, file_system: FileSystem) -> dict[str, bytes]:
    drives = ConfigDrives(content, file_system, rng=Random(1))
    await drives.write(path, a_guest())
    return ConfigDrives(content, file_system, rng=Random(1)).files(a_guest())


def read_iso(path: Path, *, names: str) -> dict[str, bytes]:
    image, found = PyCdlib(), {}
    image.open(str(path))
    for folder, _, files in image.walk(**{f"{names}_path": "/"}):
        for name in files:
            body, where = io.BytesIO(), f"{folder.rstrip('/')}/{name}"
            image.get_file_from_iso_fp(body, **{f"{names}_path": where})
            found[where.lstrip("/")] = body.getvalue()
    image.close()
    return found


@pytest.mark.parametrize("content", list(Content))
async def test_an_iso_holds_it_all_under_both_kinds_of_names(tmp_path: Path, content: Content) -> None:
    wanted = await write(tmp_path / "drive", content, FileSystem.ISO9660)
    assert read_iso(tmp_path / "drive", names="rr") == wanted
    assert read_iso(tmp_path / "drive", names="joliet") == wanted
    label = (tmp_path / "drive").read_bytes()[0x8028:0x8048].strip()
    assert label == {Content.OPENSTACK: b"config-2", Content.NOCLOUD: b"cidata"}[content]


@pytest.mark.parametrize("content", list(Content))
async def test_a_fat_file_system_holds_the_same(tmp_path: Path, content: Content) -> None:
    wanted = await write(tmp_path / "drive", content, FileSystem.VFAT)
    (tmp_path / "out").mkdir()
    await process.run(["mcopy", "-s", "-n", "-i", tmp_path / "drive", "::*", tmp_path / "out"])
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in files} == wanted
    label = (await process.run(["mlabel", "-s", "-i", tmp_path / "drive", "::"])).lower()
    assert {Content.OPENSTACK: "config-2", Content.NOCLOUD: "cidata"}[content] in label
    assert (tmp_path / "drive").stat().st_blocks * 512 < 2 << 20


@pytest.fixture(scope="module")
def source() -> Iterator[Callable[[str], Any]]:
    """A module of cloud-init's, from Debian's package as it is."""
    if not CLOUD_INIT.exists():
        pytest.skip("TEST NOT RUN: cloud-init is missing; run `make setup`")
    sys.path[:0] = [str(CLOUD_INIT), "/usr/lib/python3/dist-packages"]
    try:
        yield lambda name: importlib.import_module(f"cloudinit.sources.{name}")
    finally:
        del sys.path[:2]


def lay_out(files: dict[str, bytes], root: Path) -> None:
    for name, body in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)


@pytest.mark.filterwarnings("ignore")
async def test_cloud_init_reads_openstacks(source: Callable[[str], Any], tmp_path: Path) -> None:
    lay_out(await write(tmp_path / "drive", Content.OPENSTACK, FileSystem.ISO9660), tmp_path / "root")
    found = source("DataSourceConfigDrive").read_config_drive(str(tmp_path / "root"))
    assert found["version"] == 2
    assert found["metadata"]["uuid"] == make_instance().id
    assert found["metadata"]["public_keys"] == {"key": KEY}
    assert found["metadata"]["meta"] == {"role": "web"}
    assert found["userdata"] == USER_DATA
    assert found["files"] == {"/etc/motd": b"hello\n"}
    (network,) = found["networkdata"]["networks"]
    assert (network["type"], network["ip_address"], network["netmask"]) == ("ipv4", "10.0.0.7", "255.255.255.0")
    assert network["routes"][0]["gateway"] == "10.0.0.1"
    told = source("helpers.openstack").convert_net_json(found["networkdata"], {make_order().nics[0].mac: "ens3"})
    assert told["config"][0]["subnets"][0]["address"] == "10.0.0.7"
    assert HASH in found["vendordata"]["cloud-init"]
    ec2 = found["ec2-metadata"]
    assert ec2["local-ipv4"] == "10.0.0.7"


@pytest.mark.filterwarnings("ignore")
async def test_cloud_init_reads_noclouds(source: Callable[[str], Any], tmp_path: Path) -> None:
    lay_out(await write(tmp_path / "drive", Content.NOCLOUD, FileSystem.ISO9660), tmp_path / "root")
    util = importlib.import_module("cloudinit.util")
    found = util.pathprefix2dict(
        str(tmp_path / "root"), required=["user-data", "meta-data"], optional=["vendor-data", "network-config"]
    )
    meta = util.load_yaml(found["meta-data"])
    assert meta["instance-id"] == make_instance().id
    assert meta["public-keys"] == [KEY]
    assert found["user-data"] == USER_DATA
    network = util.load_yaml(found["network-config"])
    assert network["ethernets"]["nic0"]["addresses"] == ["10.0.0.7/24"]
    assert network["ethernets"]["nic0"]["routes"] == [{"to": "0.0.0.0/0", "via": "10.0.0.1"}]
    state = importlib.import_module("cloudinit.net.network_state").parse_net_config_data(network)
    assert [each["name"] for each in state.iter_interfaces()] == ["eth0"]
    vendor = util.load_yaml(found["vendor-data"])
    assert vendor["chpasswd"]["users"] == [{"name": "root", "password": HASH, "type": "hash"}]
    assert vendor["write_files"][0]["path"] == "/etc/motd"


def test_each_guest_has_a_seed_of_its_own() -> None:
    drives = ConfigDrives(rng=Random(1))
    seeds = {json.loads(drives.files(a_guest())["openstack/latest/meta_data.json"])["random_seed"] for _ in range(2)}
    assert len(seeds) == 2
