"""A server as Nova shows it, for each microversion what it has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from launcher.bus import Bus
from launcher.floating import FloatingIp
from launcher.messages.catalogue import ListHosts
from launcher.messages.floating_ips import ListFloatingIps
from launcher.messages.volumes import ListVolumes
from launcher.models import Instance, InstanceId, Nic, TaskState, VmState
from launcher.services.api.openstack import nova
from launcher.services.api.openstack.frame import Ask, Json
from launcher.services.api.openstack.versions import Version, shaped, since
from launcher.volumes import Volume

ADMINS = "OS-EXT-SRV-ATTR"
SHAPE = {
    f"{ADMINS}:hostname": since(3),
    f"{ADMINS}:launch_index": since(3),
    f"{ADMINS}:reservation_id": since(3),
    f"{ADMINS}:root_device_name": since(3),
    "locked": since(9),
    "host_status": since(16),
    "description": since(19),
    "tags": since(26),
    "trusted_image_certificates": since(63),
    "server_groups": since(71),
    "locked_reason": since(73),
}
EMBEDDED = Version(2, 47)
"""From here on a server tells its flavor, before it refers to it."""
CONSISTENT = Version(2, 75)
"""From here on an update is answered with the whole server, before without these."""
NOT_OF_UPDATES = ("OS-EXT-", "OS-SRV-USG", "config_drive", "key_name", "host_status", "os-ext", "security_groups")
NOT_OF_UPDATES_EITHER = ("tags", "trusted_image_certificates", "server_groups")
STATUS = {VmState.BUILDING: "BUILD", VmState.STOPPED: "SHUTOFF", VmState.RESCUED: "RESCUE"}
POWER = {VmState.ACTIVE: 1, VmState.RESCUED: 1, VmState.PAUSED: 3, VmState.STOPPED: 4, VmState.SUSPENDED: 4}
TASKS = {
    TaskState.BRIDGING: "networking",
    TaskState.IMAGING: "spawning",
    TaskState.INJECTING: "spawning",
    TaskState.FILTERING: "spawning",
    TaskState.RESCHEDULING: "scheduling",
    TaskState.CLEANING: "deleting",
    TaskState.STOPPING: "powering-off",
    TaskState.STARTING: "powering-on",
}
"""Nova's words where ours are others."""


@dataclass(frozen=True)
class Around:
    """What other rooms know of servers: attached volumes, floating IPs by what they lead to, live hosts (admins')."""

    volumes: Mapping[InstanceId, Sequence[Volume]] = field(default_factory=dict)
    floating: Mapping[tuple[InstanceId, IPv4Address], FloatingIp] = field(default_factory=dict)
    hosts: frozenset[str] = frozenset()


async def look_around(bus: Bus, ask: Ask, *, all_projects: bool = False) -> Around:
    volumes: dict[InstanceId, list[Volume]] = {}
    for each in await bus.call(ask.ctx, ListVolumes(all_projects=all_projects)):
        if each.attachment is not None:
            volumes.setdefault(each.attachment.instance_id, []).append(each)
    floating = {
        (each.instance_id, each.fixed): each
        for each in await bus.call(ask.ctx, ListFloatingIps())
        if each.instance_id is not None and each.fixed is not None
    }
    hosts = await bus.call(ask.ctx, ListHosts()) if ask.ctx.is_admin else []
    return Around(volumes, floating, frozenset(each.name for each in hosts))


def status_of(instance: Instance) -> str:
    """One that is being deleted keeps its status, as in Nova; its task tells it."""
    if instance.task_state in (TaskState.REBOOTING, TaskState.REBUILDING):
        return instance.task_state.removesuffix("ing").upper()
    return STATUS.get(instance.vm_state, instance.vm_state.upper())


def task_of(instance: Instance) -> str | None:
    task = instance.task_state
    return None if task is None else TASKS.get(task, task)


def server(ask: Ask, instance: Instance, around: Around) -> Json:
    whole = {
        **_itself(ask, instance),
        **_extensions(instance),
        "addresses": addresses(instance, around),
        "os-extended-volumes:volumes_attached": [_attached(ask, each) for each in around.volumes.get(instance.id, ())],
        **(_for_admins(instance, around) if ask.ctx.is_admin else {}),
    }
    return shaped(SHAPE, ask.version, whole)


def updated(ask: Ask, instance: Instance, around: Around) -> Json:
    """The answer to an update."""
    whole = server(ask, instance, around)
    if ask.version >= CONSISTENT:
        return whole
    gone = (*NOT_OF_UPDATES, *NOT_OF_UPDATES_EITHER)
    return {name: value for name, value in whole.items() if not name.startswith(gone)}


def _itself(ask: Ask, instance: Instance) -> Json:
    status, image = status_of(instance), instance.image_id
    own: Json = {
        "id": instance.id,
        "name": instance.name,
        "status": status,
        "tenant_id": instance.project_id,
        "user_id": instance.user_id,
        "metadata": instance.metadata,
        "hostId": host_id(instance),
        "image": {"id": image, "links": nova.links(ask, f"images/{image}")[1:]},
        "flavor": _flavor(ask, instance),
        "created": nova.moment(instance.created_ms),
        "updated": nova.moment(instance.state_since_ms),
        "accessIPv4": "",
        "accessIPv6": "",
        "links": nova.links(ask, f"servers/{instance.id}"),
        "locked": instance.locked,
        "locked_reason": instance.lock_reason,
        "description": instance.description,
        "tags": list(instance.labels),
        "trusted_image_certificates": None,
        "server_groups": [],
    }
    if status in ("ACTIVE", "BUILD"):
        own["progress"] = 100 if instance.vm_state is VmState.ACTIVE else 0
    if instance.fault is not None:
        message = f"{instance.fault.step}: {instance.fault.message}"
        own["fault"] = {"code": 500, "created": nova.moment(instance.fault.at_ms), "message": message}
    return own


def _extensions(instance: Instance) -> Json:
    return {
        "OS-DCF:diskConfig": "MANUAL",
        "OS-EXT-AZ:availability_zone": instance.availability_zone or "nova",
        "config_drive": "",
        "key_name": instance.key_name,
        "OS-SRV-USG:launched_at": nova.precise(instance.launched_ms),
        "OS-SRV-USG:terminated_at": nova.precise(instance.deleted_ms),
        "OS-EXT-STS:task_state": task_of(instance),
        "OS-EXT-STS:vm_state": instance.vm_state,
        "OS-EXT-STS:power_state": POWER.get(instance.vm_state, 0),
        "security_groups": [{"name": name} for name in instance.security_groups],
    }


def _flavor(ask: Ask, instance: Instance) -> Json:
    flavor = instance.flavor
    if ask.version < EMBEDDED:
        return {"id": flavor.name, "links": nova.links(ask, f"flavors/{flavor.name}")[1:]}
    return {
        "original_name": flavor.name,
        "vcpus": flavor.vcpus,
        "ram": flavor.memory_mb,
        "disk": flavor.root_gb,
        "ephemeral": flavor.ephemeral_gb,
        "swap": flavor.swap_mb,
        "extra_specs": {},
    }


def _attached(ask: Ask, volume: Volume) -> Json:
    ends = bool(volume.attachment and volume.attachment.delete_on_termination)
    return shaped({"delete_on_termination": since(3)}, ask.version, {"id": volume.id, "delete_on_termination": ends})


def _for_admins(instance: Instance, around: Around) -> Json:
    status = "" if instance.host is None else "UP" if instance.host in around.hosts else "DOWN"
    return {
        f"{ADMINS}:host": instance.host,
        f"{ADMINS}:hypervisor_hostname": instance.host,
        f"{ADMINS}:instance_name": f"instance-{instance.number:08x}",
        f"{ADMINS}:hostname": instance.hostname,
        f"{ADMINS}:launch_index": instance.launch_index,
        f"{ADMINS}:reservation_id": instance.reservation_id,
        f"{ADMINS}:root_device_name": "/dev/vda",
        "host_status": status,
    }


def host_id(instance: Instance) -> str:
    """The same for a project's servers on one host, and telling nothing of it."""
    return hashlib.sha224(f"{instance.project_id}{instance.host}".encode()).hexdigest() if instance.host else ""


def addresses(instance: Instance, around: Around) -> Json:
    """By network, fixed and floating ones."""
    found: Json = {}
    for nic in instance.nics:
        of_nic = found.setdefault(nic.network or "default", []) if nic.address or nic.address6 else []
        for version, address in ((4, nic.address), (6, nic.address6)):
            if address is not None:
                of_nic.append(_address(nic, version, str(address), "fixed"))
        floating = around.floating.get((instance.id, nic.address)) if nic.address else None
        if floating is not None:
            of_nic.append(_address(nic, 4, str(floating.address), "floating"))
    return found


def _address(nic: Nic, version: int, address: str, kind: str) -> Json:
    return {"version": version, "addr": address, "OS-EXT-IPS:type": kind, "OS-EXT-IPS-MAC:mac_addr": nic.mac}
