"""A host's copies of images: one file per content, checked before it gets its name, kept until nobody needs it.

    <path>/_base/<sha256>                          the file; overlays stand on it, domains boot from it
    <path>/instance-%08x/{base, kernel, ramdisk}   symbolic links to the files that an instance needs

The links are the reference counts: they come and go with the instance's directory, so no crash can leave one wrong.
What no link names and no launch is about to use may go: the longest unused first, when the host has more than
`limit` bytes of its own copies, and all of it by `prune`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from launcher.drivers.images import gate, qcow2
from launcher.drivers.images.files import in_thread, sync_file
from launcher.drivers.images.library import sha256_of, sync_directory
from launcher.drivers.images.local_vault import LocalArrival
from launcher.drivers.images.space import Space
from launcher.drivers.images.vault import Downloads
from launcher.errors import BadImage, HostResourceMissing
from launcher.failpoints import failpoint
from launcher.images import Progress, Ticket
from launcher.models import Image, LaunchOrder

LINKS = ("base", "kernel", "ramdisk")


class BaseCache:
    """Images are taken from the directories `sources` only; `limit` in bytes, None for no limit.

    A copy for which there is no `space` is refused.
    """

    def __init__(
        self,
        path: Path,
        *,
        work: Path,
        sources: Sequence[Path],
        space: Space,
        limit: int | None = None,
        downloads: Downloads | None = None,
    ) -> None:
        self.path, self.instances, self.work, self.downloads = path, path.parent, work, downloads
        self.sources, self.space, self.limit = sources, space, limit
        self._known: set[str] = set()
        self._wanted: Counter[str] = Counter()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @contextlib.asynccontextmanager
    async def holding(self, order: LaunchOrder) -> AsyncIterator[None]:
        """The order's files are here, and stay at least until the block ends; each is taken in once for all who wait.

        Raises BadImage, InsufficientSpace (with the numbers), HostResourceMissing.
        """
        images = images_of(order)
        self._wanted.update(image.sha256 for image in images)
        try:
            for image in images:
                async with self._locks[image.sha256]:
                    await self._have(order, image)
            yield
        finally:
            self._wanted.subtract(image.sha256 for image in images)
            self._wanted += Counter()  # forgets what nobody wants

    async def _have(self, order: LaunchOrder, image: Image) -> None:
        if image.sha256 in self._known:
            return
        await in_thread(self._take_in, order, image)
        self._known.add(image.sha256)
        if self.limit is not None:
            await self.prune(keep=self.limit)

    async def list_missing(self, order: LaunchOrder) -> Sequence[Image]:
        """What is neither here nor in a directory of images of this host."""
        wanted = [image for image in images_of(order) if image.sha256 not in self._known]
        return await in_thread(lambda: [image for image in wanted if not self._is_near(image)])

    async def fetch(self, order: LaunchOrder, image: Image, ticket: Ticket) -> None:
        """From the controller's host, once for all who wait. Raises what `holding` raises, and DownloadFailed."""
        if not ticket.url or self.downloads is None:
            raise HostResourceMissing(
                f"image {image.name}: {image.path} does not exist on this host",
                hint="the controller gives it to other hosts when [images] listen is set there",
            )
        async with self._locks[image.sha256]:
            if image.sha256 in self._known or await in_thread((self.path / image.sha256).exists):
                return
            with self.space.promised(order.name, image.size):
                await self._fetch(self.downloads, image, ticket)
            self._known.add(image.sha256)

    async def _fetch(self, downloads: Downloads, image: Image, ticket: Ticket) -> None:
        arrival = LocalArrival(self.work / image.sha256, sha512=False)
        try:
            await downloads.fetch(ticket.url, arrival, most=image.size, tell=_say_nothing, token=ticket.token)
            await arrival.finish()
            await in_thread(self._admit, self.work / image.sha256, image)
        finally:
            await arrival.close()
            await in_thread((self.work / image.sha256).unlink, missing_ok=True)

    async def list_bases(self) -> Sequence[str]:
        return await in_thread(lambda: sorted(base.name for base in self.path.iterdir()))

    async def prune(self, *, keep: int = 0) -> int:
        """Remove unused files, the longest unused first, until all own copies have `keep` bytes. Returns bytes freed.

        A file that is the image library's own, by another name, takes no space of its own and is not counted.
        """
        occupied, unused = await in_thread(self._survey)
        freed = 0
        for name, size in unused:
            if keep and occupied - freed <= keep:
                break
            if not self._wanted[name]:  # whose lock may be the caller's own
                freed += size if await self._remove(name) else 0
        return freed

    async def _remove(self, name: str) -> bool:
        """Unless somebody came to need it since the survey."""
        async with self._locks[name]:
            if self._wanted[name] or name in await in_thread(self.used):
                return False
            await in_thread((self.path / name).unlink, missing_ok=True)
            self._known.discard(name)
            return True

    # --- in a thread ---------------------------------------------------------------------------

    def prepare(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def link(self, order: LaunchOrder, directory: Path) -> None:
        """Write down in an instance's new directory what it needs. The directory is synced by its maker."""
        for name, image in zip(LINKS, (order.image, order.kernel, order.ramdisk), strict=True):
            if image is not None:
                (directory / name).symlink_to(Path("..", self.path.name, image.sha256))

    def check(self, order: LaunchOrder) -> None:
        """Raises HostResourceMissing when a file is not here any more; the next try takes it in again."""
        for image in images_of(order):
            try:
                os.utime(self.path / image.sha256)
            except FileNotFoundError:
                self._known.discard(image.sha256)
                raise HostResourceMissing(
                    f"image {image.name} has vanished from {self.path}", hint="try again: it will be copied again"
                ) from None

    def used(self) -> frozenset[str]:
        """The names of the files that an instance's directory needs: by its links, and by what its disks stand on."""
        found: set[str] = set()
        for entry in (*self.instances.glob("instance-*/*"), *self.instances.glob("instance-*/rescue/*")):
            with contextlib.suppress(OSError, BadImage):
                if entry.is_symlink():
                    found.add(entry.readlink().name)
                elif entry.is_file():
                    found.add(Path(qcow2.read_header(entry).backing_file or "").name)
        return frozenset(found)

    def _survey(self) -> tuple[int, list[tuple[str, int]]]:
        """How many bytes all own copies occupy, and the unused files with theirs, the longest unused first."""
        used, occupied, unused = self.used(), 0, []
        for base in self.path.iterdir():
            status = base.stat()
            size = status.st_blocks * 512 if status.st_nlink == 1 else 0
            occupied += size
            if base.name not in used:
                unused.append((status.st_mtime, base.name, size))
        return occupied, [(name, size) for _, name, size in sorted(unused)]

    def _take_in(self, order: LaunchOrder, image: Image) -> None:
        """Link or copy an image's file to its content's name, unless it is there."""
        base = self.path / image.sha256
        if base.exists():
            return
        source = self._source(image)
        with tempfile.TemporaryDirectory(dir=self.work) as made:
            copy = Path(made) / "image"
            try:
                os.link(source, copy)
            except OSError:  # another file system, or a file of somebody whose files may not be linked
                with self.space.promised(order.name, image.size):
                    _copy_synced(source, copy)
            self._admit(copy, image)

    def _admit(self, copy: Path, image: Image) -> None:
        """The last look before a file gets its name."""
        check_content(copy, image)
        copy.chmod(0o444)
        with failpoint("image.base"):
            copy.rename(self.path / image.sha256)
        sync_directory(self.path)

    def _is_near(self, image: Image) -> bool:
        return (self.path / image.sha256).exists() or (self._within(image) and image.path.is_file())

    def _within(self, image: Image) -> bool:
        source = image.path.resolve()
        return any(source.is_relative_to(directory.resolve()) for directory in self.sources)

    def _source(self, image: Image) -> Path:
        """The image's file, wherever its links lead, as long as that is inside a directory of images."""
        source = image.path.resolve()
        if not self._within(image):
            places = " or ".join(map(str, self.sources))
            raise BadImage(f"image {image.name}: {image.path} is not in the image library {places}")
        if not source.is_file():
            raise HostResourceMissing(
                f"image {image.name}: {image.path} does not exist on this host", hint="see `launcher image list`"
            )
        return source


def _say_nothing(progress: Progress) -> None:
    """A launch's span says how long it takes."""


def images_of(order: LaunchOrder) -> list[Image]:
    return [image for image in (order.image, order.kernel, order.ramdisk) if image is not None]


def check_content(path: Path, image: Image) -> None:
    """Raises BadImage unless the file is, byte for byte and in its format, what the catalogue says."""
    if sha256_of(path) != image.sha256:
        raise BadImage(f"image {image.name}: {image.path} has changed since it was registered", hint="add it again")
    found = gate.inspect(path, image.kind, declared=image.format, name=f"image {image.name}").virtual_size
    if found != image.virtual_size:
        raise BadImage(f"image {image.name}: {found} bytes for the guest, the catalogue says {image.virtual_size}")


def _copy_synced(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o444)
    sync_file(target)
