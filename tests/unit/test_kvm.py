"""The choice between KVM and TCG, with stand-ins for QEMU."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.drivers.virt.kvm import Verdict, choose_virt_type
from launcher.errors import HostResourceMissing

SPEAKS = 'echo "[    0.000000] Linux version 6.1.0"; exec sleep 60'
SILENT = "exec sleep 60"
BABBLES = 'echo "SeaBIOS (version 1.16)"; exec sleep 60'
GIVES_UP = 'echo "Could not access KVM kernel module" >&2; exit 1'


class Host:
    """A state directory, a device that opens, a kernel, and an emulator whose behaviour is chosen."""

    def __init__(self, path: Path) -> None:
        self.state_dir = path / "state"
        self.device = path / "kvm"
        self.kernel: Path | None = path / "kernel"
        self.emulator = path / "qemu"
        self.trials = path / "trials"
        self.device.touch()

    def install(self, behaviour: str, version: str = "7.2") -> None:
        count = f'if [ "$1" = --version ]; then echo "QEMU {version}"; exit; fi\necho x >> {self.trials}\n'
        self.emulator.write_text(f"#!/bin/sh\n{count}{behaviour}\n")
        self.emulator.chmod(0o755)

    async def choose(self, patience: float = 5.0) -> Verdict:
        return await choose_virt_type(
            state_dir=self.state_dir,
            kernel=self.kernel,
            device=self.device,
            emulator=self.emulator,
            patience=patience,
        )

    def trial_count(self) -> int:
        return len(self.trials.read_text().split()) if self.trials.exists() else 0


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


async def test_a_kernels_first_line_proves_kvm(host: Host) -> None:
    host.install(SPEAKS)
    assert (await host.choose()).virt_type == "kvm"


@pytest.mark.parametrize("behaviour", [SILENT, BABBLES])
async def test_without_the_first_line_it_is_qemu(host: Host, behaviour: str) -> None:
    host.install(behaviour)
    verdict = await host.choose(patience=0.3)
    assert verdict == Verdict(virt_type="qemu", reason="a kernel printed nothing under KVM in 0.3 s")


async def test_the_verdict_is_remembered(host: Host) -> None:
    host.install(SILENT)
    first = await host.choose(patience=0.3)
    host.install(SPEAKS)
    assert await host.choose() == first
    assert host.trial_count() == 1


async def test_another_qemu_is_asked_again(host: Host) -> None:
    host.install(SILENT)
    await host.choose(patience=0.3)
    host.install(SPEAKS, version="8.0")
    assert (await host.choose()).virt_type == "kvm"


async def test_a_spoilt_memory_is_no_memory(host: Host) -> None:
    host.install(SPEAKS)
    await host.choose()
    (host.state_dir / "kvm-verdict.json").write_text('{"circum')
    assert (await host.choose()).virt_type == "kvm"
    assert host.trial_count() == 2


async def test_a_qemu_that_gives_up_is_quoted_and_asked_again_next_time(host: Host) -> None:
    host.install(GIVES_UP)
    verdict = await host.choose()
    assert (verdict.virt_type, verdict.reason) == (
        "qemu",
        "QEMU gave up under KVM: Could not access KVM kernel module",
    )
    await host.choose()
    assert host.trial_count() == 2


async def test_without_the_device_nothing_is_started(host: Host) -> None:
    host.install(SPEAKS)
    host.device.unlink()
    assert await host.choose() == Verdict(virt_type="qemu", reason=f"there is no {host.device}")
    assert host.trial_count() == 0


async def test_a_device_that_cannot_be_opened_says_why(host: Host) -> None:
    host.install(SPEAKS)
    host.device.unlink()
    host.device.mkdir()
    assert await host.choose() == Verdict(virt_type="qemu", reason=f"{host.device} cannot be opened: Is a directory")


async def test_without_a_kernel_there_is_no_proof(host: Host) -> None:
    host.install(SPEAKS)
    host.kernel = None
    verdict = await host.choose()
    assert (verdict.virt_type, host.trial_count()) == ("qemu", 0)
    assert "no kernel to prove it with" in verdict.reason


async def test_without_qemu_the_error_names_it(host: Host) -> None:
    with pytest.raises(HostResourceMissing, match=str(host.emulator)):
        await host.choose()
