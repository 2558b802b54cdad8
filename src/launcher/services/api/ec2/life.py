"""What is done to instances between their launch and their end."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from launcher.errors import Conflict
from launcher.life import Action
from launcher.messages.life import ActOnInstance
from launcher.models import TaskState, VmState
from launcher.services.api.ec2 import finding
from launcher.services.api.ec2.instances import Changed, change
from launcher.services.api.ec2.operation import Ask, Operation
from launcher.services.api.ec2.query import Ignored, Refused, Request
from launcher.services.api.ec2.refusals import Names
from launcher.services.api.ec2.xml import Done

Ids = Annotated[tuple[str, ...], Field(min_length=1)]


class StartInstances(Request):
    """Start stopped instances. One that runs already is success."""

    instance_id: Ids
    additional_info: Annotated[str | None, Ignored("it means nothing here")] = None


class StopInstances(Request):
    """Shut instances down and keep their disks. With `Force` the guest is not asked."""

    instance_id: Ids
    force: bool = False
    hibernate: Annotated[bool, Refused("`launcher suspend` keeps a machine's memory", harmless="false")] = False


class RebootInstances(Request):
    """Shut guests down and start them again; who does not obey in time is reset."""

    instance_id: Ids


async def start_instances(ask: Ask, request: StartInstances) -> Changed:
    return await _act(ask, request.instance_id, Action.START, there=VmState.ACTIVE, going=TaskState.STARTING)


async def stop_instances(ask: Ask, request: StopInstances) -> Changed:
    there, going = VmState.STOPPED, TaskState.STOPPING
    return await _act(ask, request.instance_id, Action.STOP, there=there, going=going, force=request.force)


async def _act(
    ask: Ask, wanted: tuple[str, ...], action: Action, *, there: VmState, going: TaskState, force: bool = False
) -> Changed:
    """What is so already, or on its way to it, is left alone, but a stop under way can be forced."""
    found = await finding.instances(ask, wanted)
    after = []
    for each in found:
        idle = (each.vm_state is there and each.task_state is None) or (each.task_state is going and not force)
        done = each if idle else await ask.change(ActOnInstance(instance_id=each.id, action=action, force=force))
        after.append(done)
    return Changed(tuple(map(change, after, found)))


async def reboot_instances(ask: Ask, request: RebootInstances) -> Done:
    for each in await finding.instances(ask, request.instance_id):
        if each.task_state is not TaskState.REBOOTING:
            await ask.change(ActOnInstance(instance_id=each.id, action=Action.REBOOT))
    return Done()


NAMES: Names = {Conflict: "IncorrectInstanceState"}
OPERATIONS = (
    Operation(StartInstances, Changed, start_instances, NAMES),
    Operation(StopInstances, Changed, stop_instances, NAMES),
    Operation(RebootInstances, Done, reboot_instances, NAMES),
)
