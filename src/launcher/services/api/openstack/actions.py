"""Compute v2.1's server actions, a line for each: what it takes, what it does, or why it is refused."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from launcher.accounts import UserRole
from launcher.bus import Bus
from launcher.errors import BadRequest, Conflict, NotFound
from launcher.life import Action as Life
from launcher.messages.attributes import LockInstance, ModifyInstance
from launcher.messages.floating_ips import AssociateFloatingIp, DisassociateFloatingIp, GetFloatingIp
from launcher.messages.images import CreateImageOf
from launcher.messages.instances import DeleteInstance, GetConsoleOutput
from launcher.messages.life import ActOnInstance, RebuildInstance, RescueInstance
from launcher.messages.security_groups import SetInstanceGroups
from launcher.messages.tags import SetTags
from launcher.models import Instance, Model, Name
from launcher.services.api import problems
from launcher.services.api.openstack import nova
from launcher.services.api.openstack.frame import Ask, Operation, Reply, misfit
from launcher.services.api.openstack.server_shapes import look_around, updated
from launcher.services.api.openstack.versions import ALWAYS, Ages, Refused, Version, check, since, until
from launcher.tagging import Tagged, TagKey, TagValue, Target

IMAGE_IN_BODY = Version(2, 45)
MOST_CONSOLE = 102400
LINE = 256
"""Bytes that are looked through for each line of the console that is asked for."""


class Nothing(Model):
    """`null`, or an object without anything in it."""


class RebootFields(Model):
    type: Literal["SOFT", "HARD", "soft", "hard", "Soft", "Hard"]


class LockFields(Model):
    locked_reason: Annotated[str | None, since(73)] = Field(default=None, min_length=1, max_length=255)


class ConsoleFields(Model):
    length: int | str | None = None


class GroupFields(Model):
    name: str = Field(min_length=1, max_length=255)


class FloatingFields(Model):
    address: IPv4Address
    fixed_address: IPv4Address | None = None


class ImageFields(Model):
    name: Name
    metadata: dict[TagKey, TagValue] = Field(default_factory=dict)


class RebuildFields(Model):
    imageRef: str = Field(min_length=1, max_length=255)  # noqa: N815 - Nova's own
    name: Name | None = None
    description: Annotated[str | None, since(19)] = Field(default=None, max_length=255)
    key_name: Annotated[str | None, since(54)] = Field(default=None, min_length=1, max_length=255)
    adminPass: Annotated[Any, Refused("guests are entered by key")] = None  # noqa: N815
    metadata: Annotated[Any, Refused("PUT /servers/{id}/metadata says it")] = None
    personality: Annotated[Any, until(56), Refused("files are the launch's")] = None
    preserve_ephemeral: Annotated[Any, Refused("all its disks are made anew")] = None
    user_data: Annotated[Any, since(57), Refused("it stays")] = None
    trusted_image_certificates: Annotated[Any, since(63), Refused("images are known by their checksums")] = None


class RescueFields(Model):
    rescue_image_ref: str | None = Field(default=None, min_length=1, max_length=255)
    adminPass: Annotated[Any, Refused("guests are entered by key")] = None  # noqa: N815


class ResizeFields(Model):
    flavorRef: str = Field(min_length=1, max_length=255)  # noqa: N815 - Nova's own
    disk_config: Annotated[Any, Refused("a disk's size is its flavor's")] = Field(
        default=None, alias="OS-DCF:diskConfig"
    )


class ActionRequest(Model):
    """POST /servers/{id}/action: one action's name and what it takes."""

    action: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _any(cls, whole: Any) -> Any:
        return {"action": whole}


@dataclass(frozen=True)
class Action:
    """`why` one is refused, whoever asks; else what is to be known of it."""

    name: str
    takes: type[Model] = Nothing
    do: Callable[[Ask, Instance, Any], Awaitable[Reply | None]] | None = None
    ages: Ages = ALWAYS
    why: str = ""


ONE_SIZE = "a stopped server is resized at once, and needs no confirmation"
NO_CONSOLE = "there is no graphical console; POST /servers/{id}/action os-getConsoleOutput has the serial one"
ONE_HOST = "servers stay on their host"
REFUSED = {
    "changePassword": "guests are entered by key; nothing here reaches into a running one",
    "createBackup": "backups are not rotated here",
    "shelve": "servers are not shelved: stop it",
    "shelveOffload": "servers are not shelved: stop it",
    "unshelve": "servers are not shelved",
    "restore": "what is deleted is gone",
    "migrate": ONE_HOST,
    "os-migrateLive": ONE_HOST,
    "evacuate": ONE_HOST,
    "os-resetState": "a state is what its host reports",
    "trigger_crash_dump": "there are no crash dumps",
    "resetNetwork": "nothing here reaches into a running guest",
    "injectNetworkInfo": "nothing here reaches into a running guest",
}
OLD_CONSOLES = ("os-getVNCConsole", "os-getSPICEConsole", "os-getRDPConsole", "os-getSerialConsole")


class Actions:
    """A part of Compute."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus
        self.known = {each.name: each for each in self.table()}

    @property
    def operations(self) -> Sequence[Operation]:
        path, needs = "/v2.1/servers/{id}/action", UserRole.MEMBER
        return [Operation("POST", path, self.act, status=202, body=ActionRequest, needs=needs)]

    def table(self) -> Sequence[Action]:
        return [
            Action("reboot", RebootFields, self.reboot),
            Action("os-start", do=self._to(Life.START)),
            Action("os-stop", do=self._to(Life.STOP)),
            Action("pause", do=self._to(Life.PAUSE)),
            Action("unpause", do=self._to(Life.UNPAUSE)),
            Action("suspend", do=self._to(Life.SUSPEND)),
            Action("resume", do=self._to(Life.RESUME)),
            Action("lock", LockFields, self.lock),
            Action("unlock", do=self.unlock),
            Action("forceDelete", do=self.delete, why="a delete is never put off"),
            Action("os-getConsoleOutput", ConsoleFields, self.get_console),
            Action("rebuild", RebuildFields, self.rebuild),
            Action("rescue", RescueFields, self.rescue),
            Action("unrescue", do=self._to(Life.UNRESCUE)),
            Action("createImage", ImageFields, self.create_image),
            Action("addSecurityGroup", GroupFields, self.add_group),
            Action("removeSecurityGroup", GroupFields, self.remove_group),
            Action("addFloatingIp", FloatingFields, self.add_floating_ip, until(43)),
            Action("removeFloatingIp", FloatingFields, self.remove_floating_ip, until(43)),
            Action("resize", ResizeFields, self.resize, why="only of a stopped server, and at once: no VERIFY_RESIZE"),
            Action("confirmResize", do=self.refuse_second_thoughts, why=ONE_SIZE),
            Action("revertResize", do=self.refuse_second_thoughts, why=ONE_SIZE),
            *(Action(name, why=why) for name, why in REFUSED.items()),
            *(Action(name, ages=until(43), why="NICs are the launch's") for name in ("addFixedIp", "removeFixedIp")),
            *(Action(name, ages=until(5), why=NO_CONSOLE) for name in OLD_CONSOLES),
        ]

    async def act(self, ask: Ask) -> Reply:
        given: dict[str, Any] = ask.body.action
        if len(given) != 1:
            raise BadRequest("There must be one action, and no more")
        name, value = next(iter(given.items()))
        action = self.known.get(name)
        if action is None or ask.version not in action.ages:
            raise BadRequest(f"There is no such action: {name[:60]}. Action not found in this version")
        found = await nova.the_server(self.bus, ask)
        if action.do is None:
            raise problems.HttpError(f"{name}: {action.why}", status=501)
        taken = _read(action.takes, value)
        check(taken, ask.version)
        return await action.do(ask, found, taken) or Reply()

    def _to(self, action: Life) -> Callable[[Ask, Instance, Any], Awaitable[None]]:
        async def do(ask: Ask, found: Instance, given: Any) -> None:
            await self.bus.call(ask.ctx, ActOnInstance(instance_id=found.id, action=action))

        return do

    async def reboot(self, ask: Ask, found: Instance, given: RebootFields) -> None:
        hard = given.type.upper() == "HARD"
        await self.bus.call(ask.ctx, ActOnInstance(instance_id=found.id, action=Life.REBOOT, force=hard))

    async def lock(self, ask: Ask, found: Instance, given: LockFields) -> None:
        await self.bus.call(ask.ctx, LockInstance(instance_id=found.id, locked=True, reason=given.locked_reason))

    async def unlock(self, ask: Ask, found: Instance, given: Nothing) -> None:
        await self.bus.call(ask.ctx, LockInstance(instance_id=found.id, locked=False))

    async def delete(self, ask: Ask, found: Instance, given: Nothing) -> None:
        await self.bus.call(ask.ctx, DeleteInstance(instance_id=found.id))

    async def get_console(self, ask: Ask, found: Instance, given: ConsoleFields) -> Reply:
        """The last `length` lines, or all that is kept."""
        lines = _lines(given.length)
        most = MOST_CONSOLE if lines is None else max(1, min(MOST_CONSOLE, lines * LINE))
        text = await self.bus.call(ask.ctx, GetConsoleOutput(instance_id=found.id, max_bytes=most))
        kept = text.splitlines(keepends=True)
        return Reply({"output": text if lines is None else "".join(kept[len(kept) - min(lines, len(kept)) :])}, 200)

    async def rebuild(self, ask: Ask, found: Instance, given: RebuildFields) -> Reply:
        try:
            message = RebuildInstance(instance_id=found.id, image=given.imageRef, key_name=given.key_name)
            begun = await self.bus.call(ask.ctx, message)
        except NotFound as error:
            raise BadRequest(error.message, field=error.field) from None
        if given.name is not None or given.description is not None:
            changes = ModifyInstance(instance_id=found.id, name=given.name, description=given.description)
            begun = await self.bus.call(ask.ctx, changes)
        return Reply({"server": updated(ask, begun, await look_around(self.bus, ask))})

    async def rescue(self, ask: Ask, found: Instance, given: RescueFields) -> Reply:
        """Without a password there is none to tell."""
        await self.bus.call(ask.ctx, RescueInstance(instance_id=found.id, image=given.rescue_image_ref))
        return Reply({}, 200)

    async def create_image(self, ask: Ask, found: Instance, given: ImageFields) -> Reply:
        """What is said of it beside its name is the project's tags of it."""
        made = await self.bus.call(ask.ctx, CreateImageOf(instance_id=found.id, name=given.name))
        if given.metadata:
            target = Target(kind=Tagged.IMAGE, id=made.id)
            await self.bus.call(ask.ctx, SetTags(targets=(target,), tags=given.metadata))
        if ask.version >= IMAGE_IN_BODY:
            return Reply({"image_id": made.id})
        return Reply(headers={"Location": f"{ask.base}/image/v2/images/{made.id}"})

    async def add_group(self, ask: Ask, found: Instance, given: GroupFields) -> None:
        groups = (*found.security_groups, given.name)
        await self.bus.call(ask.ctx, SetInstanceGroups(instance_id=found.id, groups=tuple(dict.fromkeys(groups))))

    async def remove_group(self, ask: Ask, found: Instance, given: GroupFields) -> None:
        if given.name not in found.security_groups:
            raise NotFound(f"Security group {given.name} not associated with the instance {found.id}")
        rest = tuple(each for each in found.security_groups if each != given.name)
        await self.bus.call(ask.ctx, SetInstanceGroups(instance_id=found.id, groups=rest))

    async def add_floating_ip(self, ask: Ask, found: Instance, given: FloatingFields) -> None:
        wanted = AssociateFloatingIp(address=given.address, instance=found.id, fixed=given.fixed_address)
        await self.bus.call(ask.ctx, wanted)

    async def remove_floating_ip(self, ask: Ask, found: Instance, given: FloatingFields) -> None:
        held = await self.bus.call(ask.ctx, GetFloatingIp(address=given.address))
        if held.instance_id != found.id:
            raise Conflict(f"Floating IP {given.address} is not associated with instance {found.id}.")
        await self.bus.call(ask.ctx, DisassociateFloatingIp(address=given.address))

    async def resize(self, ask: Ask, found: Instance, given: ResizeFields) -> None:
        try:
            await self.bus.call(ask.ctx, ModifyInstance(instance_id=found.id, flavor=given.flavorRef))
        except NotFound as error:
            raise BadRequest(error.message, field="flavorRef") from None

    async def refuse_second_thoughts(self, ask: Ask, found: Instance, given: Nothing) -> None:
        raise Conflict(f"Instance {found.id} has no resize to confirm or to revert: {ONE_SIZE}")


def _read(model: type[Model], value: Any) -> Model:
    """`null` is an object without anything."""
    try:
        return model.model_validate_json(json.dumps({} if value is None else value), strict=True)
    except ValidationError as error:
        raise misfit(error) from None


def _lines(length: int | str | None) -> int | None:
    """Nothing and -1 are all."""
    text = "-1" if length is None else str(length)
    if not (text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 10):
        raise BadRequest(f"length must be an integer, not {text[:20]!r}", field="length")
    return None if int(text) < 0 else int(text)
