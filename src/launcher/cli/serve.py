"""`launcher serve`: reads the settings, opens the listening socket, and becomes the parent of the server.

The socket belongs to the host's network whatever namespace the server enters. The server itself is imported by the
child only, so that its parent stays small.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from launcher.cli.client import find_state
from launcher.config import Config, RoleName, load
from launcher.errors import LauncherError
from launcher.outside import Outside
from launcher.sandbox import supervise

STOP_LIMIT = 60
"""Seconds from SIGTERM to the end, whatever hangs; the roles take up to 20 each, systemd kills after 90."""
SYSTEM_CONFIG = Path("/etc/launcher/config.toml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"settings (default: {SYSTEM_CONFIG} if it exists)")
    parser.add_argument("--listen", metavar="HOST:PORT", help="where the API answers; port 0 takes a free one")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="settings", help="change one setting"
    )
    parser.add_argument("--roles", metavar="ROLE,…", help="host only these roles (needs an amqp bus)")
    parser.add_argument(
        "--sandbox", action="store_true", help="keep bridges, filters and guests in namespaces that end with the server"
    )


def run(args: argparse.Namespace) -> int:
    try:
        config = _config(args)
        state = find_state(getattr(args, "state", None)).absolute()
        _check_powers(config, args, state)
        listener = _listen(config.api.listen)
    except (LauncherError, OSError) as error:
        return _refuse(error)
    logging.basicConfig(
        level=config.host.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    try:
        outside = _outside(config) if args.sandbox else None
        return supervise(lambda: _serve(config, state, listener), sandboxed=args.sandbox, outside=outside)
    except OSError as error:
        return _refuse(error, "the sandbox needs root or unprivileged user namespaces; see `launcher doctor`")


def _outside(config: Config) -> Outside | None:
    """Fakes reach nothing."""
    if config.virt.driver == "fake" or RoleName.NETWORK not in config.host.roles:
        return None
    return Outside(way_out=config.network.nat, pools=[pool.cidr for pool in config.network.pools])


def _serve(config: Config, state: Path, listener: socket.socket) -> int:
    try:
        asyncio.run(_until_told(config, state, listener))
    except Exception as error:
        named = LauncherError.named(error)
        if named is None:
            raise
        return _refuse(named)
    return 0


async def _until_told(config: Config, state: Path, listener: socket.socket) -> None:
    from launcher import app  # noqa: PLC0415 - the server's weight belongs to the child

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def leave() -> None:
        """The kernel keeps the limit: what hangs by then is ended as a crash would end it, and resumed."""
        if not stop.is_set():
            signal.alarm(STOP_LIMIT)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave)
    await app.serve(config, state=state, listener=listener, stop=stop)


def _config(args: argparse.Namespace) -> Config:
    path = args.config or (SYSTEM_CONFIG if SYSTEM_CONFIG.exists() else None)
    settings = list(args.settings)
    if args.listen:
        settings.append(f'api.listen="{args.listen}"')
    if args.roles:
        settings.append(f"host.roles={args.roles.split(',')}")
    return load(path, settings)


def _check_powers(config: Config, args: argparse.Namespace, state: Path) -> None:
    if args.sandbox and state.is_relative_to("/run"):
        raise LauncherError(f"the sandbox has a /run of its own, so {state} would be lost", hint="give --state DIR")
    if config.virt.driver == "libvirt" and os.geteuid() != 0 and not args.sandbox:
        raise LauncherError(
            "real machines on this host's own network need root",
            hint="run it as root, or add --sandbox, or --set virt.driver=fake for a launcher without machines",
        )


def _listen(address: str) -> socket.socket:
    """Bound here, before any namespace is entered, so that the API stays reachable from outside."""
    host, _, port = address.rpartition(":")
    return socket.create_server((host, int(port)), backlog=1024)


def _refuse(error: Exception, hint: str = "") -> int:
    print(f"launcher serve: {error}", file=sys.stderr)
    if hint := hint or getattr(error, "hint", ""):
        print(f"  {hint}", file=sys.stderr)
    return 1
