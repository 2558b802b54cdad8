"""openstacksdk, unmodified: a script as somebody would write it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.flow.house import ADMIN, House
from tests.flow.test_floating_ips import POOLS


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path, pools=POOLS).open() as opened:
        yield opened


def connect(url: str) -> Any:
    import openstack

    return openstack.connect(
        auth_url=f"{url}/identity",
        username="admin",
        password=ADMIN.password,
        project_name="admin",
        user_domain_id="default",
        project_domain_id="default",
        region_name="RegionOne",
        load_yaml_config=False,
        load_envvars=False,
    )


def script(url: str) -> list[str]:
    """A server with a floating IP and a volume, stopped and started; what it leaves."""
    cloud = connect(url)
    pair = cloud.compute.create_keypair(name="k")
    assert pair.private_key
    image, flavor = cloud.image.find_image("ami-tiny"), cloud.compute.find_flavor("m1.tiny")
    network = cloud.network.find_network("default")
    made = cloud.compute.create_server(
        name="vm1", image_id=image.id, flavor_id=flavor.id, networks=[{"uuid": network.id}], key_name="k"
    )
    server = cloud.compute.wait_for_server(made, interval=0.1)
    cloud.compute.add_tag_to_server(server, "web")
    assert [each.name for each in cloud.compute.servers(tags="web")] == ["vm1"]
    (port,) = cloud.network.ports(device_id=server.id)
    outer = cloud.network.find_network("public")
    floating = cloud.network.create_ip(floating_network_id=outer.id, port_id=port.id)
    shown = cloud.compute.get_server(server.id)
    kinds = [each["OS-EXT-IPS:type"] for each in shown.addresses["default"]]
    volume = cloud.block_storage.create_volume(size=1, name="data")
    cloud.block_storage.wait_for_status(volume, "available", interval=0.1)
    cloud.compute.create_volume_attachment(server, volume_id=volume.id)
    cloud.block_storage.wait_for_status(volume, "in-use", interval=0.1)
    cloud.compute.stop_server(server)
    cloud.compute.wait_for_server(server, status="SHUTOFF", interval=0.1)
    cloud.compute.start_server(server)
    cloud.compute.wait_for_server(server, interval=0.1)
    cloud.network.delete_ip(floating)
    cloud.compute.delete_server(server)
    cloud.compute.wait_for_delete(server, interval=0.1)
    cloud.block_storage.wait_for_status(volume, "available", interval=0.1)
    cloud.block_storage.delete_volume(volume)
    return kinds


@pytest.mark.filterwarnings("ignore")  # the SDK has some of its own, which are its makers'
async def test_the_sdks_script_runs_as_it_stands(house: House) -> None:
    assert await asyncio.to_thread(script, house.url) == ["fixed", "floating"]
    assert [each for each in house.leftovers() if not each.startswith("volumes")] == []
