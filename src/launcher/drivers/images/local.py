"""Instance files on the host's own disk.

    <path>/_base/<sha256>            files of images, once per content, checked before they get their name
    <path>/instance-%08x/disk        qcow2 overlay on the base: all that a guest writes
    <path>/instance-%08x/{instance-id, injection, console.log}
    <path>/_work/                    what is being made or thrown away; emptied at start

Whatever bears its final name is complete: it was made in `_work`, synced and renamed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from launcher.drivers.images import gate, qcow2
from launcher.drivers.images.inject.injector import Injector
from launcher.drivers.images.inject.interfaces import interfaces_text
from launcher.drivers.images.library import sha256_of, sync_directory
from launcher.drivers.images.store import Injection
from launcher.drivers.virt.driver import Disks
from launcher.errors import BadImage, HostResourceMissing, InjectionFailed, InsufficientSpace
from launcher.failpoints import failpoint
from launcher.models import Image, ImageFormat, InstanceId, InstanceRef, LaunchOrder
from launcher.networks import FixedIp

P = ParamSpec("P")
R = TypeVar("R")

MIB, GIB = 2**20, 2**30


class LocalImages:
    """The image store on local files (contract: `store.py`).

    Images are taken from `library` only. A launch that would leave less than `reserve_mb` free for what the
    guests still write is refused.
    """

    def __init__(self, path: Path, *, library: Path, injector: Injector, reserve_mb: int = 512) -> None:
        self.path = path.absolute()
        self.library = library
        self.injector = injector
        self.reserve_mb = reserve_mb
        self._base = self.path / "_base"
        self._work = self.path / "_work"
        self._in_base: set[str] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def start(self) -> None:
        await _in_thread(self._prepare)
        await self.injector.start()

    async def stop(self) -> None:
        await self.injector.stop()

    async def create_disks(self, order: LaunchOrder) -> Disks:
        size = root_size(order)
        for image in _images(order):
            async with self._locks[image.sha256]:
                if image.sha256 not in self._in_base:
                    await _in_thread(self._take_in, order, image)
                    self._in_base.add(image.sha256)
        return await _in_thread(self._create, order, size)

    async def inject(self, order: LaunchOrder, nics: Sequence[FixedIp] = ()) -> Injection:
        interfaces = interfaces_text(nics)
        content = (order.public_key or "") + (interfaces or "")
        if not content:
            return Injection.NONE
        if order.kernel is None:  # a disk with partitions; its guest asks the metadata service
            return Injection.METADATA
        done = await _in_thread(self._find_injection, order, content)
        if done is not None:
            return done
        disk = self._directory(order) / "disk"
        await self.injector.inject(disk, ImageFormat.QCOW2, order.public_key, interfaces)
        await _in_thread(self._record_injection, order, content)
        return self.injector.name

    async def delete_disks(self, order: InstanceRef) -> None:
        await _in_thread(self._delete, order)

    async def read_console(self, order: LaunchOrder, max_bytes: int) -> bytes:
        return await _in_thread(_read_end, self._directory(order) / "console.log", max_bytes)

    async def list_instances(self) -> Sequence[InstanceRef]:
        return await _in_thread(self._list)

    async def list_bases(self) -> Sequence[str]:
        return await _in_thread(lambda: sorted(base.name for base in self._base.iterdir()))

    async def list_exports(self) -> Sequence[str]:
        return await self.injector.list_leftovers()

    async def remove_exports(self) -> None:
        await self.injector.remove_leftovers()

    async def free_mb(self) -> int:
        return await _in_thread(lambda: shutil.disk_usage(self.path).free // MIB)

    # --- in a thread ---------------------------------------------------------------------------

    def _prepare(self) -> None:
        self._base.mkdir(parents=True, exist_ok=True)
        if self._work.exists():
            shutil.rmtree(self._work)
        self._work.mkdir(mode=0o700)

    def _take_in(self, order: LaunchOrder, image: Image) -> None:
        """Link or copy an image's file to its content's name, unless it is there."""
        base = self._base / image.sha256
        if base.exists():
            return
        source = self._source(image)
        with tempfile.TemporaryDirectory(dir=self._work) as made:
            copy = Path(made) / "image"
            try:
                os.link(source, copy)
            except OSError:  # another file system, or a file of somebody whose files may not be linked
                self._check_space(order, image.size)
                _copy_synced(source, copy)
            _check_content(copy, image)
            with failpoint("image.base"):
                copy.rename(base)
        sync_directory(self._base)

    def _source(self, image: Image) -> Path:
        """The image's file, wherever its links lead, as long as that is inside the library."""
        source = image.path.resolve()
        if not source.is_relative_to(self.library.resolve()):
            raise BadImage(f"image {image.name}: {image.path} is not in the image library {self.library}")
        if not source.is_file():
            raise HostResourceMissing(
                f"image {image.name}: {image.path} does not exist on this host", hint="see `launcher image list`"
            )
        return source

    def _check_space(self, order: LaunchOrder, size: int) -> None:
        free, needed = shutil.disk_usage(self.path).free, size + self.reserve_mb * MIB
        if free < needed:
            raise InsufficientSpace(
                f"{order.name}: {_amount(needed)} needed, {_amount(free)} free in {self.path}",
                hint="free space or set [images] path",
            )

    def _create(self, order: LaunchOrder, size: int) -> Disks:
        self._check_bases(order)
        directory = self._directory(order)
        if not self._is_there(order):
            self._check_space(order, 0)
            with tempfile.TemporaryDirectory(dir=self._work) as made:
                new = Path(made) / order.name
                new.mkdir()
                base = self._base / order.image.sha256
                qcow2.write_overlay(new / "disk", backing=base, backing_format=order.image.format, size=size)
                _write_synced(new / "instance-id", order.instance_id)
                sync_directory(new)
                with failpoint("image.disk"):
                    new.rename(directory)
            sync_directory(self.path)
        return Disks(
            root=directory / "disk",
            root_format=ImageFormat.QCOW2,
            kernel=self._base / order.kernel.sha256 if order.kernel else None,
            ramdisk=self._base / order.ramdisk.sha256 if order.ramdisk else None,
            console_log=directory / "console.log",
        )

    def _check_bases(self, order: LaunchOrder) -> None:
        for image in _images(order):
            if not (self._base / image.sha256).exists():
                self._in_base.discard(image.sha256)
                raise HostResourceMissing(
                    f"image {image.name} has vanished from {self._base}", hint="try again: it will be copied again"
                )

    def _find_owner(self, order: InstanceRef) -> InstanceId | None:
        try:
            return (self._directory(order) / "instance-id").read_text()
        except FileNotFoundError:
            return None

    def _is_there(self, order: LaunchOrder) -> bool:
        """Whether the order's directory exists. Raises HostResourceMissing when another instance's is in its place."""
        owner = self._find_owner(order)
        if owner not in (None, order.instance_id):
            raise HostResourceMissing(
                f"{self._directory(order)} belongs to the instance {owner}, not to {order.instance_id}",
                hint="it is left over from another database: remove it",
            )
        return owner is not None

    def _find_injection(self, order: LaunchOrder, content: str) -> Injection | None:
        """How this content got into the disk earlier; then a domain may run from it and it must stay closed."""
        if not self._is_there(order):
            raise InjectionFailed(f"{order.name}: there is no {self._directory(order)}")
        try:
            way, digest = (self._directory(order) / "injection").read_text().split()
        except (FileNotFoundError, ValueError):  # never written, or torn by a power cut: no domain has run since
            return None
        if digest != _digest(content):
            raise InjectionFailed(f"{order.name}: the disk carries another key or address already")
        return Injection(way)

    def _record_injection(self, order: LaunchOrder, content: str) -> None:
        _sync(self._directory(order) / "disk")
        with failpoint("image.key"):
            _write_synced(self._directory(order) / "injection", f"{self.injector.name} {_digest(content)}")

    def _delete(self, order: InstanceRef) -> None:
        if self._find_owner(order) == order.instance_id:
            with tempfile.TemporaryDirectory(dir=self._work) as trash, failpoint("image.trash"):
                self._directory(order).rename(Path(trash) / order.name)

    def _list(self) -> list[InstanceRef]:
        """A directory that somebody else made, or that has just gone, is none of ours."""
        found = []
        for marker in sorted(self.path.glob("instance-*/instance-id")):
            with contextlib.suppress(OSError, ValueError):
                number = int(marker.parent.name.removeprefix("instance-"), 16)
                ref = InstanceRef(instance_id=marker.read_text(), number=number)
                if ref.name == marker.parent.name:
                    found.append(ref)
        return found

    def _directory(self, order: InstanceRef) -> Path:
        return self.path / order.name


def root_size(order: LaunchOrder) -> int:
    """Bytes of the root disk: the flavor's, or with root_gb 0 the image's own. Raises BadImage when it is too big."""
    wanted, needed = order.flavor.root_gb * GIB, order.image.virtual_size
    if wanted and wanted < needed:
        raise BadImage(
            f"{order.name}: image {order.image.name} needs {_amount(needed)} of root disk, "
            f"flavor {order.flavor.name} has {_amount(wanted)}",
            hint="take a bigger flavor",
        )
    return wanted or needed


async def _in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run file work in a thread. A cancelled caller waits for its end, so that nothing moves behind his back."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        work.exception()  # nobody else will ask for it
        raise


def _images(order: LaunchOrder) -> list[Image]:
    return [image for image in (order.image, order.kernel, order.ramdisk) if image is not None]


def _check_content(path: Path, image: Image) -> None:
    """Raises BadImage unless the file is, byte for byte and in its format, what the catalogue says."""
    if sha256_of(path) != image.sha256:
        raise BadImage(f"image {image.name}: {image.path} has changed since it was registered", hint="add it again")
    found = gate.inspect(path, image.kind, declared=image.format, name=f"image {image.name}").virtual_size
    if found != image.virtual_size:
        raise BadImage(f"image {image.name}: {found} bytes for the guest, the catalogue says {image.virtual_size}")


def _copy_synced(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o444)
    _sync(target)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _write_synced(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _read_end(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - max_bytes))
            return file.read(max_bytes)
    except FileNotFoundError:
        return b""


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _amount(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"
