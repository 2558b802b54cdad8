"""docs/ec2.md, made from the operations' models: `python -m tests.ec2_page` writes it, a test compares it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from launcher.services.api.ec2 import query
from launcher.services.api.ec2.operation import Operation
from launcher.services.api.ec2.operations import operations
from launcher.services.api.ec2.query import Ignored, Parameters, Refused

PAGE = Path(__file__).parents[1] / "docs" / "ec2.md"
HEAD = """\
# EC2: every operation and parameter

Made from the models by `python -m tests.ec2_page`; a test compares. An operation that is not here is refused with
`InvalidAction`, a parameter that is not here with `UnknownParameter`, one that is *refused* with
`UnsupportedOperation`. Every operation understands `DryRun`. `N` is a number; a list of one may come without it. What
a filter compares may have `*` and `?`.

Tried at every run of the tests: awscli, boto3 with its waiters and paginators, boto 2.49, JavaScript's SDK 3 (where
there is npm), Perl's Net::Amazon::EC2 with both signatures. euca2ools is in no registry (neither Debian 12 nor PyPI
has it) and needs Python 2; its versions 1.3 and 2.1.3, which ask boto 2 for all they do, were tried by hand with
Python 2.7: `euca-add-keypair test`, `euca-run-instances -k test -t m1.tiny ami-tiny`, and those for instances,
volumes, snapshots, images, groups and tags.

How things are told apart from EC2, because they are so here:

* An instance in error is `terminated`, until it is terminated; its reason is `Server.InternalError` and the step that
  failed.
* Networks are told as VPCs with one subnet each, and are made by `launcher network create`; `supported-platforms` is
  `EC2`.
* Addresses are held by their address and by ids alike, whatever `Domain` was asked for. One that is given back loses
  its tags.
* A group without egress rules lets everything out; it is told without any.
* Ids have 8 digits where the number is small enough; those of images are the beginning of their UUIDs here. An image
  can be named by its name, too, as in `ami-tiny`.
* A root disk is no volume, so `rootDeviceType` is `instance-store`, and `blockDeviceMapping` lists the volumes that are
  attached. It is kept by a stop and ends with its instance.
* The last letter of a device's name counts: `/dev/sdf` and `/dev/xvdf` are `/dev/vdf`, and are told so. A volume is
  `in-use` when its instance has it, not before. It lies on one host, and only that host's instances can have it
  (`InvalidVolume.ZoneMismatch`).
* The tags of instances, volumes and snapshots are their metadata here, `Name` is their name if it can be one.
* An image is registered from a URL, whose bytes are then fetched and checked, and has no block devices; a copy shares
  its bytes with its source. Accounts are projects, by name or id.
* A signature is good for five minutes on either side; a request that changes something is answered once (a repetition
  within the first five seconds is the client's own).
"""


def parameters(kind: type[Parameters], path: str = "") -> Iterator[tuple[str, FieldInfo, str]]:
    """Each with its path, its field and what becomes of it. Below what is ignored or refused nothing is told."""
    for name, field in query.fields(kind).items():
        inner = query.bare(field.annotation)
        many = get_origin(inner) is tuple
        if many:
            inner = query.bare(get_args(inner)[0])
        where = f"{path}{name}" + (".N" if many else "")
        fate = _fate(field)
        if isinstance(inner, type) and issubclass(inner, Parameters) and not fate:
            yield from parameters(inner, f"{where}.")
        else:
            yield where, field, fate


def _fate(field: FieldInfo) -> str:
    for mark in field.metadata:
        if isinstance(mark, Ignored):
            return f"ignored: {mark.why}"
        if isinstance(mark, Refused):
            unless = "" if mark.harmless is None else f" unless `{mark.harmless}`"
            return f"refused{unless}: {mark.why}"
    return ""


def page() -> str:
    parts = [HEAD, *(_operation(each) for each in sorted(operations(), key=lambda each: each.name))]
    return "\n".join(parts)


def _operation(each: Operation) -> str:
    lines = [f"## {each.name}", "", " ".join((each.request.__doc__ or "").split()), ""]
    lines += ["| parameter | |", "| --- | --- |"]
    for name, field, fate in parameters(each.request):
        if name != "DryRun":
            lines.append(f"| `{name}` | {fate or _supported(field)} |")
    if lines[-1] == "| --- | --- |":
        lines[-3:] = []
    if each.filters:
        names = [*each.filters, *(["tag:KEY"] if "tag-key" in each.filters else [])]
        lines += ["", f"Filters: {', '.join(f'`{name}`' for name in sorted(names))}."]
    return "\n".join((*lines, ""))


def _supported(field: FieldInfo) -> str:
    words = ["supported"]
    if field.is_required():
        words.append("required")
    kind: Any = field.annotation
    if get_origin(kind) is not None and all(isinstance(each, str) for each in get_args(kind)):
        words.append(" or ".join(f"`{each}`" for each in get_args(kind)))
    return ", ".join((*words, *([field.description] if field.description else [])))


if __name__ == "__main__":
    PAGE.write_text(page())
