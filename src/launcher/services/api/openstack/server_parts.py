"""Compute v2.1's rooms below a server: metadata, tags, addresses, groups, what was done to it, how its host sees it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

from pydantic import Field, ValidationError

from launcher.accounts import UserRole
from launcher.bus import Bus
from launcher.errors import BadRequest, Conflict, NotFound
from launcher.messages.attributes import ModifyInstance
from launcher.messages.instances import GetReadiness, ListEvents
from launcher.messages.security_groups import ListSecurityGroups
from launcher.messages.tags import RemoveTags, SetTags
from launcher.models import Event, Instance, Model, TaskState
from launcher.services.api.openstack import ids, nova
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, misfit, refused
from launcher.services.api.openstack.server_shapes import addresses, host_id, look_around
from launcher.services.api.openstack.versions import Version, shaped, since
from launcher.tagging import MOST_LABELS, Label, Tagged, TagKey, TagValue, Target

ONE = "/v2.1/servers/{id}"
WORDS = {
    TaskState.SCHEDULING: "create",
    TaskState.STOPPING: "stop",
    TaskState.STARTING: "start",
    TaskState.REBOOTING: "reboot",
    TaskState.PAUSING: "pause",
    TaskState.UNPAUSING: "unpause",
    TaskState.SUSPENDING: "suspend",
    TaskState.RESUMING: "resume",
    TaskState.REBUILDING: "rebuild",
    TaskState.RESCUING: "rescue",
    TaskState.UNRESCUING: "unrescue",
    TaskState.IMAGE_SNAPSHOT: "createImage",
    TaskState.DELETING: "delete",
}
"""Nova's names of actions, by the task that they begin with."""
ACTION = {"updated_at": since(58)}
EVENT = {"host": since(62), "hostId": since(62)}
TYPED_DIAGNOSTICS = Version(2, 48)


class MetadataRequest(Model):
    metadata: dict[TagKey, TagValue]


class MetaRequest(Model):
    meta: dict[TagKey, TagValue] = Field(min_length=1, max_length=1)


class TagsRequest(Model):
    tags: list[Label] = Field(max_length=MOST_LABELS)


class ServerParts:
    """A part of Compute."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        return [*self._metadata(), *self._tags(), *self._looks()]

    def _metadata(self) -> Sequence[Operation]:
        every, one = f"{ONE}/metadata", f"{ONE}/metadata/{{key}}"
        return [
            Operation("GET", every, self.get_metadata),
            Operation("POST", every, self.add_metadata, body=MetadataRequest, needs=UserRole.MEMBER),
            Operation("PUT", every, self.replace_metadata, body=MetadataRequest, needs=UserRole.MEMBER),
            Operation("GET", one, self.get_meta),
            Operation("PUT", one, self.put_meta, body=MetaRequest, needs=UserRole.MEMBER),
            Operation("DELETE", one, self.delete_meta, status=204, needs=UserRole.MEMBER),
        ]

    def _tags(self) -> Sequence[Operation]:
        every, one, ages = f"{ONE}/tags", f"{ONE}/tags/{{tag}}", since(26)
        return [
            Operation("GET", every, self.get_tags, ages=ages),
            Operation("PUT", every, self.replace_tags, body=TagsRequest, ages=ages, needs=UserRole.MEMBER),
            Operation("DELETE", every, self.delete_tags, status=204, ages=ages, needs=UserRole.MEMBER),
            Operation("GET", one, self.check_tag, status=204, ages=ages),
            Operation("PUT", one, self.put_tag, status=201, ages=ages, needs=UserRole.MEMBER),
            Operation("DELETE", one, self.delete_tag, status=204, ages=ages, needs=UserRole.MEMBER),
        ]

    def _looks(self) -> Sequence[Operation]:
        console = "there is no graphical console; the action os-getConsoleOutput has the serial one"
        return [
            Operation("GET", f"{ONE}/ips", self.list_ips),
            Operation("GET", f"{ONE}/ips/{{network}}", self.get_ips),
            Operation("GET", f"{ONE}/os-security-groups", self.list_groups),
            Operation("GET", f"{ONE}/os-instance-actions", self.list_actions),
            Operation("GET", f"{ONE}/os-instance-actions/{{request}}", self.get_action),
            Operation("GET", f"{ONE}/diagnostics", self.get_diagnostics),
            Operation("GET", f"{ONE}/migrations", self.list_migrations, ages=since(23)),
            refused("GET", f"{ONE}/topology", "hosts' NUMA nodes are not told", ages=since(78)),
            refused("GET", f"{ONE}/os-server-password", "guests are entered by key"),
            refused("POST", f"{ONE}/remote-consoles", console, ages=since(6)),
        ]

    # --- metadata ------------------------------------------------------------------------------------------

    async def get_metadata(self, ask: Ask) -> Reply:
        return Reply({"metadata": (await nova.the_server(self.bus, ask)).metadata})

    async def add_metadata(self, ask: Ask) -> Reply:
        found = await nova.the_server(self.bus, ask)
        await self._note(ask, found, ask.body.metadata)
        return await self.get_metadata(ask)

    async def replace_metadata(self, ask: Ask) -> Reply:
        found = await nova.the_server(self.bus, ask)
        await self._forget(ask, found, [key for key in found.metadata if key not in ask.body.metadata])
        await self._note(ask, found, ask.body.metadata)
        return await self.get_metadata(ask)

    async def get_meta(self, ask: Ask) -> Reply:
        key, found = ask.path["key"], await nova.the_server(self.bus, ask)
        if key not in found.metadata:
            raise NotFound("Metadata item was not found")
        return Reply({"meta": {key: found.metadata[key]}})

    async def put_meta(self, ask: Ask) -> Reply:
        if list(ask.body.meta) != [ask.path["key"]]:
            raise BadRequest("Request body and URI mismatch")
        await self._note(ask, await nova.the_server(self.bus, ask), ask.body.meta)
        return Reply({"meta": ask.body.meta})

    async def delete_meta(self, ask: Ask) -> Reply:
        await self.get_meta(ask)
        await self._forget(ask, await nova.the_server(self.bus, ask), [ask.path["key"]])
        return Reply()

    async def _note(self, ask: Ask, found: Instance, metadata: dict[str, str]) -> None:
        await self.bus.call(ask.ctx, SetTags(targets=(_target(found),), tags=metadata))

    async def _forget(self, ask: Ask, found: Instance, keys: Sequence[str]) -> None:
        if keys:
            await self.bus.call(ask.ctx, RemoveTags(targets=(_target(found),), tags=dict.fromkeys(keys)))

    # --- tags ------------------------------------------------------------------------------------------------

    async def get_tags(self, ask: Ask) -> Reply:
        return Reply({"tags": list((await nova.the_server(self.bus, ask)).labels)})

    async def replace_tags(self, ask: Ask) -> Reply:
        await self._label(ask, await nova.the_server(self.bus, ask), ask.body.tags)
        return await self.get_tags(ask)

    async def delete_tags(self, ask: Ask) -> Reply:
        await self._label(ask, await nova.the_server(self.bus, ask), [])
        return Reply()

    async def check_tag(self, ask: Ask) -> Reply:
        found = await nova.the_server(self.bus, ask)
        if ask.path["tag"] not in found.labels:
            raise NotFound(f"Server {found.id} has no tag {ask.path['tag']!r}")
        return Reply()

    async def put_tag(self, ask: Ask) -> Reply:
        found = await nova.the_server(self.bus, ask)
        if ask.path["tag"] in found.labels:
            return Reply(status=204)
        await self._label(ask, found, [*found.labels, ask.path["tag"]])
        return Reply(headers={"Location": str(ask.request.url)})

    async def delete_tag(self, ask: Ask) -> Reply:
        await self.check_tag(ask)
        found = await nova.the_server(self.bus, ask)
        await self._label(ask, found, [each for each in found.labels if each != ask.path["tag"]])
        return Reply()

    async def _label(self, ask: Ask, found: Instance, labels: Sequence[str]) -> None:
        try:
            message = ModifyInstance(instance_id=found.id, labels=tuple(labels))
        except ValidationError as error:
            raise misfit(error) from None
        await self.bus.call(ask.ctx, message)

    # --- addresses and groups --------------------------------------------------------------------------------

    async def list_ips(self, ask: Ask) -> Reply:
        found = addresses(await nova.the_server(self.bus, ask), await look_around(self.bus, ask))
        plain = {
            network: [{"version": each["version"], "addr": each["addr"]} for each in of_network]
            for network, of_network in found.items()
        }
        return Reply({"addresses": plain})

    async def get_ips(self, ask: Ask) -> Reply:
        reply = await self.list_ips(ask)
        found: Json = (reply.body or {})["addresses"]
        if ask.path["network"] not in found:
            raise NotFound("Network label not found")
        return Reply({ask.path["network"]: found[ask.path["network"]]})

    async def list_groups(self, ask: Ask) -> Reply:
        found = await nova.the_server(self.bus, ask)
        groups = [
            each for each in await self.bus.call(ask.ctx, ListSecurityGroups()) if each.name in found.security_groups
        ]
        told = [
            {
                "id": ids.uuid_of("group", each.id),
                "name": each.name,
                "description": each.description,
                "tenant_id": each.project_id,
                "rules": [],
            }
            for each in groups
            if each.project_id == found.project_id
        ]
        return Reply({"security_groups": told})

    # --- what was done to it, and how its host sees it -----------------------------------------------------------

    async def list_actions(self, ask: Ask) -> Reply:
        found = await nova.the_server(self.bus, ask, deleted=ask.version >= Version(2, 21))
        done = [_action(ask, found, events) for events in await self._events(ask, found)]
        return Reply({"instanceActions": done[::-1]})

    async def get_action(self, ask: Ask) -> Reply:
        found = await nova.the_server(self.bus, ask, deleted=ask.version >= Version(2, 21))
        for events in await self._events(ask, found):
            if events[0].request_id == ask.path["request"]:
                told = _action(ask, found, events)
                return Reply(
                    {"instanceAction": {**told, "events": [_event(ask, found, *two) for two in _pairs(events)]}}
                )
        raise NotFound(f"Action for request_id {ask.path['request']} on instance {found.id} not found")

    async def _events(self, ask: Ask, found: Instance) -> list[list[Event]]:
        """The event log's lines by the request that they come from, oldest first."""
        lines = await self.bus.call(ask.ctx, ListEvents(instance_id=found.id))
        return [list(some) for _, some in groupby(lines, key=lambda line: line.request_id)]

    async def get_diagnostics(self, ask: Ask) -> Reply:
        nova.only_admins(ask, "os-server-diagnostics")
        found = await nova.the_server(self.bus, ask)
        seen = (await self.bus.call(ask.ctx, GetReadiness(instance_id=found.id))).domain
        if seen is None:
            raise Conflict(f"Instance {found.id} has no machine to look at")
        if ask.version < TYPED_DIAGNOSTICS:
            return Reply({"cpu0_time": seen.cpu_time_ms * 1_000_000, "memory": seen.memory_mb * 1024})
        details: Json = {
            "state": {"stopped": "shutdown"}.get(seen.power, seen.power),
            "driver": "libvirt",
            "hypervisor": "qemu",
            "hypervisor_os": "linux",
            "uptime": None,
            "config_drive": None,
            "num_cpus": found.flavor.vcpus,
            "num_nics": len(found.nics),
            "num_disks": 1 + len(found.flavor.devices),
            "cpu_details": [{"id": None, "time": seen.cpu_time_ms * 1_000_000, "utilisation": None}],
            "nic_details": [],
            "disk_details": [],
            "memory_details": {"maximum": seen.memory_mb, "used": None},
        }
        return Reply(details)

    async def list_migrations(self, ask: Ask) -> Reply:
        """Servers stay on their host."""
        await nova.the_server(self.bus, ask)
        return Reply({"migrations": []})


def _target(found: Instance) -> Target:
    return Target(kind=Tagged.INSTANCE, id=found.id)


def _action(ask: Ask, found: Instance, events: Sequence[Event]) -> Json:
    begun, last = events[0], events[-1]
    failed = any(_failed(each) for each in events)
    whole = {
        "action": WORDS.get(begun.task_state, "update") if begun.task_state else "update",
        "instance_uuid": found.id,
        "request_id": begun.request_id,
        "user_id": found.user_id,
        "project_id": found.project_id,
        "start_time": nova.precise(begun.at_ms),
        "updated_at": nova.precise(last.at_ms),
        "message": "Error" if failed else None,
    }
    return shaped(ACTION, ask.version, whole)


def _pairs(events: Sequence[Event]) -> list[tuple[Event, Event]]:
    """Each with what ended it; the last one is its own end."""
    return [*pairwise(events), (events[-1], events[-1])]


def _event(ask: Ask, found: Instance, begun: Event, ended: Event) -> Json:
    whole = {
        "event": f"{'compute' if begun.host else 'api'}_{begun.task_state or begun.vm_state}",
        "start_time": nova.precise(begun.at_ms),
        "finish_time": nova.precise(ended.at_ms),
        "result": "Error" if _failed(ended) else "Success",
        "traceback": None,
        "hostId": host_id(found),
        **({"host": begun.host} if ask.ctx.is_admin else {}),
    }
    return shaped(EVENT, ask.version, whole)


def _failed(event: Event) -> bool:
    return event.vm_state == "error" or " failed: " in event.message
