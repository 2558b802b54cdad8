"""The command `run`: launch, show each step as it happens, and end with the line that logs in."""

from __future__ import annotations

import argparse
import base64
import os
import shlex
import sys
import time
from pathlib import Path

from launcher.cli import output
from launcher.cli.client import Api, Exit, Failure, Json, Unanswered, find_endpoint
from launcher.cli.images import wait_imported
from launcher.cli.waiting import STAGES, wait_active, wait_ip, wait_ssh

TINY = "ami-tiny"
_NAME_WIDTH, _STEP_WIDTH = 16, 12


def add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", nargs="?", help="name or id; without it, the only one or ami-tiny")
    parser.add_argument("-t", "--flavor", default="m1.tiny", help="size (m1.tiny)")
    parser.add_argument("-k", "--key", metavar="NAME", help="key pair that may log in")
    parser.add_argument("--name", help="its name; several get a number behind it")
    parser.add_argument("--count", type=int, default=1, metavar="N", help="how many (1)")
    parser.add_argument("--min", type=int, metavar="N", help="be content with so many if the quota ends there")
    parser.add_argument("--group", action="append", metavar="NAME", help="security group; may be repeated")
    parser.add_argument(
        "--network", action="append", type=_nic, metavar="NET[=ADDR]", help="a NIC in this network; may be repeated"
    )
    parser.add_argument("--user-data", metavar="FILE", help="for the guest, from a file or - for stdin")
    parser.add_argument("--file", action="append", metavar="PATH=FILE", help="for the guest's disk; may be repeated")
    parser.add_argument("--password-hash", metavar="HASH", help="root's, e.g. of `openssl passwd -6`")
    parser.add_argument("--config-drive", action="store_true", help="tell the guest by a disk of its own, too")
    parser.add_argument("--zone", help="availability zone, or zone:host for administrators")
    parser.add_argument("--on-shutdown", choices=("stop", "terminate"), help="when its guest powers off (stop)")
    parser.add_argument("--protect", action="store_true", help="refuse to delete it")
    parser.add_argument("--metadata", action="append", type=_pair, metavar="K=V", help="may be repeated")
    parser.add_argument("--wait", type=_stages, default=("active",), metavar="STAGES", help=_WAIT_HELP)
    parser.add_argument("--no-wait", dest="wait", action="store_const", const=(), help="return when it is accepted")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds for each stage (60)")
    parser.set_defaults(run=run)


_WAIT_HELP = "what to wait for, of active,ip,ssh (active)"


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{word!r} is not KEY=VALUE")
    return key, value


def _nic(word: str) -> Json:
    network, _, address = word.partition("=")
    return {"network": network, "address": address} if address else {"network": network}


def _stages(words: str) -> tuple[str, ...]:
    """The stages named, in their order; nothing else comes before the machine runs."""
    named = ["active", *words.split(",")]
    unknown = [word for word in named if word not in STAGES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(STAGES)}")
    return tuple(stage for stage in STAGES if stage in named)


def run(args: argparse.Namespace) -> int:
    api = Api(find_endpoint(args.state))
    body = _request(args, args.image or choose_image(api))
    sent = time.monotonic()
    accepted = _post_when_imported(api, body, args)
    if not args.json:
        for instance in accepted:
            print(f"{instance['id']}  {output.harmless(instance['name'])}  {_ms((time.monotonic() - sent) * 1000)}")
    instances = wait(api, accepted, args)
    if args.json:
        output.print_json({"instances": instances})
    else:
        for instance in instances:
            print(login_line(instance))
    return Exit.OK


def choose_image(api: Api) -> str:
    """The only machine image, or the one that `image build-tiny` makes."""
    names = [
        image["name"]
        for image in api.get("/images")["images"]
        if image["kind"] == "machine" and image["state"] == "active"
    ]
    if len(names) == 1 or TINY in names:
        return str(names[0] if len(names) == 1 else TINY)
    if not names:
        raise Failure("there is no image yet", exit_code=Exit.NOT_FOUND, hint="launcher image build-tiny")
    raise Failure("which image?", exit_code=Exit.USAGE, detail=", ".join(names), hint="launcher run IMAGE")


def _request(args: argparse.Namespace, image: str) -> Json:
    wanted = {
        "image": image,
        "flavor": args.flavor,
        "name": args.name,
        "key_name": args.key,
        "min_count": args.min or args.count,
        "max_count": args.count,
        "security_groups": args.group,
        "networks": args.network,
        "user_data": _user_data(args.user_data),
        "personality": _personality(args),
        "config_drive": args.config_drive,
        "availability_zone": args.zone,
        "metadata": dict(args.metadata or ()),
        "shutdown_behaviour": args.on_shutdown,
        "protected": args.protect,
    }
    return {name: value for name, value in wanted.items() if value}


def _user_data(path: str | None) -> str | None:
    return None if path is None else _encoded("user data", path)


def _personality(args: argparse.Namespace) -> Json:
    files = []
    for word in args.file or ():
        path, equals, source = word.partition("=")
        if not (path and equals and source):
            raise Failure(f"--file {word!r} is not PATH=FILE", exit_code=Exit.USAGE)
        files.append({"path": path, "content": _encoded("--file", source)})
    found: Json = {"files": files, "password_hash": args.password_hash}
    return {name: value for name, value in found.items() if value}


def _encoded(what: str, path: str) -> str:
    """The content of a file, or with - of stdin, as base64."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise Failure(f"{what}: {path}: {error.strerror}", exit_code=Exit.USAGE) from None
    return base64.b64encode(data).decode()


def _post_when_imported(api: Api, body: Json, args: argparse.Namespace) -> list[Json]:
    """An image that is on its way here is waited for, by all who want it together."""
    try:
        return _post(api, body)
    except Failure as failure:
        if failure.title != "conflict" or not wait_imported(api, body["image"], args):
            raise
        return _post(api, body)


def _post(api: Api, body: Json) -> list[Json]:
    """Ask once more when the answer was lost: the key makes both requests the same launch."""
    headers = {"Idempotency-Key": os.urandom(16).hex()}
    try:
        answer = api.post("/instances", body, headers)
    except Unanswered:
        answer = api.post("/instances", body, headers)
    found: list[Json] = answer["instances"]
    return found


def wait(api: Api, instances: list[Json], args: argparse.Namespace) -> list[Json]:
    """Through the stages asked for; the instances as they are then."""

    def tell(instance: Json, step: str, at_ms: float, remark: str) -> None:
        name = f"{instance['name'][:_NAME_WIDTH]:{_NAME_WIDTH}}  " if len(instances) > 1 else ""
        if not args.json:
            line = f"  {name}{step:{_STEP_WIDTH}} {_ms(at_ms)}  {remark}".rstrip()
            print(output.painted(output.harmless(line)), flush=True)

    if "active" in args.wait:
        instances = wait_active(api, instances, args.timeout, tell)
    for stage, wait_one in (("ip", wait_ip), ("ssh", wait_ssh)):
        for instance in instances if stage in args.wait else ():
            wait_one(api, instance, args.timeout, tell)
    return instances


def login_line(instance: Json) -> str:
    """The command that logs in; without a key pair, the one that shows what the machine says."""
    name = output.harmless(shlex.quote(instance["name"]))
    if instance["key_name"]:
        return f"launcher ssh {name}"
    return f"launcher console {name} -f        (to log in, launch it with a key pair: launcher keypair create NAME)"


def _ms(ms: float) -> str:
    return f"{ms:+9.0f} ms"
