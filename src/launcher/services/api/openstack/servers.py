"""Compute v2.1's servers: create, list, show, rename, delete."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any, Literal

from pydantic import Field

from launcher.accounts import UserRole
from launcher.bus import Bus
from launcher.errors import BadRequest, NotFound
from launcher.messages.instances import CreateInstances, DeleteInstance, GetInstance, ListInstances, NicRequest
from launcher.models import Instance, Model, VmState
from launcher.services.api.openstack import nova
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply

STATUS = {"STOPPED": "SHUTOFF", "DELETING": "ACTIVE"}
"""Nova's words where ours are others."""
POWER = {VmState.ACTIVE: 1, VmState.STOPPED: 4}
FILTERS = ("name", "status", "flavor", "image", "limit", "marker", "all_tenants", "deleted", "host", "project_id")
IGNORED = ("sort_key", "sort_dir")


class NetworkFields(Model):
    uuid: str = Field(min_length=1, max_length=255)
    fixed_ip: IPv4Address | None = None


class GroupFields(Model):
    name: str = Field(min_length=1, max_length=255)


class BlockDevice(Model):
    """What clients say of the disk that the image becomes; other devices are not to be had yet."""

    uuid: str
    boot_index: Literal[0, "0"] = 0
    source_type: Literal["image"]
    destination_type: Literal["local"]
    delete_on_termination: Literal[True] = True


class ServerFields(Model):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._:@-]{0,254}$")
    flavorRef: str = Field(min_length=1, max_length=255)  # noqa: N815 - Nova's own
    imageRef: str = Field(min_length=1, max_length=255)  # noqa: N815
    key_name: str | None = Field(default=None, min_length=1, max_length=255)
    min_count: int = Field(default=1, ge=1, le=1000)
    max_count: int | None = Field(default=None, ge=1, le=1000)
    networks: list[NetworkFields] = Field(default_factory=list, max_length=8)
    security_groups: list[GroupFields] = Field(default_factory=list, max_length=1000)
    metadata: dict[str, str] = Field(default_factory=dict)
    user_data: str | None = Field(default=None, max_length=100_000)
    availability_zone: str | None = Field(default=None, min_length=1, max_length=255)
    config_drive: bool | None = None
    return_reservation_id: bool = False
    block_device_mapping_v2: list[BlockDevice] = Field(default_factory=list, max_length=1)
    disk_config: Literal["AUTO", "MANUAL"] = Field(default="MANUAL", alias="OS-DCF:diskConfig")


class ServerRequest(Model):
    """POST /servers."""

    server: ServerFields


class Servers:
    """A part of Compute."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        every, one = "/v2.1/servers", "/v2.1/servers/{id}"
        queries = (*FILTERS, *IGNORED)
        return [
            Operation("POST", every, self.create_server, status=202, body=ServerRequest),
            Operation("GET", every, self.list_servers, queries=queries),
            Operation("GET", f"{every}/detail", self.list_details, queries=queries),
            Operation("GET", one, self.get_server),
            Operation("DELETE", one, self.delete_server, status=204),
        ]

    async def create_server(self, ask: Ask) -> Reply:
        given: ServerFields = ask.body.server
        message = CreateInstances(
            image=given.imageRef,
            flavor=given.flavorRef,
            name=given.name,
            key_name=given.key_name,
            min_count=given.min_count,
            max_count=given.max_count or given.min_count,
            networks=tuple(NicRequest(network=each.uuid, address=each.fixed_ip) for each in given.networks),
            security_groups=tuple(each.name for each in given.security_groups),
            metadata=given.metadata,
            user_data=given.user_data,
            config_drive=given.config_drive or False,
            availability_zone=given.availability_zone,
        )
        first = (await self.bus.call(ask.ctx, message))[0]
        if given.return_reservation_id:
            return Reply({"reservation_id": first.reservation_id})
        groups = [{"name": name} for name in first.security_groups]
        made = {"id": first.id, "links": nova.links(ask, f"servers/{first.id}"), "security_groups": groups}
        headers = {"Location": f"{ask.base}{nova.ENDPOINT}/servers/{first.id}"}
        return Reply({"server": {**made, "OS-DCF:diskConfig": "MANUAL"}}, headers=headers)

    async def list_servers(self, ask: Ask) -> Reply:
        found = await self._list(ask)
        whole = [_server(ask, each) for each in found]
        return Reply(_page(ask, found, [{name: each[name] for name in ("id", "name", "links")} for each in whole]))

    async def list_details(self, ask: Ask) -> Reply:
        found = await self._list(ask)
        return Reply(_page(ask, found, [_server(ask, each) for each in found]))

    async def get_server(self, ask: Ask) -> Reply:
        return Reply({"server": _server(ask, await self._the_server(ask))})

    async def delete_server(self, ask: Ask) -> Reply:
        found = await self._the_server(ask)
        await self.bus.call(ask.ctx, DeleteInstance(instance_id=found.id))
        return Reply()

    async def _the_server(self, ask: Ask) -> Instance:
        """By its id; a name is none, and a deleted one is gone."""
        found = await self.bus.call(ask.ctx, GetInstance(instance_id=ask.path["id"]))
        if found.id != ask.path["id"] or found.vm_state is VmState.DELETED:
            raise NotFound(f"Instance {ask.path['id']} could not be found.")
        return found

    async def _list(self, ask: Ask) -> list[Instance]:
        query = ask.query
        everybody = query.get("all_tenants", "").lower() in ("1", "true")
        message = ListInstances(
            limit=_limit(ask),
            marker=query.get("marker"),
            host=query.get("host"),
            all_projects=everybody,
            deleted=query.get("deleted", "").lower() in ("1", "true"),
        )
        found = await self.bus.call(ask.ctx, message)
        return [each for each in found if _fits(each, query)]


def _limit(ask: Ask) -> int:
    text = ask.query.get("limit", "1000")
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 10):
        raise BadRequest(f"limit must be an integer, not {text[:20]!r}", field="limit")
    return max(1, min(int(text), 1000))


def _fits(instance: Instance, query: Any) -> bool:
    """A name is a regular expression, as Nova's is, of letters that cannot make it slow: else it is meant literally."""
    name = query.get("name", "")
    pattern = name if re.fullmatch(r"[\w .^$@:-]{0,255}", name) else re.escape(name)
    wanted = {
        "status": (query.get("status", "").upper(), _status(instance)),
        "flavor": (query.get("flavor", ""), instance.flavor.name),
        "image": (query.get("image", ""), instance.image_id),
        "project": (query.get("project_id", ""), instance.project_id),
    }
    return bool(re.search(pattern, instance.name)) and all(want in ("", has) for want, has in wanted.values())


def _page(ask: Ask, found: list[Instance], shown: list[Json]) -> Json:
    if "limit" not in ask.query or len(found) < _limit(ask):
        return {"servers": shown}
    again = ask.request.url.update_query(marker=found[-1].id)
    return {"servers": shown, "servers_links": [{"rel": "next", "href": f"{ask.base}{again.relative()}"}]}


def _status(instance: Instance) -> str:
    return STATUS.get(instance.status, instance.status)


def _server(ask: Ask, instance: Instance) -> Json:
    status = _status(instance)
    server: Json = {
        "id": instance.id,
        "name": instance.name,
        "status": status,
        "tenant_id": instance.project_id,
        "user_id": instance.user_id,
        "metadata": instance.metadata,
        "hostId": _host_id(instance),
        "image": {"id": instance.image_id, "links": nova.links(ask, f"images/{instance.image_id}")[1:]},
        "flavor": {"id": instance.flavor.name, "links": nova.links(ask, f"flavors/{instance.flavor.name}")[1:]},
        "created": nova.moment(instance.created_ms),
        "updated": nova.moment(instance.state_since_ms),
        "addresses": _addresses(instance),
        "accessIPv4": "",
        "accessIPv6": "",
        "links": nova.links(ask, f"servers/{instance.id}"),
        "OS-DCF:diskConfig": "MANUAL",
        "OS-EXT-AZ:availability_zone": instance.availability_zone or "nova",
        "config_drive": "",
        "key_name": instance.key_name,
        "OS-SRV-USG:launched_at": _plain(instance.launched_ms),
        "OS-SRV-USG:terminated_at": _plain(instance.deleted_ms),
        "OS-EXT-STS:task_state": instance.task_state,
        "OS-EXT-STS:vm_state": instance.vm_state,
        "OS-EXT-STS:power_state": POWER.get(instance.vm_state, 0),
        "os-extended-volumes:volumes_attached": [],
        "security_groups": [{"name": name} for name in instance.security_groups],
    }
    if status in ("ACTIVE", "BUILD"):
        server["progress"] = 100 if instance.vm_state is VmState.ACTIVE else 0
    if instance.fault is not None:
        created = nova.moment(instance.fault.at_ms)
        message = f"{instance.fault.step}: {instance.fault.message}"
        server["fault"] = {"code": 500, "created": created, "message": message}
    return server | (_for_admins(instance) if ask.ctx.role is UserRole.ADMIN else {})


def _for_admins(instance: Instance) -> Json:
    return {
        "OS-EXT-SRV-ATTR:host": instance.host,
        "OS-EXT-SRV-ATTR:hypervisor_hostname": instance.host,
        "OS-EXT-SRV-ATTR:instance_name": f"instance-{instance.number:08x}",
    }


def _host_id(instance: Instance) -> str:
    """The same for a project's servers on one host, and telling nothing of it."""
    return hashlib.sha224(f"{instance.project_id}{instance.host}".encode()).hexdigest() if instance.host else ""


def _addresses(instance: Instance) -> Json:
    found: Json = {}
    for nic in instance.nics:
        for version, address in ((4, nic.address), (6, nic.address6)):
            if address is not None:
                entry = {"version": version, "addr": str(address)}
                entry |= {"OS-EXT-IPS:type": "fixed", "OS-EXT-IPS-MAC:mac_addr": nic.mac}
                found.setdefault(nic.network or "default", []).append(entry)
    return found


def _plain(ms: float | None) -> str | None:
    """As this extension writes it."""
    text = nova.moment(ms)
    return f"{text[:-1]}.000000" if text else None
