"""What an instance's disks cost in the launch path: overlays, injection each way, config drives, empty disks.

On the image store as the compute role calls it, in a sandbox; nothing boots. The image is ami-tiny. Then what an image
of such a disk costs, and the import of one of 500 MB (`bench/imports.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from pathlib import Path
from random import SystemRandom

from bench import imports, tables
from launcher.config import NetworkConfig
from launcher.drivers import process
from launcher.drivers.images import library, qcow2
from launcher.drivers.images.config_drive import ConfigDrives, Content, FileSystem
from launcher.drivers.images.inject.choice import make_ways
from launcher.drivers.images.local import LocalImages
from launcher.drivers.images.local_vault import LocalVault
from launcher.drivers.images.store import Injection
from launcher.errors import DriverError
from launcher.guestdata.guest import Guest
from launcher.images import Ticket
from launcher.models import Flavor, GuestMetadata, ImageFormat, Instance, LaunchOrder, Nic, VmState
from launcher.networks import FixedIp, NetworkMode
from launcher.sandbox import INSIDE

ROUNDS, WARM, SNAPSHOTS = 40, 5, 10
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI bench"
LIBRARY = Path(__file__).parents[1] / ".cache" / "images"
TINY = Flavor(name="m1.tiny", vcpus=1, memory_mb=512, root_gb=0)
Times = defaultdict[str, list[float]]


class Bench:
    """Launches of one image, each with a number of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.number = directory, 0
        self.machine, self.kernel, self.ramdisk = library.read_image(LIBRARY, "ami-tiny")

    def order(self, flavor: Flavor = TINY, *, config_drive: bool = False) -> LaunchOrder:
        self.number += 1
        return LaunchOrder(
            instance_id=f"00000000-0000-4000-8000-{self.number:012x}",
            number=self.number,
            generation=1,
            project_id="bench",
            hostname=f"server-{self.number}",
            nics=(Nic(mac="02:00:00:00:00:01"),),
            flavor=flavor,
            image=self.machine,
            kernel=self.kernel,
            ramdisk=self.ramdisk,
            public_key=KEY,
            config_drive=config_drive,
        )

    @contextlib.asynccontextmanager
    async def store(
        self,
        way: Injection,
        *,
        format: ImageFormat = ImageFormat.QCOW2,
        drives: ConfigDrives | None = None,
        vault: Path | None = None,
    ) -> AsyncIterator[LocalImages]:
        home = Path(tempfile.mkdtemp(dir=self.directory))
        ways = make_ways([way], state=home)
        store = LocalImages(
            home / "instances", library=LIBRARY, ways=ways, disk_format=format, config_drives=drives, vault=vault
        )
        await store.start()
        try:
            yield store
        finally:
            await store.stop()
            shutil.rmtree(home)

    async def launches(self, store: LocalImages, label: str, times: Times, flavor: Flavor = TINY) -> None:
        """Both steps of a launch, as `compute` does them one after the other."""
        for round_ in range(WARM + ROUNDS):
            order = self.order(flavor, config_drive=Injection.CONFIG_DRIVE in store.ways.names)
            nics = (a_lease(order),)
            made = await clock(store.create_disks(order))
            given = await clock(store.inject(order, nics, partial(tell, order, nics)))
            settled = await clock(store.settle(order))
            await store.delete_disks(order)
            if round_ >= WARM:
                times[f"disks, {label}"].append(made)
                times[f"injection, {label}"].append(given)
                times[f"both, {label}"].append(made + given)
                times["synced, beside the start of the domain"].append(settled)


async def clock(work: Awaitable[object]) -> float:
    """Milliseconds."""
    begun = time.perf_counter()
    await work
    return (time.perf_counter() - begun) * 1000


def a_lease(order: LaunchOrder) -> FixedIp:
    return FixedIp(
        instance_id=order.instance_id,
        address=NetworkConfig().network().gateway + 1,
        mac=order.nics[0].mac,
        hostname=order.hostname,
        network=NetworkConfig(mode=NetworkMode.FLAT_DHCP).network(),
    )


async def tell(order: LaunchOrder, nics: tuple[FixedIp, ...]) -> Guest:
    instance = Instance(
        **order.model_dump(include={"number", "generation", "project_id", "hostname", "flavor", "nics"}),
        id=order.instance_id,
        user_id="bench",
        name=order.hostname,
        status="BUILD",
        vm_state=VmState.BUILDING,
        task_state=None,
        state_since_ms=0,
        host="bench",
        image_id=order.image.id,
        image_name=order.image.name,
        key_name="bench",
        security_groups=(),
        availability_zone=None,
        metadata={},
        reservation_id="r-bench",
        launch_index=0,
        created_ms=0,
        launched_ms=None,
        fault=None,
        trace_id="0",
    )
    told = GuestMetadata(
        instance=instance,
        region="RegionOne",
        availability_zone="nova",
        public_key=KEY,
        kernel_id=None,
        ramdisk_id=None,
        user_data=None,
    )
    return Guest(told, nics)


async def overlays(bench: Bench, times: Times) -> None:
    """The two ways to write an overlay, in turns."""
    base = bench.machine.path
    for number in range(ROUNDS):
        ours, theirs = bench.directory / f"ours-{number}", bench.directory / f"theirs-{number}"
        begun = time.perf_counter()
        qcow2.write_overlay(ours, backing=base, backing_format=ImageFormat.RAW, size=20 << 30, sync=False)
        times["overlay, in this process"].append((time.perf_counter() - begun) * 1000)
        create: list[str | Path] = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", theirs, "20G"]
        times["overlay, by qemu-img"].append(await clock(process.run(create)))


async def drives(bench: Bench, times: Times) -> None:
    order = bench.order()
    guest = await tell(order, (a_lease(order),))
    for number in range(ROUNDS):
        for content in Content:
            for file_system in FileSystem:
                maker = ConfigDrives(content, file_system, rng=SystemRandom())
                path = bench.directory / f"{content}-{file_system}-{number}"
                times[f"config drive, {content}, {file_system}"].append(await clock(maker.write(path, guest)))


async def measure(times: Times) -> None:
    with tempfile.TemporaryDirectory(prefix="launcher-bench-", dir="/var/tmp") as made:
        bench = Bench(Path(made))
        await overlays(bench, times)
        for way in (Injection.STORAGE_DAEMON, Injection.NBD, Injection.METADATA, Injection.CONFIG_DRIVE):
            try:
                async with bench.store(way) as store:
                    await bench.launches(store, f"qcow2, {way}", times)
            except DriverError as error:
                print(f"{way}: not on this host: {error.message}")
        async with bench.store(Injection.STORAGE_DAEMON, format=ImageFormat.RAW) as store:
            await bench.launches(store, "raw, storage-daemon", times)
        async with bench.store(Injection.METADATA) as store:
            more = TINY.model_copy(update={"ephemeral_gb": 20, "swap_mb": 1024})
            await bench.launches(store, "qcow2 with ephemeral and swap, metadata", times, more)
        await drives(bench, times)
        await snapshots(bench, times)


async def snapshots(bench: Bench, times: Times) -> None:
    """A copy of a root disk that no machine writes to, on its way to the vault; the gate is the controller's."""
    vault = LocalVault(bench.directory / "vault")
    await vault.start()
    async with bench.store(Injection.METADATA, vault=bench.directory / "vault") as store:
        order = bench.order()
        await store.create_disks(order)
        for number in range(SNAPSHOTS):
            ticket = Ticket(image_id=str(number), most=2**40, path=vault.arrival(str(number)))
            times["snapshot, copied and hashed"].append(await clock(store.save_image(order, ticket, None)))
            await vault.discard(str(number))


def main() -> None:
    if os.environ.get(INSIDE) != "1":
        os.execv(sys.executable, [sys.executable, "-m", "launcher.sandbox", sys.executable, "-m", "bench.disks"])
    times: Times = defaultdict(list)
    asyncio.run(measure(times))
    tables.show("milliseconds", times)
    imported = asyncio.run(imports.measure())
    tables.show("an image of 500 MB, MB/s", imported)
    median = {name: statistics.median(samples) for name, samples in times.items()}
    way = f"qcow2, {Injection.STORAGE_DAEMON}"
    tables.finish(
        "disks",
        overlay_ms=median[f"disks, {way}"],
        inject_ms=median[f"injection, {way}"],
        overlay_and_key_ms=median[f"both, {way}"],
        snapshot_ms=median["snapshot, copied and hashed"],
        import_ratio=imports.ratio(imported),
    )


if __name__ == "__main__":
    main()
