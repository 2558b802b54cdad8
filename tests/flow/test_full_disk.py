"""A disk that fills up under any role fails the launch by name, not as a bug of ours."""

from __future__ import annotations

import errno

from launcher.models import InstanceRef
from tests.flow.house import House


class Full:
    """A disk that takes nothing once, at one verb."""

    def __init__(self, verb: str, path: str) -> None:
        self.verb, self.path = verb, path

    async def images(self, verb: str, order: InstanceRef) -> None:
        await self.network(verb, order.instance_id)

    async def network(self, verb: str, subject: str) -> None:
        if verb == self.verb:
            self.verb = ""
            raise OSError(errno.ENOSPC, "No space left on device", self.path)


async def test_in_the_instances_directory(house: House) -> None:
    house.images.before = Full("create_disks", "/instances/disk").images
    made = await house.launch()
    fault = (await house.until(made["id"], "ERROR"))["fault"]
    assert (fault["code"], fault["step"]) == ("insufficient_space", "imaging")
    assert fault["message"] == "no space left: /instances/disk"
    assert house.leftovers() == []


async def test_where_the_network_role_writes_its_leases(house: House) -> None:
    house.network.fault = Full("set_leases", "/networks/default/hosts").network
    made = await house.launch()
    fault = (await house.until(made["id"], "ERROR"))["fault"]
    assert (fault["code"], fault["step"]) == ("insufficient_space", "networking")
    assert house.leftovers() == []
