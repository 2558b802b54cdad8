"""A disk that tells a guest what the metadata service would: for guests that have no address yet, or no way to it.

Two contents: OpenStack's, labelled `config-2`, with EC2's beside it as Nova has it; and cloud-init's NoCloud, `cidata`.
Two file systems: ISO 9660 with Rock Ridge and Joliet, made in this process; and FAT, made by
mtools. Nothing is mounted.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any

from pycdlib import PyCdlib

from launcher.drivers import process
from launcher.drivers.images.files import MIB, in_thread
from launcher.drivers.images.space import named_when_full
from launcher.guestdata import ec2, nocloud, openstack
from launcher.guestdata.guest import Guest
from launcher.guestdata.tree import Directory, Leaf, Node, leaves

OPENSTACK_VERSIONS = ("2012-08-10", "2018-08-27", "latest")
EC2_VERSIONS = ("2009-04-04", "latest")
FAT_MIB = 64
"""As Nova's; a sparse file of which little is written."""


class Content(StrEnum):
    OPENSTACK = "openstack"
    NOCLOUD = "nocloud"


class FileSystem(StrEnum):
    ISO9660 = "iso9660"
    VFAT = "vfat"


LABELS = {Content.OPENSTACK: "config-2", Content.NOCLOUD: "cidata"}


class ConfigDrives:
    """Makes config drives of one kind; `rng` gives each guest its seed."""

    def __init__(
        self, content: Content = Content.OPENSTACK, file_system: FileSystem = FileSystem.ISO9660, *, rng: Random
    ) -> None:
        self.content, self.file_system, self.rng = content, file_system, rng

    async def write(self, path: Path, guest: Guest) -> None:
        """A new file at `path`, not yet synced."""
        files = self.files(guest)
        if self.file_system is FileSystem.ISO9660:
            await in_thread(_write_iso, path, LABELS[self.content], files)
        else:
            await _write_fat(path, LABELS[self.content], files)

    def files(self, guest: Guest) -> dict[str, bytes]:
        """What stands in it, by path without a leading slash."""
        tree = nocloud.root(guest) if self.content is Content.NOCLOUD else _openstack(guest, self.rng)
        return {path.lstrip("/"): leaf.body for path, leaf in leaves(Directory(tree), "")}


def _openstack(guest: Guest, rng: Random) -> dict[str, Node]:
    version = Directory(openstack.version(guest, rng=rng))
    versions: dict[str, Node] = dict.fromkeys(OPENSTACK_VERSIONS, version)
    one = ec2.version(guest, tags=True)
    ours: dict[str, Node] = {"meta-data.json": Leaf(json.dumps(_as_json(one["meta-data"])).encode())}
    if "user-data" in one:
        ours["user-data"] = one["user-data"]
    return {
        "openstack": Directory({**versions, **openstack.content(guest)}),
        "ec2": Directory(dict.fromkeys(EC2_VERSIONS, Directory(ours))),
    }


def _as_json(node: Node) -> Any:
    if isinstance(node, Leaf):
        return node.body.decode()
    return {name: _as_json(child) for name, child in node.entries.items()}


def _write_iso(path: Path, label: str, files: Mapping[str, bytes]) -> None:
    """The plain names are made up: who cannot read the others does not read a config drive."""
    image, known = PyCdlib(), {PurePosixPath("."): ""}
    image.new(interchange_level=3, vol_ident=label, rock_ridge="1.09", joliet=3)
    for directory in _directories(files):
        known[directory] = f"{known[directory.parent]}/D{len(known)}"
        image.add_directory(known[directory], rr_name=directory.name, joliet_path=f"/{directory}")
    for number, (name, body) in enumerate(files.items()):
        file = PurePosixPath(name)
        plain = f"{known[file.parent]}/F{number}.;1"
        image.add_fp(io.BytesIO(body), len(body), plain, rr_name=file.name, joliet_path=f"/{file}")
    with path.open("xb") as written:
        image.write_fp(written)
    image.close()


def _directories(files: Mapping[str, bytes]) -> Iterator[PurePosixPath]:
    """Each before what is in it."""
    found = {parent for name in files for parent in PurePosixPath(name).parents if parent.name}
    return iter(sorted(found, key=lambda path: (len(path.parts), path)))


async def _write_fat(path: Path, label: str, files: Mapping[str, bytes]) -> None:
    """mtools ask their questions of a terminal; `-o` and `-D o` answer them."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".config-") as made:
        tree = Path(made)
        await in_thread(_write_tree, tree, files)
        sectors = str(FAT_MIB * MIB // 512)
        tops = {tree / PurePosixPath(name).parts[0] for name in files}
        with named_when_full(path):
            await process.run(["mformat", "-C", "-i", path, "-v", label, "-T", sectors, "::"])
            await process.run(["mcopy", "-s", "-o", "-D", "o", "-i", path, *sorted(tops), "::"])


def _write_tree(tree: Path, files: Mapping[str, bytes]) -> None:
    for name, body in files.items():
        file = tree / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
