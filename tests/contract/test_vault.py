"""What every vault does; then what only files can get wrong."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from random import Random

import pytest

from launcher.drivers.images.fake_vault import FakeVault
from launcher.drivers.images.local_vault import LocalVault
from launcher.drivers.images.vault import Vault
from launcher.errors import BadImage
from launcher.images import Received, Stored
from launcher.models import ImageFormat, ImageKind

CONTENT = Random(1).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(params=["fake", "local"])
async def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Vault:
    made: Vault = FakeVault() if request.param == "fake" else LocalVault(tmp_path / "vault")
    await made.start()
    return made


async def bring(vault: Vault, name: str = "a", content: bytes = CONTENT, *, sha512: bool = True) -> Received:
    arrival = await vault.open_arrival(name, resume=False, sha512=sha512)
    for at in range(0, len(content), 700_000):
        await arrival.append(content[at : at + 700_000])
    received = await arrival.finish()
    await arrival.close()
    return received


async def admit(vault: Vault, received: Received, name: str = "a", most: int = 2**30) -> Stored:
    return await vault.admit(name, received, kind=ImageKind.MACHINE, declared=None, most=most)


async def test_bytes_come_get_a_name_and_go(vault: Vault) -> None:
    received = await bring(vault)
    assert (received.size, received.sha256) == (len(CONTENT), SHA256)
    assert received.fits(f"sha512:{hashlib.sha512(CONTENT).hexdigest()}")
    assert (await vault.list_arrivals(), await vault.list_contents()) == (["a"], [])
    stored = await admit(vault, received)
    assert stored == await admit(vault, received)
    assert (stored.size, stored.virtual_size, stored.path) == (len(CONTENT), len(CONTENT), vault.path(SHA256))
    for _ in range(2):
        await vault.discard("a")
    assert (await vault.list_arrivals(), await vault.list_contents()) == ([], [SHA256])
    found = await vault.find(SHA256)
    assert found is not None
    assert (found.size, found.sha256) == (len(CONTENT), SHA256)
    assert await admit(vault, found) == stored
    for _ in range(2):
        await vault.delete(SHA256)
    assert (await vault.list_contents(), await vault.find(SHA256)) == ([], None)


async def test_what_has_come_is_taken_up_by_the_next(vault: Vault) -> None:
    arrival = await vault.open_arrival("a", resume=False)
    await arrival.append(CONTENT[:1_200_000])
    await arrival.close()
    arrival = await vault.open_arrival("a", resume=True)
    assert arrival.size == 1_200_000
    assert await vault.last_change_ms("nothing") is None
    assert abs((await vault.last_change_ms("a") or 0) - time.time() * 1000) < 60_000
    await arrival.append(CONTENT[1_200_000:])
    assert (await arrival.finish()).sha256 == SHA256
    await arrival.close()


async def test_a_fresh_start_forgets_what_has_come(vault: Vault) -> None:
    arrival = await vault.open_arrival("a", resume=False)
    await arrival.append(b"x" * 2_000_000)
    await arrival.restart()
    await arrival.append(CONTENT)
    assert (arrival.size, (await arrival.finish()).sha256) == (len(CONTENT), SHA256)
    await arrival.close()
    arrival = await vault.open_arrival("a", resume=False)
    assert arrival.size == 0
    await arrival.close()


async def test_more_than_the_limit_is_not_admitted(vault: Vault) -> None:
    received = await bring(vault)
    with pytest.raises(BadImage, match=str(len(CONTENT) - 1)):
        await admit(vault, received, most=len(CONTENT) - 1)
    assert await vault.list_contents() == []


async def test_what_is_not_declared_is_not_admitted(vault: Vault) -> None:
    received = await bring(vault)
    with pytest.raises(BadImage):
        await vault.admit("a", received, kind=ImageKind.MACHINE, declared=ImageFormat.QCOW2, most=2**30)


async def test_nobody_else_may_look_into_the_directory(tmp_path: Path) -> None:
    vault = LocalVault(tmp_path / "vault")
    await vault.start()
    stored = await admit(vault, await bring(vault))
    assert (tmp_path / "vault").stat().st_mode & 0o077 == 0
    assert stored.path.stat().st_mode & 0o777 == 0o444
