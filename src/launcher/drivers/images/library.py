"""The image library: one directory per image, described by its image.json.

    <library>/<name>/{disk, image.json} and, for an image that is booted from outside, {kernel, ramdisk}

An image is written aside, synced and renamed into place, and never changed afterwards. What a description
says of a file is checked again by the host that uses it (`local.py`). All functions here block: call them
in a thread.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from launcher.drivers.images import gate
from launcher.errors import BadImage, NotFound
from launcher.models import LARGEST, Firmware, Image, ImageFormat, ImageKind, Machine, Model, Name

DESCRIPTION = "image.json"
LONGEST_DESCRIPTION = 64 * 1024

log = logging.getLogger(__name__)

_NAME: TypeAdapter[str] = TypeAdapter(Name)


class StoredFile(Model):
    """One file as it was when it entered the library. Sizes in bytes."""

    format: ImageFormat
    size: int = Field(ge=0, le=LARGEST)
    virtual_size: int = Field(ge=0, le=LARGEST)
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Description(Model):
    """The content of image.json."""

    disk: StoredFile
    kernel: StoredFile | None = None
    ramdisk: StoredFile | None = None
    min_memory_mb: int = Field(default=0, ge=0, le=LARGEST)
    kernel_args: str = ""
    firmware: Firmware = Firmware.BIOS
    machine: Machine = Machine.PC


def add_image(
    library: Path,
    name: str,
    *,
    disk: Path,
    kernel: Path | None = None,
    ramdisk: Path | None = None,
    min_memory_mb: int = 0,
    kernel_args: str = "",
    firmware: Firmware = Firmware.BIOS,
    machine: Machine = Machine.PC,
) -> Path:
    """Copy an image's files into the library and return its directory; an image of that name is replaced.

    Machines that run from a replaced image keep their own copy. Raises BadImage for a bad name and for
    what does not pass the gate.
    """
    directory = _directory(library, name)
    library.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".new-", dir=library))
    try:
        description = Description(
            disk=_store(disk, aside / "disk", ImageKind.MACHINE),
            kernel=_store(kernel, aside / "kernel", ImageKind.KERNEL) if kernel else None,
            ramdisk=_store(ramdisk, aside / "ramdisk", ImageKind.RAMDISK) if ramdisk else None,
            min_memory_mb=min_memory_mb,
            kernel_args=kernel_args,
            firmware=firmware,
            machine=machine,
        )
        _write_synced(aside / DESCRIPTION, description.model_dump_json(indent=2) + "\n")
        aside.chmod(0o755)
        sync_directory(aside)
        _put_in_place(aside, directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return directory


def read_image(library: Path, name: str) -> list[Image]:
    """The machine image, then its kernel and ramdisk if it has them. Same content, same ids.

    Raises NotFound, and BadImage when the directory does not hold what its description says.
    """
    directory = _directory(library.resolve(), name)
    found = _read_description(directory)
    kernel = _image(directory / "kernel", ImageKind.KERNEL, found.kernel) if found.kernel else None
    ramdisk = _image(directory / "ramdisk", ImageKind.RAMDISK, found.ramdisk) if found.ramdisk else None
    machine = _image(directory / "disk", ImageKind.MACHINE, found.disk).model_copy(
        update={
            "kernel_id": kernel.id if kernel else None,
            "ramdisk_id": ramdisk.id if ramdisk else None,
            "min_memory_mb": found.min_memory_mb,
            "kernel_args": found.kernel_args,
            "firmware": found.firmware,
            "machine": found.machine,
        }
    )
    machine = machine.model_copy(update={"id": _content_id(machine)})
    return [image for image in (machine, kernel, ramdisk) if image is not None]


def list_images(library: Path) -> list[Image]:
    """All images of the library by name, as `read_image` has them; an absent library is empty.

    A damaged image is left out with a warning: it must not keep the others from being used.
    """
    found: list[Image] = []
    for path in sorted(library.glob(f"[!.]*/{DESCRIPTION}")):
        try:
            found += read_image(library, path.parent.name)
        except (BadImage, NotFound) as error:
            log.warning("%s", error.message)
    return found


def find_kernel(library: Path) -> Path | None:
    """Any kernel of the library, for trying what the host's CPU can do."""
    return next((image.path for image in list_images(library) if image.kind is ImageKind.KERNEL), None)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(path: Path) -> None:
    """Make the names in a directory outlive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _directory(library: Path, name: str) -> Path:
    """Inside the library whatever the name is: no separator and no leading dot passes."""
    try:
        return library / _NAME.validate_python(name)
    except ValidationError:
        raise BadImage(f"{name!r} is no name for an image: letters, digits, blanks and ._:@- only") from None


def _store(source: Path, target: Path, kind: ImageKind) -> StoredFile:
    shutil.copyfile(source, target)
    target.chmod(0o444)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    found = gate.inspect(target, kind, name=source.name)
    return StoredFile(format=found.format, size=found.size, virtual_size=found.virtual_size, sha256=sha256_of(target))


def _put_in_place(aside: Path, directory: Path) -> None:
    """A directory cannot be renamed over a full one, so the old one steps aside into the new one's place."""
    if directory.exists():
        old = Path(tempfile.mkdtemp(prefix=".old-", dir=directory.parent))
        directory.rename(old)
        aside.rename(directory)
        shutil.rmtree(old)
    else:
        aside.rename(directory)
    sync_directory(directory.parent)


def _read_description(directory: Path) -> Description:
    path = directory / DESCRIPTION
    try:
        if directory.is_symlink() or path.is_symlink():
            raise BadImage(f"{directory} leads out of the image library")
        with path.open("rb") as file:
            return Description.model_validate_json(file.read(LONGEST_DESCRIPTION), strict=True)
    except FileNotFoundError:
        raise NotFound(
            f"no image {directory.name!r} in the image library {directory.parent}",
            hint="`launcher image build-tiny` makes ami-tiny",
        ) from None
    except (OSError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else error.errors()[0]["msg"]
        raise BadImage(f"{path}: {why}", hint="add the image again") from None


def _image(path: Path, kind: ImageKind, stored: StoredFile) -> Image:
    """One file as the catalogue knows it. Raises BadImage when the file is not what was stored."""
    try:
        found = path.lstat()
    except OSError:
        found = None
    if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != stored.size:
        raise BadImage(f"{path} is not the file of {stored.size} bytes that was stored", hint="add the image again")
    name = path.parent.name if kind is ImageKind.MACHINE else f"{path.parent.name}-{kind}"
    try:
        image = Image(id="", name=name, kind=kind, path=path, **stored.model_dump())
    except ValidationError as error:
        raise BadImage(f"{path}: {error.errors()[0]['msg']}") from None
    return image.model_copy(update={"id": _content_id(image)})


def _content_id(image: Image) -> str:
    """An id made from all that the image is, so that the same content gets the same id on every host and day."""
    facts = [image.name, image.kind, image.sha256, image.kernel_id, image.ramdisk_id, image.kernel_args]
    facts += [str(image.min_memory_mb)]
    if (image.firmware, image.machine) != (Firmware.BIOS, Machine.PC):
        facts += [image.firmware, image.machine]
    digest = hashlib.sha256("\0".join(str(fact) for fact in facts).encode()).digest()
    return str(UUID(bytes=digest[:16], version=4))


def _write_synced(path: Path, text: str) -> None:
    with path.open("x") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
