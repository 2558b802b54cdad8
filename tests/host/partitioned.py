"""A disk as distributors make them: a table of partitions, a boot loader for BIOS and one for UEFI, a root of its own.

1  FAT, 48 MiB: syslinux with kernel and ramdisk for a BIOS; EFI/BOOT/BOOTX64.EFI, both in one file with
   systemd's stub, for UEFI
2  ami-tiny's root file system
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from launcher.drivers.images.library import read_image
from launcher.drivers.images.tiny import Entry
from launcher.models import ImageKind

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / ".cache/cache/linux-image-cloud-amd64/vmlinuz"
STUB = ROOT / ".cache/systemd-boot/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")
COMMAND_LINE = "console=ttyS0 quiet cryptomgr.notests acpi=noirq"
SECTOR, BOOT_AT, BOOT_SIZE, ROOT_SIZE = 512, 2048, 48 * 2048, 16 * 2048  # in sectors but the first
SYSLINUX = f"DEFAULT linux\nLABEL linux\n  LINUX vmlinuz\n  INITRD initrd\n  APPEND {COMMAND_LINE}\n"
_SECTIONS = {".cmdline": 0x30000, ".linux": 0x2000000, ".initrd": 0x3000000}
"""Where systemd-stub 252 expects them to be free."""


def missing() -> list[str]:
    return [str(path) for path in (KERNEL, STUB, MBR) if not path.exists()]


def make_disk(library: Path, made: Path) -> Path:
    """`library` has ami-tiny; `made` is an empty directory."""
    tiny = {image.kind: image.path for image in read_image(library, "ami-tiny")}
    initrd, disk = made / "initrd", made / "disk"
    initrd.write_bytes(tiny[ImageKind.RAMDISK].read_bytes() + _other_init())
    (made / "vmlinuz").write_bytes(KERNEL.read_bytes())
    (made / "syslinux.cfg").write_text(SYSLINUX)
    _make_uefi(made)
    with disk.open("wb") as file:
        file.truncate((BOOT_AT + BOOT_SIZE + ROOT_SIZE) * SECTOR)
    table = f"label: dos\nstart={BOOT_AT}, size={BOOT_SIZE}, type=ef, bootable\nsize={ROOT_SIZE}, type=83\n"
    run("sfdisk", "-q", disk, text=table)
    with disk.open("r+b") as file:
        file.write(MBR.read_bytes())
        file.seek((BOOT_AT + BOOT_SIZE) * SECTOR)
        file.write(tiny[ImageKind.MACHINE].read_bytes())
    part = f"{disk}@@{BOOT_AT * SECTOR}"
    run("mformat", "-i", part, "-T", str(BOOT_SIZE), "-h", "64", "-s", "32", "-H", str(BOOT_AT), "-v", "ESP", "::")
    run("mmd", "-i", part, "::EFI", "::EFI/BOOT")
    run("mcopy", "-i", part, made / "uefi", "::EFI/BOOT/BOOTX64.EFI")
    run("mcopy", "-i", part, *(made / name for name in ("vmlinuz", "initrd", "syslinux.cfg")), "::")
    run("syslinux", "--install", "--offset", str(BOOT_AT * SECTOR), disk)
    return disk


def _other_init() -> bytes:
    """A second archive behind the first: its init looks for the root on the second partition."""
    text = (ROOT / "src/launcher/drivers/images/tiny/ramdisk/init").read_text().replace("/dev/vda", "/dev/vda2")
    return Entry("init", 0o100755, text.encode()).packed() + Entry("TRAILER!!!", 0).packed()


def _make_uefi(made: Path) -> None:
    (made / "cmdline").write_text(COMMAND_LINE)
    files = {".cmdline": made / "cmdline", ".linux": made / "vmlinuz", ".initrd": made / "initrd"}
    sections = [
        word
        for name, path in files.items()
        for word in ("--add-section", f"{name}={path}", "--change-section-vma", f"{name}={_SECTIONS[name]:#x}")
    ]
    run("objcopy", *sections, STUB, made / "uefi")


def run(*words: str | Path, text: str = "") -> None:
    subprocess.run(words, check=True, capture_output=True, input=text, text=True)
