"""Does KVM run a real kernel here?

/dev/kvm being there proves nothing: on some nested machines a boot sector runs under it while every ordinary
kernel hangs without a word. So only a kernel's first line on the console counts, and the answer is remembered.
"""

from __future__ import annotations

import asyncio
import os
import platform
from pathlib import Path

from launcher.drivers import process
from launcher.models import Model

DEVICE = Path("/dev/kvm")
EMULATOR = f"qemu-system-{platform.machine()}"
FIRST_LINE = b"Linux version"
PATIENCE = 5.0
"""Seconds until the first line; on hardware it comes within half of one."""
MEMORY_FILE = "kvm-verdict.json"


class Verdict(Model):
    """`final` is False when nothing was proven and the next start should ask again."""

    virt_type: str
    reason: str
    final: bool = True


class _Remembered(Model):
    """A verdict and the circumstances it was found under; under others it is asked again."""

    circumstances: dict[str, str]
    verdict: Verdict


async def choose_virt_type(
    *,
    state_dir: Path,
    kernel: Path | None,
    device: Path = DEVICE,
    emulator: str | Path = EMULATOR,
    patience: float = PATIENCE,
) -> Verdict:
    """kvm where `kernel` (a bzImage or an ELF file) prints its first line under it, qemu with the reason elsewhere.

    The trial's result is kept in `state_dir`, where `launcher doctor` finds it; delete the file kvm-verdict.json to
    have it tried again.
    Raises HostResourceMissing without QEMU.
    """
    if lack := _lack(device):
        return Verdict(virt_type="qemu", reason=lack)
    if kernel is None:
        return Verdict(virt_type="qemu", reason=f"{device} is there, but there is no kernel to prove it with")
    circumstances = await _circumstances(emulator)
    memory = state_dir / MEMORY_FILE
    remembered = await asyncio.to_thread(_recall, memory)
    if remembered is not None and remembered.circumstances == circumstances and remembered.verdict.final:
        return remembered.verdict
    verdict = await _try(kernel, emulator, patience)
    await asyncio.to_thread(_keep, memory, _Remembered(circumstances=circumstances, verdict=verdict))
    return verdict


def _lack(device: Path) -> str:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"there is no {device}"
    except OSError as error:
        return f"{device} cannot be opened: {error.strerror}"
    return ""


async def _circumstances(emulator: str | Path) -> dict[str, str]:
    version = await process.run([emulator, "--version"])
    return {
        "kernel": platform.release(),
        "processor": await asyncio.to_thread(_processor),
        "emulator": version.partition("\n")[0],
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


async def _try(kernel: Path, emulator: str | Path, patience: float) -> Verdict:
    """The processor is the one that guests get under KVM (`host-passthrough`), for QEMU may give up on that alone."""
    argv = [emulator, "-no-user-config", "-nodefaults", "-accel", "kvm", "-cpu", "host", "-m", "128", "-no-reboot"]
    argv += ["-display", "none", "-monitor", "none", "-serial", "stdio"]
    argv += ["-kernel", kernel, "-append", "console=ttyS0 earlyprintk=serial"]
    async with process.spawn(argv, stdout=asyncio.subprocess.PIPE) as guest:
        assert guest.stdout is not None
        assert guest.stderr is not None
        try:
            async with asyncio.timeout(patience):
                if await _speaks(guest.stdout):
                    return Verdict(virt_type="kvm", reason="a kernel printed its first line under KVM")
                words = (await guest.stderr.read()).decode(errors="replace").strip()
        except TimeoutError:
            return Verdict(virt_type="qemu", reason=f"a kernel printed nothing under KVM in {patience:g} s")
    first_line = words.partition("\n")[0] or "it said nothing"
    return Verdict(virt_type="qemu", reason=f"QEMU gave up under KVM: {first_line}", final=False)


async def _speaks(console: asyncio.StreamReader) -> bool:
    """Whether the first line comes before the end of the output."""
    seen = b""
    while FIRST_LINE not in seen:
        piece = await console.read(4096)
        if not piece:
            return False
        seen += piece
    return True


def _recall(memory: Path) -> _Remembered | None:
    try:
        return _Remembered.model_validate_json(memory.read_bytes())
    except (OSError, ValueError):
        return None


def _keep(memory: Path, remembered: _Remembered) -> None:
    """Renamed into place, so that a reader never sees half of it."""
    memory.parent.mkdir(parents=True, exist_ok=True)
    fresh = memory.with_suffix(".new")
    fresh.write_text(remembered.model_dump_json(indent=2) + "\n")
    fresh.replace(memory)
