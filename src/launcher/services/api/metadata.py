"""The metadata service: what a guest is told about itself at 169.254.169.254, EC2's tree.

Who asks is known from the source address of the connection alone, never from a header.
"""

from __future__ import annotations

import base64
import logging
from ipaddress import IPv4Address

from aiohttp import web

from launcher.bus import Bus
from launcher.errors import LauncherError, NotFound
from launcher.messages.instances import GetGuestMetadata
from launcher.messages.network import FindLease
from launcher.messaging import Context
from launcher.models import GuestMetadata
from launcher.networks import FixedIp

VERSIONS = (
    *("1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15"),
    *("2008-02-01", "2008-09-01", "2009-04-04", "latest"),
)
ASK_TIMEOUT = 5.0

Tree = dict[str, "Tree | str"]
log = logging.getLogger(__name__)


class Metadata:
    """Guests ask the network role's gateway; the network knows whose address it is, the controller the rest."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    def application(self, context: Context) -> web.Application:
        async def answer(request: web.Request) -> web.Response:
            try:
                return _render(await self._tree(context, request), request.path)
            except NotFound:
                raise web.HTTPNotFound from None
            except LauncherError as error:
                log.warning("metadata for %s: %s", request.remote, error)
                raise web.HTTPServiceUnavailable from None

        application = web.Application(client_max_size=1024)
        application.router.add_get("/{path:.*}", answer)
        return application

    async def _tree(self, ctx: Context, request: web.Request) -> Tree:
        lease = await self.bus.call(ctx, FindLease(address=IPv4Address(request.remote or "0")), timeout=ASK_TIMEOUT)
        if lease is None:
            raise NotFound("nobody has this address")
        guest = await self.bus.call(ctx, GetGuestMetadata(instance_id=lease.instance_id), timeout=ASK_TIMEOUT)
        return tree(guest, lease)


def tree(guest: GuestMetadata, lease: FixedIp) -> Tree:
    """Versions at the top; a directory is a dict, a leaf a string. Shapes as cloud-init's Ec2 source reads them."""
    instance = guest.instance
    keys: Tree = {}
    if guest.public_key:
        keys = {"0": {"openssh-key": guest.public_key, "": guest.key_name or "key"}}
    meta: Tree = {
        "ami-id": f"ami-{instance.image_id[:8]}",
        "ami-launch-index": str(instance.launch_index),
        "hostname": f"{instance.hostname}.{lease.network.domain}",
        "instance-id": f"i-{instance.number:08x}",
        "instance-type": instance.flavor.name,
        "local-hostname": f"{instance.hostname}.{lease.network.domain}",
        "local-ipv4": str(lease.address),
        "mac": lease.mac,
        "placement": {"availability-zone": instance.availability_zone or "nova"},
        "public-keys": keys,
        "reservation-id": instance.reservation_id,
        "security-groups": "\n".join(instance.security_groups),
    }
    version: Tree = {"meta-data": meta}
    if guest.user_data is not None:
        version["user-data"] = guest.user_data
    return dict.fromkeys(VERSIONS, version)


def _render(found: Tree, path: str) -> web.Response:
    """A leaf's text, or a directory's listing; the list of keys is `0=name`, as EC2 prints it."""
    node: Tree | str = found
    parts = [part for part in path.split("/") if part]
    for part in parts:
        if not isinstance(node, dict) or part not in node:
            raise NotFound(path)
        node = node[part]
    if isinstance(node, str):
        body = base64.b64decode(node) if parts[-1] == "user-data" else node.encode()
        return web.Response(body=body, content_type="text/plain")
    return web.Response(text="\n".join(_entry(name, child) for name, child in node.items() if name))


def _entry(name: str, child: Tree | str) -> str:
    """A directory ends in a slash; a key's directory (which carries its name as the entry "") is `0=name`."""
    if isinstance(child, str):
        return name
    return f"{name}={child['']}" if "" in child else f"{name}/"
