"""What may be said of a server: bodies of its creation and its update, the filters of lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal

from pydantic import Field

from launcher.errors import BadRequest
from launcher.models import GuestFile, Instance, Model, Personality
from launcher.services.api.openstack.server_shapes import status_of, task_of
from launcher.services.api.openstack.versions import Refused, Version, since, until
from launcher.tagging import MOST_LABELS, Label

NETWORKS_REQUIRED = Version(2, 37)
ServerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._:@-]{0,254}$")]
Text = Annotated[str, Field(max_length=255)]


class NetworkFields(Model):
    """The NIC that a network gets; ports and tags are not to be had."""

    uuid: str | None = Field(default=None, min_length=1, max_length=255)
    fixed_ip: IPv4Address | None = None
    port: Annotated[Any, Refused("a port comes with its server; name the network")] = None
    tag: Annotated[Any, since(42), Refused("devices have no tags")] = None


class GroupFields(Model):
    name: str = Field(min_length=1, max_length=255)


class BlockDevice(Model):
    """What clients say of the disk that the image becomes; other devices are not to be had yet."""

    uuid: str
    boot_index: Literal[0, "0"] = 0
    source_type: Literal["image"]
    destination_type: Literal["local"]
    delete_on_termination: Literal[True] = True
    volume_type: Annotated[Any, since(67), Refused("the disk is no volume")] = None
    tag: Annotated[Any, since(42), Refused("devices have no tags")] = None


class FileFields(Model):
    path: str
    contents: str = Field(repr=False)


class ServerFields(Model):
    name: ServerName
    flavorRef: str = Field(min_length=1, max_length=255)  # noqa: N815 - Nova's own
    imageRef: str = Field(min_length=1, max_length=255)  # noqa: N815
    key_name: str | None = Field(default=None, min_length=1, max_length=255)
    min_count: int = Field(default=1, ge=1, le=1000)
    max_count: int | None = Field(default=None, ge=1, le=1000)
    networks: list[NetworkFields] | Literal["auto", "none"] | None = Field(default=None, max_length=8)
    security_groups: list[GroupFields] = Field(default_factory=list, max_length=1000)
    metadata: dict[str, str] = Field(default_factory=dict)
    user_data: str | None = Field(default=None, max_length=100_000)
    availability_zone: str | None = Field(default=None, min_length=1, max_length=255)
    config_drive: bool | None = None
    return_reservation_id: bool = False
    block_device_mapping_v2: list[BlockDevice] = Field(default_factory=list, max_length=1)
    disk_config: Literal["AUTO", "MANUAL"] = Field(default="MANUAL", alias="OS-DCF:diskConfig")
    personality: Annotated[list[FileFields], until(56)] = Field(default_factory=list, max_length=5)
    description: Annotated[Text | None, since(19)] = None
    tags: Annotated[list[Label], since(52)] = Field(default_factory=list, max_length=MOST_LABELS)
    adminPass: Annotated[Any, Refused("guests are entered by key")] = None  # noqa: N815
    accessIPv4: Annotated[Any, Refused("addresses are what the network says")] = None  # noqa: N815
    accessIPv6: Annotated[Any, Refused("addresses are what the network says")] = None  # noqa: N815
    trusted_image_certificates: Annotated[Any, since(63), Refused("images are known by their checksums")] = None
    host: Annotated[Any, since(74), Refused("the scheduler chooses; availability_zone narrows it")] = None
    hypervisor_hostname: Annotated[Any, since(74), Refused("the scheduler chooses")] = None

    def check(self, version: Version) -> None:
        """What depends on the version beside which fields there are. Raises BadRequest."""
        if version >= NETWORKS_REQUIRED and self.networks is None:
            raise BadRequest("'networks' is a required property", field="networks")
        if version < NETWORKS_REQUIRED and isinstance(self.networks, str):
            raise BadRequest(f"networks: {self.networks!r} is not of type 'array'", field="networks")
        if self.networks == "none":
            raise BadRequest("networks: every server here has a NIC, 'none' is not to be had", field="networks")

    @property
    def nics(self) -> list[NetworkFields]:
        """None are the project's usual one."""
        return self.networks if isinstance(self.networks, list) else []

    @property
    def files(self) -> Personality:
        return Personality(files=tuple(GuestFile(path=each.path, content=each.contents) for each in self.personality))


class ServerRequest(Model):
    """POST /servers."""

    server: ServerFields
    hints: Annotated[Any, Refused("the scheduler takes none")] = Field(default=None, alias="os:scheduler_hints")
    old_hints: Annotated[Any, Refused("the scheduler takes none")] = Field(
        default=None, alias="OS-SCH-HNT:scheduler_hints"
    )


class UpdateFields(Model):
    name: ServerName | None = None
    description: Annotated[Text | None, since(19)] = None
    accessIPv4: Annotated[Any, Refused("addresses are what the network says")] = None  # noqa: N815
    accessIPv6: Annotated[Any, Refused("addresses are what the network says")] = None  # noqa: N815
    disk_config: Annotated[Any, Refused("a disk's size is its flavor's")] = Field(
        default=None, alias="OS-DCF:diskConfig"
    )


class UpdateRequest(Model):
    """PUT /servers/{id}."""

    server: UpdateFields


Tell = Callable[[Instance], Any]
EXACT: Mapping[str, Tell] = {
    "status": lambda each: status_of(each).lower(),
    "vm_state": lambda each: each.vm_state,
    "task_state": lambda each: task_of(each) or "",
    "flavor": lambda each: each.flavor.name,
    "image": lambda each: each.image_id,
    "host": lambda each: each.host or "",
    "project_id": lambda each: each.project_id,
    "tenant_id": lambda each: each.project_id,
    "user_id": lambda each: each.user_id,
    "key_name": lambda each: each.key_name or "",
    "uuid": lambda each: each.id,
    "hostname": lambda each: each.hostname,
    "reservation_id": lambda each: each.reservation_id,
    "availability_zone": lambda each: each.availability_zone or "nova",
}
"""Filters that compare one word, whatever its case."""
PATTERNS: Mapping[str, Callable[[Instance], list[str]]] = {
    "name": lambda each: [each.name],
    "ip": lambda each: [str(nic.address) for nic in each.nics if nic.address],
    "ip6": lambda each: [str(nic.address6) for nic in each.nics if nic.address6],
}
"""Filters that look for a regular expression."""
TAGGED: Mapping[str, Callable[[set[str], set[str]], bool]] = {
    "tags": lambda want, has: want <= has,
    "tags-any": lambda want, has: bool(want & has),
    "not-tags": lambda want, has: not want <= has,
    "not-tags-any": lambda want, has: not want & has,
}
SORTS: Mapping[str, Tell] = {
    "created_at": lambda each: (each.created_ms, each.number),
    "updated_at": lambda each: (each.state_since_ms, each.number),
    "launched_at": lambda each: (each.launched_ms or 0, each.number),
    "display_name": lambda each: (each.name, each.number),
    "name": lambda each: (each.name, each.number),
    "uuid": lambda each: each.id,
    "vm_state": lambda each: (each.vm_state, each.number),
    "task_state": lambda each: (each.task_state or "", each.number),
    "host": lambda each: (each.host or "", each.number),
    "key_name": lambda each: (each.key_name or "", each.number),
    "project_id": lambda each: (each.project_id, each.number),
    "user_id": lambda each: (each.user_id, each.number),
}
FILTERS = (*EXACT, *PATTERNS, "all_tenants", "deleted", "changes-since")
PAGED = ("limit", "marker", "sort_key", "sort_dir")
AGED = {"locked": since(73), "changes-before": since(66)} | dict.fromkeys(TAGGED, since(26))


def fits(instance: Instance, query: Mapping[str, str]) -> bool:
    """Whether it passes the filters that compare words."""
    return (
        all(str(tell(instance)).lower() == query[name].lower() for name, tell in EXACT.items() if name in query)
        and all(_found(query[name], tell(instance)) for name, tell in PATTERNS.items() if name in query)
        and all(
            test(set(query[name].split(",")), set(instance.labels)) for name, test in TAGGED.items() if name in query
        )
    )


def _found(text: str, words: list[str]) -> bool:
    """A regular expression, as Nova's is, of letters that cannot make it slow: else it is meant literally."""
    pattern = text if re.fullmatch(r"[\w .^$@:-]{0,255}", text) else re.escape(text)
    return any(re.search(pattern, word) for word in words)
