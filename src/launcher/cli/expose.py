"""The command `expose`: a loopback port of this machine that leads to a port of a guest, until it is interrupted.

Each connection is a tunnel of its own through the API (docs/decisions/0012-expose-is-the-clients.md), so it reaches
guests wherever the API is reached, into the sandbox, too, and goes on when the server has been restarted.
"""

from __future__ import annotations

import argparse
import socket
import sys
import threading
from contextlib import suppress

from launcher.cli import output
from launcher.cli.client import Api, Failure, Json, find_endpoint, find_instance
from launcher.cli.websocket import Tunnel, join


def add_expose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instance", metavar="ID", help="an id, the beginning of one, or a name")
    parser.add_argument("port", metavar="PORT", type=_port, help="a TCP port of the guest")
    parser.add_argument(
        "--host-port", metavar="N", type=_port, help="the port here; else the same, or a free one if that is taken"
    )
    parser.set_defaults(run=expose)


def expose(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    api = Api(find_endpoint(args.state))
    instance = find_instance(api, args.instance)
    with listen(args.port, args.host_port) as listener:
        here = listener.getsockname()[1]
        if args.json:
            output.print_json(
                {"instance_id": instance["id"], "port": args.port, "host": "127.0.0.1", "host_port": here}
            )
        else:
            print(f"127.0.0.1:{here} is port {args.port} of {output.harmless(instance['name'])}; interrupt to end it")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_carry, args=(api, instance, args.port, connection), daemon=True).start()


def listen(port: int, host_port: int | None) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", host_port or port))
    except OSError as error:
        if host_port is None:
            return socket.create_server(("127.0.0.1", 0))
        raise Failure(f"127.0.0.1:{host_port}: {error.strerror}", hint="give another --host-port") from None


def _carry(api: Api, instance: Json, port: int, connection: socket.socket) -> None:
    """One connection, until either side ends it; what the guest refuses ends it at once and is said on stderr."""
    with connection:
        try:
            with Tunnel.open(api, instance["id"], port) as tunnel, suppress(OSError):
                join(tunnel, connection.fileno(), connection.fileno())
        except Failure as failure:
            output.print_failure(failure)


def _port(word: str) -> int:
    if not (word.isdecimal() and 0 < int(word) < 65536):
        raise argparse.ArgumentTypeError(f"{word!r} is not a port")
    return int(word)
