"""Compute v2.1's devices of a server: its NICs, to read, and the volumes that are attached to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from launcher.accounts import UserRole
from launcher.bus import Bus
from launcher.errors import NotFound
from launcher.messages.network import ListNetworks
from launcher.messages.volumes import AttachVolume, DetachVolume, ListVolumes
from launcher.models import Instance, Model, Nic
from launcher.networks import Network
from launcher.services.api.openstack import ids, nova
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, refused
from launcher.services.api.openstack.versions import Refused, shaped, since
from launcher.volumes import Volume

ONE = "/v2.1/servers/{id}"
LAUNCHS = "a server has the NICs that it was launched with"
INTERFACE = {"tag": since(70)}
ATTACHMENT = {"tag": since(70), "delete_on_termination": since(79)}


class AttachmentFields(Model):
    volumeId: str = Field(min_length=1, max_length=255)  # noqa: N815 - Nova's own
    device: str | None = Field(default=None, pattern=r"^(/dev/)?vd[b-y]$")
    tag: Annotated[Any, since(49), Refused("devices have no tags")] = None
    delete_on_termination: Annotated[bool, since(79)] = False


class AttachmentRequest(Model):
    """POST /servers/{id}/os-volume_attachments."""

    volumeAttachment: AttachmentFields  # noqa: N815


class Devices:
    """A part of Compute."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        nics, volumes = f"{ONE}/os-interface", f"{ONE}/os-volume_attachments"
        return [
            Operation("GET", nics, self.list_interfaces),
            Operation("GET", f"{nics}/{{port}}", self.get_interface),
            refused("POST", nics, LAUNCHS),
            refused("DELETE", f"{nics}/{{port}}", LAUNCHS),
            Operation("GET", volumes, self.list_attachments, queries=("limit", "offset")),
            Operation("POST", volumes, self.attach, body=AttachmentRequest, needs=UserRole.MEMBER),
            Operation("GET", f"{volumes}/{{volume}}", self.get_attachment),
            Operation("DELETE", f"{volumes}/{{volume}}", self.detach, status=202, needs=UserRole.MEMBER),
            refused("PUT", f"{volumes}/{{volume}}", "a volume is detached, and another one attached"),
        ]

    # --- NICs ------------------------------------------------------------------------------------------------

    async def list_interfaces(self, ask: Ask) -> Reply:
        return Reply({"interfaceAttachments": await self._interfaces(ask)})

    async def get_interface(self, ask: Ask) -> Reply:
        for each in await self._interfaces(ask):
            if each["port_id"] == ask.path["port"]:
                return Reply({"interfaceAttachment": each})
        raise NotFound(f"Instance {ask.path['id']} has no port {ask.path['port']}")

    async def _interfaces(self, ask: Ask) -> list[Json]:
        found = await nova.the_server(self.bus, ask)
        networks = {each.name: each for each in await self.bus.call(ask.ctx, ListNetworks())}
        return [
            shaped(INTERFACE, ask.version, _interface(found, nic, networks[nic.network]))
            for nic in found.nics
            if nic.network in networks
        ]

    # --- volumes ---------------------------------------------------------------------------------------------

    async def list_attachments(self, ask: Ask) -> Reply:
        found = await nova.the_server(self.bus, ask)
        return Reply({"volumeAttachments": [_attachment(ask, each) for each in await self._attached(ask, found)]})

    async def attach(self, ask: Ask) -> Reply:
        found, given = await nova.the_server(self.bus, ask), ask.body.volumeAttachment
        message = AttachVolume(
            volume=given.volumeId,
            instance=found.id,
            device=given.device.removeprefix("/dev/") if given.device else None,
            delete_on_termination=given.delete_on_termination,
        )
        return Reply({"volumeAttachment": _attachment(ask, await self.bus.call(ask.ctx, message))})

    async def get_attachment(self, ask: Ask) -> Reply:
        return Reply({"volumeAttachment": _attachment(ask, await self._the_attached(ask))})

    async def detach(self, ask: Ask) -> Reply:
        volume = await self._the_attached(ask)
        await self.bus.call(ask.ctx, DetachVolume(volume=volume.id, instance=ask.path["id"]))
        return Reply()

    async def _attached(self, ask: Ask, found: Instance) -> list[Volume]:
        everybody = ask.ctx.is_admin
        volumes = await self.bus.call(ask.ctx, ListVolumes(all_projects=everybody))
        return [each for each in volumes if each.attachment and each.attachment.instance_id == found.id]

    async def _the_attached(self, ask: Ask) -> Volume:
        for each in await self._attached(ask, await nova.the_server(self.bus, ask)):
            if each.id == ask.path["volume"]:
                return each
        raise NotFound(f"Instance {ask.path['id']} is not attached to volume {ask.path['volume']}")


def _interface(instance: Instance, nic: Nic, network: Network) -> Json:
    fixed = [
        {"ip_address": str(address), "subnet_id": ids.of_subnet(network, version)}
        for version, address in ((4, nic.address), (6, nic.address6))
        if address is not None
    ]
    return {
        "net_id": ids.of_network(network),
        "port_id": ids.of_port(instance, nic),
        "mac_addr": nic.mac,
        "port_state": "ACTIVE" if nic.address else "BUILD",
        "fixed_ips": fixed,
        "tag": None,
    }


def _attachment(ask: Ask, volume: Volume) -> Json:
    """It has the volume's own id, as there is one at most."""
    held = volume.attachment
    whole = {
        "id": volume.id,
        "volumeId": volume.id,
        "serverId": held.instance_id if held else None,
        "device": f"/dev/{held.device}" if held else None,
        "tag": None,
        "delete_on_termination": bool(held and held.delete_on_termination),
    }
    return shaped(ATTACHMENT, ask.version, whole)
