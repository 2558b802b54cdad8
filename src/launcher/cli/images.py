"""The command `image`: what can be launched, how it comes here, and who may use it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

from launcher.cli import output
from launcher.cli.client import TIMEOUT, Api, Exit, Failure, Json, find_endpoint, find_id
from launcher.cli.resources import delete_each, show_rows

PIECE = 2**20
LOOK_EVERY = 0.3
COMING = {"importing": "import", "saving": "copy"}
"""What an image waits for, by its state."""
COLUMNS = ("id", "name", "kind", "state", "format", "size")


def add_image(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verbs.add_parser("list", help="the catalogue").set_defaults(run=list_images)
    show = verbs.add_parser("show", help="one image, and how far its import is")
    show.add_argument("image", help="name or id")
    show.set_defaults(run=show_image)
    _add_imports(verbs)
    _add_changes(verbs)
    prune = verbs.add_parser("prune", help="remove hosts' copies that no instance uses (administrators)")
    prune.set_defaults(run=prune_images)
    add = verbs.add_parser("register", help="enter an image of the library into the catalogue (administrators)")
    add.add_argument("image", metavar="NAME")
    add.set_defaults(run=register_image)
    build = verbs.add_parser("build-tiny", help="make a small image that reaches ssh in seconds, and register it")
    build.add_argument("--library", type=Path, metavar="DIR", help="the server's image library (<state>/images)")
    build.add_argument("--vmlinuz", type=Path, metavar="FILE", help="a Debian cloud kernel; else one is downloaded")
    build.add_argument("--modules", type=Path, metavar="DIR", help="that kernel's modules")
    build.set_defaults(run=build_tiny)


def _add_imports(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    add = verbs.add_parser("import", help="bring an image from a file or a URL")
    add.add_argument("source", metavar="FILE|URL")
    add.add_argument("--name", help="what to call it; else the file's name")
    add.add_argument("--kind", choices=("machine", "kernel", "ramdisk"), default="machine")
    add.add_argument("--format", choices=("raw", "qcow2"), help="what it must turn out to be")
    add.add_argument("--checksum", metavar="sha256:HEX|FILE|URL", help="it, or where it stands; else it is looked for")
    add.add_argument("--no-verify", dest="verify", action="store_false", help="there need be no checksum")
    _add_properties(add)
    _add_waiting(add)
    add.set_defaults(run=import_image)
    create = verbs.add_parser("create", help="make an image of an instance's root disk; it runs on")
    create.add_argument("name")
    create.add_argument("--from", dest="instance", required=True, metavar="ID", help="an instance's id or name")
    create.add_argument("--description", default="", metavar="TEXT")
    _add_waiting(create)
    create.set_defaults(run=create_image)
    known = verbs.add_parser("known", help="the images that `pull` knows")
    known.set_defaults(run=list_known)
    pull = verbs.add_parser("pull", help="bring a well-known cloud image by its name")
    pull.add_argument("known", metavar="NAME", help="see `launcher image known`")
    pull.add_argument("--name", help="what to call it; else the same")
    pull.add_argument("--refresh", action="store_true", help="fetch it again although it is here")
    _add_waiting(pull)
    pull.set_defaults(run=pull_image)
    export = verbs.add_parser("export", help="write an image's bytes to a file")
    export.add_argument("image", help="name or id")
    export.add_argument("file", type=Path, help="a new file; what was there is replaced when all has come")
    export.set_defaults(run=export_image)


def _add_changes(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    change = verbs.add_parser("set", help="change what is said of an image")
    change.add_argument("image", help="name or id")
    change.add_argument("--name")
    _add_properties(change)
    change.add_argument("--private", dest="public", action="store_const", const=False)
    change.set_defaults(run=set_image)
    for verb, text in (("share", "let other projects use an image"), ("unshare", "take it back")):
        share = verbs.add_parser(verb, help=text)
        share.add_argument("image", help="name or id")
        share.add_argument("projects", nargs="+", metavar="PROJECT")
        share.set_defaults(run=share_image, shared=verb == "share")
    delete = verbs.add_parser("delete", help="delete images; running instances keep what they need")
    delete.add_argument("images", nargs="+", metavar="IMAGE")
    delete.set_defaults(run=delete_images)


def _add_properties(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kernel", dest="kernel_id", metavar="IMAGE", help="the kernel it boots by")
    parser.add_argument("--ramdisk", dest="ramdisk_id", metavar="IMAGE")
    parser.add_argument("--kernel-args", metavar="TEXT")
    parser.add_argument("--architecture", metavar="ARCH")
    parser.add_argument("--firmware", choices=("bios", "uefi"), help="what starts its boot loader")
    parser.add_argument("--machine", choices=("pc", "q35"))
    parser.add_argument("--min-disk", dest="min_disk_gb", type=int, metavar="GB")
    parser.add_argument("--min-memory", dest="min_memory_mb", type=int, metavar="MB")
    parser.add_argument("--description", metavar="TEXT")
    parser.add_argument("--public", action="store_const", const=True, help="for every project (administrators)")


def _add_waiting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-wait", dest="wait", action="store_false", help="return when a download has begun")


def _properties(args: argparse.Namespace) -> Json:
    names = (
        "kernel_id",
        "ramdisk_id",
        "kernel_args",
        "architecture",
        "firmware",
        "machine",
        "min_disk_gb",
        "min_memory_mb",
        "description",
    )
    found = {name: getattr(args, name) for name in (*names, "public")}
    return {name: value for name, value in found.items() if value is not None}


def list_images(args: argparse.Namespace) -> int:
    _show_images(_api(args).get("/images"), args)
    return Exit.OK


def register_image(args: argparse.Namespace) -> int:
    _show_images(_api(args).post("/images", {"name": args.image}), args)
    return Exit.OK


def show_image(args: argparse.Namespace) -> int:
    image = _api(args).get(_path(args.image))
    if args.json:
        output.print_json(image)
    else:
        told = {**image, "progress": _progress_words(image), "projects": ", ".join(image["projects"])}
        output.print_fields((name, "" if value is None else str(value)) for name, value in told.items())
    return Exit.OK


def list_known(args: argparse.Namespace) -> int:
    found = _api(args).get("/known-images")
    show_rows(found["known_images"], found, ("name", "title", "user", "url"), args)
    return Exit.OK


def import_image(args: argparse.Namespace) -> int:
    is_url = urlsplit(args.source).scheme in ("http", "https")
    file = args.source if not is_url else urlsplit(args.source).path
    body = {"name": args.name or Path(file).name, "kind": args.kind, "format": args.format, **_properties(args)}
    body |= _checksum(args.checksum) | ({} if args.verify else {"verify": False})
    body = {name: value for name, value in body.items() if value is not None}
    if is_url:
        return _follow(args, _api(args).post("/images", {**body, "source": args.source})["images"][0])
    return _upload(args, body)


def pull_image(args: argparse.Namespace) -> int:
    body: Json = {"name": args.name or args.known, "source": f"known:{args.known}", "refresh": args.refresh}
    return _follow(args, _api(args).post("/images", body)["images"][0])


def create_image(args: argparse.Namespace) -> int:
    api = _api(args)
    body = {"name": args.name, "source": f"instance:{find_id(api, args.instance)}", "description": args.description}
    return _follow(args, api.post("/images", body)["images"][0])


def _checksum(word: str | None) -> Json:
    if not word:
        return {}
    return {"checksum" if word.startswith(("sha256:", "sha512:")) else "checksum_source": word}


def _upload(args: argparse.Namespace, body: Json) -> int:
    """What cannot be read is said before anything is announced; an import that fails leaves no image behind."""
    try:
        with Path(args.source).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            api = _api(args)
            made = api.post("/images", {**body, "source": "upload"})["images"][0]
            meter = _Meter(args)
            try:
                image = api.upload(_path(made["id"]) + "/file", meter.pieces(file, size), size)
            except (Failure, KeyboardInterrupt):
                api.delete(_path(made["id"]))
                raise
            finally:
                meter.end()
    except OSError as error:
        raise Failure(f"{args.source}: {error.strerror}", exit_code=Exit.USAGE) from None
    _show_images({"images": [image]}, args)
    return Exit.OK


def _follow(args: argparse.Namespace, image: Json) -> int:
    """Show how far it is until it is active. Who interrupts this leaves the download alone."""
    if args.wait:
        image = _wait(_api(args), image, args)
    _show_images({"images": [image]}, args)
    return Exit.OK


def wait_imported(api: Api, name: str, args: argparse.Namespace) -> bool:
    """Wait until an image is here; False when it is not on its way. Raises Failure when it fails."""
    image = api.get(_path(name))
    return image["state"] in COMING and bool(_wait(api, image, args))


def _wait(api: Api, image: Json, args: argparse.Namespace) -> Json:
    meter, what = _Meter(args), COMING["importing"]
    try:
        while image["state"] in COMING:
            what = COMING[image["state"]]
            meter.show(image["name"], _progress_words(image))
            time.sleep(LOOK_EVERY)
            image = api.get(_path(image["id"]))
    finally:
        meter.end()
    if image["state"] == "error":
        raise Failure(f"{image['name']}: the {what} failed", exit_code=Exit.FAULT, detail=image["reason"])
    return image


def export_image(args: argparse.Namespace) -> int:
    """Written aside and renamed, so that a file that is there is whole."""
    draft = args.file.with_name(args.file.name + ".part")
    try:
        with (
            _api(args).open("GET", _path(args.image) + "/file", {}, timeout=TIMEOUT) as answer,
            draft.open("wb") as file,
        ):
            for piece in answer.pieces():
                file.write(piece)
        draft.replace(args.file)
    except OSError as error:
        raise Failure(f"{args.file}: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return Exit.OK


def set_image(args: argparse.Namespace) -> int:
    changes = _properties(args) | ({"name": args.name} if args.name else {})
    image = _api(args).patch(_path(args.image), changes)
    _show_images({"images": [image]}, args)
    return Exit.OK


def share_image(args: argparse.Namespace) -> int:
    api = _api(args)
    known = api.get(_path(args.image))
    image = api.patch(_path(known["id"]), {"projects_more" if args.shared else "projects_less": args.projects})
    if args.json:
        output.print_json(image)
    else:
        print(output.harmless(f"{image['name']}: {', '.join(image['projects']) or 'nobody else'}"))
    return Exit.OK


def delete_images(args: argparse.Namespace) -> int:
    return delete_each(_api(args), "/images", args.images)


def prune_images(args: argparse.Namespace) -> int:
    found = _api(args).post("/image-copies/prune", {})
    if args.json:
        output.print_json(found)
    else:
        for host, freed in found["freed"].items():
            print(f"{host}: {output.size(freed)} freed")
        for host in found["silent"]:
            print(f"{host}: no answer")
    return Exit.REFUSED if found["silent"] else Exit.OK


def build_tiny(args: argparse.Namespace) -> int:
    from launcher.cli import tiny  # noqa: PLC0415 - it loads the image drivers

    return tiny.run(args)


class _Meter:
    """One line on a terminal that is written again and again; elsewhere a line now and then."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.quiet, self.terminal = args.json, sys.stderr.isatty()
        self.every, self.next, self.shown = (0.2 if self.terminal else 5.0), 0.0, False

    def pieces(self, file: object, size: int) -> Iterator[bytes]:
        """The file's bytes, as they are sent."""
        sent, began = 0, time.monotonic()
        while piece := file.read(PIECE):  # type: ignore[attr-defined]
            yield piece
            sent += len(piece)
            speed = sent / max(time.monotonic() - began, 0.001)
            self.show("sent", _amounts(sent, size, speed, int((size - sent) / speed)), last=sent >= size)

    def show(self, name: str, words: str, *, last: bool = False) -> None:
        now = time.monotonic()
        if self.quiet or (now < self.next and not last):
            return
        self.next, self.shown = now + self.every, True
        line = output.harmless(f"{name}: {words}")
        print(
            f"\r\x1b[K{line}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True
        )

    def end(self) -> None:
        if self.shown and self.terminal:
            print(file=sys.stderr)


def _progress_words(image: Json) -> str:
    found = image["progress"]
    if found is None:
        return {"importing": "waiting", "saving": "being copied"}.get(image["state"], "")
    return found["remark"] or _amounts(found["done"], found["total"], found["per_second"], found["eta_s"])


def _amounts(done: int, total: int | None, per_second: float, eta_s: int | None) -> str:
    """12.0 MiB of 420.0 MiB, 3 %, 11.2 MiB/s, 36.0 s left."""
    words = [output.size(done) + (f" of {output.size(total)}" if total else "")]
    words += [f"{done * 100 // total} %"] if total else []
    words += [f"{output.size(per_second)}/s"] if per_second else []
    words += [f"{output.duration(eta_s * 1000)} left"] if eta_s is not None else []
    return ", ".join(words)


def _show_images(found: Json, args: argparse.Namespace) -> None:
    rows = [
        {**image, "format": image["format"] or "", "size": "" if image["size"] is None else output.size(image["size"])}
        for image in found["images"]
    ]
    show_rows(rows, found, COLUMNS, args)


def _path(image: str) -> str:
    return f"/images/{quote(image, safe='')}"


def _api(args: argparse.Namespace) -> Api:
    return Api(find_endpoint(args.state))
