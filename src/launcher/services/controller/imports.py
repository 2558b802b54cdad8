"""Downloads of images, each in a task of its own, from the row that asks for it to the row that is active.

The row is the truth: a row that is importing and has no task gets one, at the start and whenever a look finds it. Rows
that want the same bytes from the same place share one download. An upload's bytes come by the API server; here is
what happens to them then.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from launcher.auditing import ArtefactKind, Finding, Trouble
from launcher.clock import Clock
from launcher.db import images
from launcher.db.database import Database
from launcher.drivers.images.vault import Downloads, Vault
from launcher.errors import BadImage, DownloadFailed, LauncherError, StoreUnavailable
from launcher.failpoints import failpoint
from launcher.images import LIBRARY, CatalogueImage, ImageState, Progress, Received

AT_ONCE = 4
UPLOAD_PATIENCE_MS = 10 * 60 * 1000

log = logging.getLogger(__name__)


@dataclass
class Shared:
    """One download and who waits for it."""

    task: asyncio.Task[Received]
    waiting: set[str] = field(default_factory=set)


class Imports:
    """`most` is the largest image in bytes. `limit` downloads go on at a time; the others wait in order."""

    def __init__(self, *, db: Database, clock: Clock, vault: Vault, downloads: Downloads, most: int) -> None:
        self.db, self.clock, self.vault, self.downloads, self.most = db, clock, vault, downloads, most
        self.jobs: dict[str, asyncio.Task[None]] = {}
        self.shared: dict[str, Shared] = {}
        self.progress: dict[str, Progress] = {}
        self.limit, self.admission = asyncio.Semaphore(AT_ONCE), asyncio.Lock()

    async def start(self) -> None:
        await self.vault.start()

    async def recover(self) -> None:
        """Downloads go on; who was uploading to the last process has been cut off."""
        for image in await self._uploads():
            await self.fail(image.id, ImageState.SAVING, "the upload was cut off: the server ended")
        await self.tend()

    async def stop(self) -> None:
        """What has come stays for the next process."""
        tasks = [*self.jobs.values(), *(shared.task for shared in self.shared.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self, image: CatalogueImage) -> None:
        """Once for each image."""
        if image.id not in self.jobs:
            task = self.jobs[image.id] = asyncio.ensure_future(self._import(image))
            task.add_done_callback(lambda _: self.jobs.pop(image.id, None))

    async def cancel(self, image_id: str) -> None:
        """Of an image that is not wanted any more; others that wait for the same bytes get them."""
        if task := self.jobs.get(image_id):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def progress_of(self, image: CatalogueImage) -> CatalogueImage:
        """The image with how far it is."""
        found = self.progress.get(arrival_name(image)) if image.state is ImageState.IMPORTING else None
        return image.model_copy(update={"progress": found}) if found else image

    async def admit(self, image: CatalogueImage, name: str, received: Received) -> CatalogueImage | None:
        """From bytes to an image that can be used; None when it has moved on meanwhile. Raises BadImage."""
        if image.checksum and not received.fits(image.checksum):
            raise BadImage(
                f"the {received.size} bytes that came have the checksum {received.like(image.checksum)},"
                f" not {image.checksum}",
                hint="the file is damaged, or is not the one that was meant",
            )
        async with self.admission:
            stored = await self.vault.admit(name, received, kind=image.kind, declared=image.format, most=self.most)
            changes = {**dict(stored), "state": ImageState.ACTIVE, "reason": ""}
            async with failpoint("image.active"):
                return await self._change(image.id, image.state, **changes)

    async def fail(self, image_id: str, state: ImageState, reason: str) -> CatalogueImage | None:
        log.warning("image %s: %s", image_id, reason)
        return await self._change(image_id, state, state=ImageState.ERROR, reason=reason)

    async def tend(self) -> None:
        """Begin what waits, end what nobody goes on with, and remove bytes that no image and no instance needs."""
        for image in await self.db.read(lambda db: images.list_in(db, ImageState.IMPORTING)):
            self.begin(image)
        oldest = self.clock.now_ms() - UPLOAD_PATIENCE_MS
        for image in await self._uploads():
            if max(image.updated_ms, await self.vault.last_change_ms(image.id) or 0) < oldest:
                await self.fail(image.id, ImageState.SAVING, "nothing of the upload came for ten minutes")
        await self.sweep()

    async def _uploads(self) -> list[CatalogueImage]:
        """Under way from clients; what comes of an instance is its host's work, which is asked for again."""
        saving = await self.db.read(lambda db: images.list_in(db, ImageState.SAVING))
        return [image for image in saving if not image.of_instance]

    async def sweep(self, *, unknown: bool = False) -> None:
        """What is in the vault of a database that never had an image is removed only with `unknown`: it was lost."""
        async with self.admission:
            if not unknown and await self.db.read(images.is_empty):
                return
            contents, arrivals = await self._unneeded()
            for sha256 in contents:
                log.info("the image content %s is needed by nobody any more", sha256)
                await self.vault.delete(sha256)
            for name in arrivals:
                await self.vault.discard(name)

    async def look(self) -> Sequence[Finding]:
        """What is in the vault and should not be, and what an image misses there."""
        async with self.admission:
            contents, arrivals = await self._unneeded()
            present, lost = set(await self.vault.list_contents()), await self.db.read(images.is_empty)
            active = await self.db.read(lambda db: images.list_in(db, ImageState.ACTIVE))
        trouble = Trouble.UNKNOWN if lost else Trouble.OWNERLESS
        missing = {image.sha256: image.name for image in active if image.source != LIBRARY}
        return [
            *(_finding(trouble, name, "no image and no instance needs it") for name in contents),
            *(_finding(trouble, name, "what came of an import that is over") for name in arrivals),
            *(
                _finding(Trouble.MISSING, sha256 or "", f"the bytes of the image {name}")
                for sha256, name in missing.items()
                if sha256 not in present
            ),
        ]

    async def _unneeded(self) -> tuple[list[str], list[str]]:
        """Contents and arrivals, as things stand while nothing is being admitted."""
        needed = await self.db.read(images.list_needed)
        waited = await self.db.read(lambda db: images.list_in(db, ImageState.IMPORTING, ImageState.SAVING))
        expected = {arrival_name(image) for image in waited} | self.shared.keys()
        contents = [sha256 for sha256 in await self.vault.list_contents() if sha256 not in needed]
        return contents, [name for name in await self.vault.list_arrivals() if name not in expected]

    # --- one download ------------------------------------------------------------------------------

    async def _import(self, image: CatalogueImage) -> None:
        """Ends in `active` or in `error`; a crash, a full database and the end of the process leave it importing."""
        try:
            if image.verify and image.checksum is None:
                image = await self._find_checksum(image)
            await self.admit(image, arrival_name(image), await self._received(image))
        except StoreUnavailable as error:
            log.warning("image %s: not now: %s", image.name, error)
        except Exception as error:
            named = LauncherError.named(error)
            if named is None:
                log.exception("image %s: the import failed", image.name)
            reason = f"{named.message}; {named.hint}".rstrip("; ") if named else "unexpected; see the server's log"
            await self.fail(image.id, ImageState.IMPORTING, reason)
        finally:
            await self._leave(image)

    async def _find_checksum(self, image: CatalogueImage) -> CatalogueImage:
        """Written down before the first byte: what comes after a restart is held against the same."""
        found = await self.downloads.find_checksum(image.source, image.checksum_source)
        if found is None:
            where = image.checksum_source or "the usual places beside it"
            raise DownloadFailed(
                f"no checksum of {image.source} was found in {where}",
                hint="give one (--checksum sha256:…), or say that it need not have any (--no-verify)",
            )
        changed = await self._change(image.id, ImageState.IMPORTING, checksum=found[0], checksum_source=found[1])
        if changed is None:
            raise DownloadFailed("it was deleted")
        return changed

    async def _received(self, image: CatalogueImage) -> Received:
        """Those of a download that all who want them share. Nothing is awaited before it is known who downloads."""
        name = arrival_name(image)
        shared = self.shared.get(name)
        if shared is None:
            shared = self.shared[name] = Shared(asyncio.ensure_future(self._download(image, name)))
        shared.waiting.add(image.id)
        return await asyncio.shield(shared.task)

    async def _leave(self, image: CatalogueImage) -> None:
        """The last to go ends a download that nobody waits for, and removes what is not needed any more."""
        name = arrival_name(image)
        if (shared := self.shared.get(name)) is not None:
            shared.waiting.discard(image.id)
            if shared.waiting:
                return
            shared.task.cancel()
            await asyncio.gather(shared.task, return_exceptions=True)
            del self.shared[name]
            self.progress.pop(name, None)
        with contextlib.suppress(LauncherError):  # the next look does it
            await self.sweep()

    async def _download(self, image: CatalogueImage, name: str) -> Received:
        """What is there need not come. A damaged whole does so twice: its first part may be an earlier process's."""
        checksum = image.checksum or ""
        if checksum.startswith("sha256:") and (found := await self.vault.find(checksum.partition(":")[2])):
            return found
        async with self.limit:
            known = bool(image.checksum)
            for resume in (known, False):
                received = await self._fetch(image, name, resume=resume)
                if not known or received.fits(image.checksum or "") or not resume:
                    break
            return received

    async def _fetch(self, image: CatalogueImage, name: str, *, resume: bool) -> Received:
        def tell(progress: Progress) -> None:
            self.progress[name] = progress

        sha512 = (image.checksum or "").startswith("sha512:")
        arrival = await self.vault.open_arrival(name, resume=resume, sha512=sha512)
        try:
            await self.downloads.fetch(image.source, arrival, most=self.most, tell=tell)
            return await arrival.finish()
        finally:
            await arrival.close()

    async def _change(self, image_id: str, expected: ImageState, **changes: Any) -> CatalogueImage | None:
        now = self.clock.now_ms()
        return await self.db.write(lambda db: images.change(db, image_id, {expected}, now, **changes))


def _finding(trouble: Trouble, name: str, reason: str) -> Finding:
    return Finding(trouble=trouble, kind=ArtefactKind.IMAGE, name=name, host=None, reason=reason)


def arrival_name(image: CatalogueImage) -> str:
    """The same for all that want the same bytes from the same place; an upload's is its own."""
    if image.state is ImageState.SAVING:
        return image.id
    wanted = f"{image.source}\0{image.checksum}\0{image.checksum_source}\0{image.verify}"
    return hashlib.sha256(wanted.encode()).hexdigest()[:32]
