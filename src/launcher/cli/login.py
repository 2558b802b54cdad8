"""Logging in: the command `ssh`, and the private keys that this client remembers for it."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from launcher.cli import output
from launcher.cli.client import Api, Exit, Failure, Json, find_endpoint, find_instance
from launcher.cli.waiting import wait_active, wait_ssh


def data_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where this client keeps what is its own: keys and the guests' host keys."""
    home = environ.get("XDG_DATA_HOME") or Path(environ.get("HOME", "/"), ".local", "share")
    return Path(home, "launcher")


def key_path(name: str) -> Path:
    """Where the private half of a key pair is remembered. Raises Failure for a name that would leave the directory."""
    if not name or name.startswith(".") or not set("/\0").isdisjoint(name):
        raise Failure(f"{name!r} cannot be the name of a file", exit_code=Exit.USAGE)
    return data_directory() / "keys" / name


def write_key(path: Path, private_key: str) -> None:
    """Readable by its owner only, from its first byte on; what stood there before is kept as `.old`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileNotFoundError):
        path.rename(path.with_name(f"{path.name}.old"))
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - a descriptor
        file.write(private_key)


def add_ssh(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instance", metavar="ID", help="an id, the beginning of one, or a name")
    parser.add_argument("-i", "--identity", metavar="KEY", help="private key file; else the one remembered")
    parser.add_argument("-l", "--login", default="root", metavar="USER", help="user in the guest (root)")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds for the guest to answer (60)")
    parser.epilog = "what follows -- is run in the guest"
    parser.set_defaults(run=ssh)


def ssh(args: argparse.Namespace) -> int:
    """Wait for the guest's SSH server, saying why if it is late, then become OpenSSH."""
    api = Api(find_endpoint(args.state))
    instance = find_instance(api, args.instance)
    if instance["status"] == "BUILD":
        instance = wait_active(api, [instance], args.timeout, _tell)[0]
    if instance["status"] not in ("ACTIVE", "RESCUED"):
        raise Failure(f"{instance['name']} is {instance['status']}", exit_code=Exit.FAULT, hint="launcher list")
    wait_ssh(api, instance, args.timeout, lambda *_: None)
    if args.state:
        os.environ["LAUNCHER_STATE"] = str(Path(args.state).absolute())
        os.environ.pop("LAUNCHER_URL", None)
    command = ssh_command(instance, args.identity, args.login, args.rest)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the user's terminal becomes the guest's
    except FileNotFoundError:
        raise Failure("OpenSSH's client is not installed", hint="apt install openssh-client") from None


def ssh_command(instance: Json, identity: str | None, user: str, rest: list[str]) -> list[str]:
    """OpenSSH over the API's tunnel. The token stays in the environment or the file it came from, out of `ps`.

    The guest's host key is remembered under its id, which is never used twice: no false alarms, no blind trust. That of
    the root it is rescued with is another.
    """
    known_hosts = _known_hosts(instance["id"], rescued=instance["status"] == "RESCUED")
    known_hosts.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    proxy = shlex.join([sys.executable, "-m", "launcher.cli.websocket", f"{instance['id']}/22"]).replace("%", "%%")
    options = {
        "ProxyCommand": proxy,
        "UserKnownHostsFile": f'"{known_hosts}"',
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "accept-new",
        "UpdateHostKeys": "no",
        "LogLevel": "ERROR",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    key = Path(identity) if identity else instance["key_name"] and key_path(instance["key_name"])
    if key and (identity or key.exists()):
        words += ["-o", "IdentitiesOnly=yes", "-i", str(key)]
    return ["ssh", *words, "-l", user, instance["id"], *rest]


def forget_host(instance_id: str, *, rescued: bool) -> None:
    """Its root is made anew, and with it its host key."""
    _known_hosts(instance_id, rescued=rescued).unlink(missing_ok=True)


def _known_hosts(instance_id: str, *, rescued: bool) -> Path:
    return data_directory() / "known_hosts" / (f"{instance_id}.rescue" if rescued else instance_id)


def _tell(_: Json, step: str, at_ms: float, remark: str) -> None:
    print(output.harmless(f"{step} {at_ms:+.0f} ms {remark}".rstrip()), file=sys.stderr, flush=True)
