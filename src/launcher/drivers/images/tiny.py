"""Builds `ami-tiny`: a kernel, a ramdisk and a 16 MiB disk that reach sshd in about two seconds.

Made from files of Debian packages: linux-image-cloud-amd64 (downloaded once, never installed), busybox-static
and dropbear-bin. What runs in the guest stands as readable files in `tiny/ramdisk` and `tiny/disk`.
No root is needed and nothing is mounted: `mke2fs -d` fills the disk, a user namespace makes its files root's.
"""

from __future__ import annotations

import asyncio
import gzip
import lzma
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.drivers import process
from launcher.drivers.images.library import add_image
from launcher.errors import BadImage, HostResourceMissing

Say = Callable[[str], None]

KERNEL_PACKAGE = "linux-image-cloud-amd64"
KERNEL_ARGS = "cryptomgr.notests acpi=noirq"
"""No self-tests of ciphers (0.2 s); no look-up of interrupt lines in ACPI's code, which virtio does not use (0.3 s)."""

MIN_MEMORY_MB = 96
DISK_MB = 16

RAMDISK_APPLETS = ("insmod", "mount", "sh", "sleep", "switch_root")
RAMDISK_MODULES = (  # in the order in which they need each other
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio-rng",
)
DISK_MODULES = ("button", "evdev")  # the power button; loaded once somebody can log in

_GUEST_FILES = Path(__file__).with_name("tiny")
_EMPTY_DIRECTORIES = ("dev", "etc/dropbear", "mnt", "proc", "root", "run", "sys", "tmp", "var/log")
_LZ4, _ZSTD = b"\x02\x21\x4c\x18", b"\x28\xb5\x2f\xfd"
_TIME, _UUID = 1_600_000_000, "6c61756e-6368-4572-8000-616d6974696e"  # fixed, not to differ for nothing
_PVH_NOTE = re.compile(rb"\x04\0{3}[\x04\x08]\0{3}\x12\0{3}Xen\0")  # XEN_ELFNOTE_PHYS32_ENTRY: where QEMU enters it


@dataclass(frozen=True)
class Kernel:
    """Debian's cloud kernel: a bzImage, and a directory with its modules somewhere below."""

    vmlinuz: Path
    modules: Path


async def build_tiny(
    library: Path,
    *,
    cache: Path,
    name: str = "ami-tiny",
    kernel: Kernel | None = None,
    say: Say = lambda _: None,
) -> Path:
    """Build the image into the library and return its directory; an older one of that name is replaced.

    Without `kernel`, the one in `cache` is used; only when there is none it is downloaded (27 MB) and kept there.
    `say` is told of each step. Raises HostResourceMissing and ProgramFailed with the program's words.
    """
    kernel = kernel or await _cached_kernel(cache, say)
    with tempfile.TemporaryDirectory(prefix="launcher-tiny-") as made:
        work = Path(made)
        say("unpacking the kernel")
        image = await _unpack_kernel(kernel.vmlinuz, work, say)
        say("making the ramdisk and the disk")
        ramdisk = await asyncio.to_thread(_make_ramdisk, kernel.modules, work / "ramdisk")
        disk = await _make_disk(kernel.modules, work)
        return await asyncio.to_thread(
            lambda: add_image(
                library,
                name,
                disk=disk,
                kernel=image,
                ramdisk=ramdisk,
                min_memory_mb=MIN_MEMORY_MB,
                kernel_args=KERNEL_ARGS,
            )
        )


# --- the kernel ----------------------------------------------------------------------------------


async def _cached_kernel(cache: Path, say: Say) -> Kernel:
    """What an earlier build kept, else the newest package of the host's sources."""
    home = cache / KERNEL_PACKAGE
    kernel = Kernel(home / "vmlinuz", home / "modules")
    if not await asyncio.to_thread(home.is_dir):
        await asyncio.to_thread(cache.mkdir, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as made:
            work = Path(made)
            package = await _download_kernel(work, say)
            say(f"unpacking {package.name}")
            await process.run(["dpkg-deb", "-x", package, work / "tree"], timeout=120)
            await asyncio.to_thread(_keep_needed, work / "tree", work / "kept", home)
    return kernel


async def _download_kernel(target: Path, say: Say) -> Path:
    said = await process.run(["apt-cache", "depends", KERNEL_PACKAGE])
    packages = [word for word in said.split() if word.startswith("linux-image-") and word != KERNEL_PACKAGE]
    if not packages:
        raise HostResourceMissing(
            f"the package sources of this host have no {KERNEL_PACKAGE}",
            hint="run `apt-get update`, or name the files of a Debian cloud kernel",
        )
    say(f"downloading {packages[0]}")
    await process.run(["env", "-C", target, "apt-get", "download", "-q", packages[0]], timeout=600)
    return await asyncio.to_thread(lambda: next(target.glob("*.deb")))


def _keep_needed(tree: Path, kept: Path, home: Path) -> None:
    """Of the package's 110 MB: the kernel and a dozen modules."""
    (kept / "modules").mkdir(parents=True)
    shutil.copyfile(next(tree.glob("boot/vmlinuz-*")), kept / "vmlinuz")
    for name in (*RAMDISK_MODULES, *DISK_MODULES):
        (kept / "modules" / f"{name}.ko").write_bytes(_read_module(tree, name))
    kept.rename(home)


def _read_module(modules: Path, name: str) -> bytes:
    for suffix, unpack in ((".ko", bytes), (".ko.xz", lzma.decompress), (".ko.gz", gzip.decompress)):
        for path in modules.rglob(name + suffix):
            return unpack(path.read_bytes())
    raise HostResourceMissing(f"no module {name} below {modules}", hint="the image needs Debian's cloud kernel")


async def _unpack_kernel(vmlinuz: Path, work: Path, say: Say) -> Path:
    """The ELF kernel inside the bzImage: QEMU enters it directly (PVH), the guest saves 0.3 s of unpacking.

    Where it cannot be had, the bzImage serves as it is.
    """
    payload, elf = work / "payload", work / "kernel"
    magic = await asyncio.to_thread(_cut_payload, vmlinuz, payload)
    unpackers: dict[bytes, list[str | Path]] = {
        _LZ4: ["lz4", "-dqf", payload, elf],
        _ZSTD: ["zstd", "-dqf", payload, "-o", elf],
    }
    try:
        if magic in unpackers:
            await process.run(unpackers[magic])
            if await asyncio.to_thread(lambda: _PVH_NOTE.search(elf.read_bytes())):
                return elf
    except HostResourceMissing as missing:
        say(missing.message)
    say("the guest will unpack its kernel itself, 0.3 s slower")
    return vmlinuz


def _cut_payload(vmlinuz: Path, payload: Path) -> bytes:
    """Write the compressed kernel to a file of its own and return its magic number.

    It lies where the setup header says (the kernel's Documentation/arch/x86/boot.rst, protocol 2.08).
    """
    image = vmlinuz.read_bytes()
    if image[0x202:0x206] != b"HdrS":
        raise BadImage(f"{vmlinuz} is no bzImage", hint="expected a file such as /boot/vmlinuz-…-cloud-amd64")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload.write_bytes(image[start : start + length - 4])  # behind it stand four bytes with the unpacked size
    return image[start : start + 4]


# --- the ramdisk ---------------------------------------------------------------------------------


def _make_ramdisk(modules: Path, target: Path) -> Path:
    """Left uncompressed: the host hands 3 MB over faster than an emulated CPU unpacks them."""
    entries = [Entry(name, 0o040755) for name in ("bin", "dev", "modules", "root")]
    entries.append(Entry("bin/busybox", 0o100755, _static_busybox().read_bytes()))
    entries += [
        Entry(f"bin/{name}", 0o120777, b"busybox") for name in ("sh", "insmod", "mount", "sleep", "switch_root")
    ]
    entries.append(Entry("init", 0o100755, (_GUEST_FILES / "ramdisk" / "init").read_bytes()))
    for number, name in enumerate(RAMDISK_MODULES):
        entries.append(Entry(f"modules/{number:02}-{name}.ko", 0o100644, _read_module(modules, name)))
    target.write_bytes(b"".join(entry.packed() for entry in (*entries, Entry("TRAILER!!!", 0))))
    return target


@dataclass(frozen=True)
class Entry:
    """One file of a cpio archive, format newc (the kernel's driver-api/early-userspace/buffer-format.rst)."""

    name: str
    mode: int
    content: bytes = b""

    def packed(self) -> bytes:
        name = self.name.encode() + b"\0"
        numbers = (0, self.mode, 0, 0, 1, 0, len(self.content), 0, 0, 0, 0, len(name), 0)
        header = b"070701" + b"".join(b"%08x" % number for number in numbers) + name
        return _padded(header) + _padded(self.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _static_busybox() -> Path:
    busybox = _program("busybox")
    if b"/ld-linux" in busybox.read_bytes():
        raise HostResourceMissing(f"{busybox} needs libraries that the ramdisk has not", hint="install busybox-static")
    return busybox


def _program(name: str) -> Path:
    found = shutil.which(name, path=process.ENVIRONMENT["PATH"])
    if found is None:
        raise HostResourceMissing(
            f"the program {name} is not installed", hint="install busybox-static and dropbear-bin"
        )
    return Path(found)


# --- the disk ------------------------------------------------------------------------------------


async def _make_disk(modules: Path, work: Path) -> Path:
    """A plain ext4 without a partition table; no journal, because a guest's crash leaves nothing worth replaying."""
    tree, disk = work / "tree", work / "disk"
    servers = (_program("dropbear"), _program("dropbearkey"))
    applets = (await process.run([_static_busybox(), "--list"])).split()
    libraries = [word for word in (await process.run(["ldd", *servers])).split() if word.startswith("/lib")]
    await asyncio.to_thread(_fill_tree, tree, servers, applets, libraries)
    await asyncio.to_thread(_add_modules, tree / "lib/modules", modules)
    as_root = [] if os.geteuid() == 0 else ["unshare", "-r"]
    features = ["-t", "ext4", "-O", "^has_journal,^metadata_csum,^64bit", "-m", "0", "-L", "ami-tiny"]
    fixed = ["-U", _UUID, "-E", f"root_owner=0:0,lazy_itable_init=0,hash_seed={_UUID}"]
    make: list[str | Path] = [*as_root, "mke2fs", "-q", *features, *fixed, "-d", tree, disk, f"{DISK_MB}M"]
    fixed_time = {**process.ENVIRONMENT, "E2FSPROGS_FAKE_TIME": str(_TIME)}
    await process.run(make, environment=fixed_time)
    await process.run(["debugfs", "-w", "-f", "-", disk], stdin=_set_times(tree), environment=fixed_time)
    return disk


def _set_times(tree: Path) -> str:
    """For debugfs: mke2fs takes the files' times over from the tree, and nobody can set the time of a change there."""
    paths = ["/", *sorted(f"/{path.relative_to(tree)}" for path in tree.rglob("*"))]
    return "".join(f'sif "{path}" {field} @{_TIME}\n' for path in paths for field in ("atime", "mtime", "ctime"))


def _fill_tree(tree: Path, servers: Sequence[Path], applets: Sequence[str], libraries: Sequence[str]) -> None:
    shutil.copytree(_GUEST_FILES / "disk", tree)
    for path in tree.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.read_bytes().startswith(b"#!") else 0o644)
    for directory in _EMPTY_DIRECTORIES:
        (tree / directory).mkdir(parents=True, exist_ok=True)
    (tree / "etc/shadow").chmod(0o600)
    (tree / "root").chmod(0o700)
    (tree / "tmp").chmod(0o1777)
    for source in servers:
        _copy_program(source, tree / "usr/sbin" / source.name)
    for library in libraries:
        _copy_program(Path(library), tree / library.lstrip("/"))
    _copy_program(_static_busybox(), tree / "bin/busybox")
    links = {f"bin/{name}": "busybox" for name in applets if name != "busybox"}
    links |= {"sbin/init": "/bin/busybox", "etc/mtab": "/proc/mounts", "etc/resolv.conf": "/run/resolv.conf"}
    for name, target in links.items():
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).symlink_to(target)


def _copy_program(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)


def _add_modules(target: Path, modules: Path) -> None:
    target.mkdir(parents=True)
    for name in DISK_MODULES:
        (target / f"{name}.ko").write_bytes(_read_module(modules, name))
