"""The other side of bench-overhead: one long-lived libvirt-python process that does the least a launch can do.

For each line on stdin: `launch` writes an overlay and has libvirt start a domain of the launcher's own XML, `destroy`
ends all domains. Each is answered by a line when it is done. Base files, bridge, taps and leases were made before the
first, and a DHCP server runs: guests that wait for an address would leave more of the processors to the next launch.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from random import SystemRandom

import libvirt

from launcher.config import NetworkConfig
from launcher.drivers.images import library, qcow2
from launcher.drivers.network.flat_dhcp import FlatDhcpNetwork
from launcher.drivers.virt import domain_xml, embed
from launcher.drivers.virt.driver import Disks
from launcher.identity import new_mac, new_uuid
from launcher.models import Flavor, Image, ImageFormat, ImageKind, LaunchOrder, Nic
from launcher.networks import FixedIp


class Floor:
    """Keeps its embedded driver, its files and `slots` prepared taps."""

    def __init__(self, directory: Path, images: Path, slots: int) -> None:
        self.directory, self.slots, self.rng = directory, slots, SystemRandom()
        self.image, self.kernel, self.ramdisk = self._take_in(images)
        self.macs = [new_mac(self.rng) for _ in range(slots)]
        self.running: list[libvirt.virDomain] = []
        embed.prepare(directory / "libvirt")
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_turn_for_ever, daemon=True).start()
        self.connection = libvirt.open(f"qemu:///embed?root={directory / 'libvirt'}")

    async def prepare(self) -> None:
        network, driver = NetworkConfig().network(), FlatDhcpNetwork(self.directory)
        await driver.ensure_network(network)
        leases = []
        for number in range(1, self.slots + 1):
            order = self._order(number)
            await driver.plug(order, network)
            address = network.gateway + number
            leases.append(
                FixedIp(
                    instance_id=order.instance_id,
                    address=address,
                    mac=order.nics[0].mac,
                    hostname=order.hostname,
                    network=network,
                )
            )
        await driver.set_leases(network, leases)

    def launch(self) -> None:
        order = self._order(len(self.running) + 1)
        files = self.directory / f"{order.name}-{order.instance_id}"
        files.mkdir()
        disks = Disks(
            root=files / "disk",
            root_format=ImageFormat.QCOW2,
            kernel=self.kernel.path,
            ramdisk=self.ramdisk.path,
            console_log=files / "console.log",
        )
        size = self.image.virtual_size
        qcow2.write_overlay(disks.root, backing=self.image.path, backing_format=self.image.format, size=size)
        self.running.append(self.connection.createXML(domain_xml.build(order, disks, virt_type="qemu"), 0))

    def destroy(self) -> None:
        for domain in self.running:
            domain.destroy()
        self.running.clear()

    def _take_in(self, images: Path) -> tuple[Image, Image, Image]:
        """The image's files, copied as the launcher copies them; without names they cost nothing later."""
        found = {image.kind: image for image in library.read_image(images, "ami-tiny")}
        copies = []
        for kind in (ImageKind.MACHINE, ImageKind.KERNEL, ImageKind.RAMDISK):
            path = self.directory / found[kind].sha256
            path.write_bytes(found[kind].path.read_bytes())
            copies.append(found[kind].model_copy(update={"path": path}))
        machine, kernel, ramdisk = copies
        return machine, kernel, ramdisk

    def _order(self, number: int) -> LaunchOrder:
        return LaunchOrder(
            instance_id=new_uuid(self.rng),
            number=number,
            generation=1,
            project_id="admin",
            hostname=f"server-{number}",
            nics=(Nic(mac=self.macs[number - 1]),),
            flavor=Flavor(name="m1.tiny", vcpus=1, memory_mb=512, root_gb=0),
            image=self.image,
            kernel=self.kernel,
            ramdisk=self.ramdisk,
        )


def _turn_for_ever() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def main(directory: str, images: str, slots: str) -> None:
    floor = Floor(Path(directory), Path(images), int(slots))
    asyncio.run(floor.prepare())
    verbs = {"launch": floor.launch, "destroy": floor.destroy}
    print("ready", flush=True)
    for line in sys.stdin:
        verbs[line.strip()]()
        print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
