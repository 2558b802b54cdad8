"""One property of an instance, changed: as `Attribute` and `Value`, or as `X.Value`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from launcher.errors import BadRequest, Conflict, NotFound, QuotaExceeded
from launcher.messages.attributes import ModifyInstance
from launcher.messages.security_groups import ListSecurityGroups, SetInstanceGroups
from launcher.services.api.ec2 import finding
from launcher.services.api.ec2.operation import Ask, Operation
from launcher.services.api.ec2.query import BOOLEANS, Parameters, Refused, Request
from launcher.services.api.ec2.refusals import Refusal, bad_value
from launcher.services.api.ec2.xml import Done

FIXED = "an image names it"
Attribute = Literal["instanceType", "userData", "disableApiTermination", "instanceInitiatedShutdownBehavior"]


class Text(Parameters):
    value: str


class Flag(Parameters):
    value: bool


class ModifyInstanceAttribute(Request):
    """Change one property of an instance; its type and its user data while it is stopped."""

    instance_id: str
    attribute: Attribute | None = None
    value: str | None = None
    instance_type: Text | None = None
    user_data: Annotated[Text | None, Field(description="base64")] = None
    disable_api_termination: Flag | None = None
    instance_initiated_shutdown_behavior: Text | None = None
    group_id: tuple[str, ...] = ()
    kernel: Annotated[Text | None, Refused(FIXED)] = None
    ramdisk: Annotated[Text | None, Refused(FIXED)] = None
    source_dest_check: Annotated[Flag | None, Refused("packets in another's name are always dropped")] = None
    ebs_optimized: Annotated[Flag | None, Refused("there is one kind of disk")] = None


async def modify_instance_attribute(ask: Ask, request: ModifyInstanceAttribute) -> Done:
    (instance,) = await finding.instances(ask, [request.instance_id])
    changes = _changes(request)
    if len(changes) + bool(request.group_id) != 1:
        raise Refusal("InvalidParameterCombination", "Exactly one attribute is changed at a time")
    if request.group_id:
        known = await ask.look(ListSecurityGroups())
        groups = finding.groups(known, (), request.group_id)
        await ask.change(SetInstanceGroups(instance_id=instance.id, groups=groups))
    else:
        await ask.change(ModifyInstance(instance_id=instance.id, **changes))
    return Done()


def _changes(request: ModifyInstanceAttribute) -> dict[str, Any]:
    """In our words."""
    flag, kind = request.disable_api_termination, request.instance_initiated_shutdown_behavior
    given: dict[str, Any] = {
        "flavor": request.instance_type and request.instance_type.value,
        "user_data": request.user_data and request.user_data.value,
        "protected": None if flag is None else flag.value,
        "shutdown_behaviour": kind and _behaviour(kind.value),
        **_named(request),
    }
    return {name: value for name, value in given.items() if value is not None}


def _named(request: ModifyInstanceAttribute) -> dict[str, Any]:
    """The older form."""
    if (request.attribute is None) != (request.value is None):
        raise Refusal("InvalidParameterCombination", "Attribute and Value go together")
    value = request.value or ""
    match request.attribute:
        case "instanceType":
            return {"flavor": value}
        case "userData":
            return {"user_data": value}
        case "instanceInitiatedShutdownBehavior":
            return {"shutdown_behaviour": _behaviour(value)}
        case "disableApiTermination":
            if value.lower() not in BOOLEANS:
                raise bad_value("Value", value, "It is true or false.")
            return {"protected": BOOLEANS[value.lower()]}
    return {}


def _behaviour(value: str) -> str:
    if value not in ("stop", "terminate"):
        raise bad_value("InstanceInitiatedShutdownBehavior", value, "It is stop or terminate.")
    return value


OPERATIONS = (
    Operation(
        ModifyInstanceAttribute,
        Done,
        modify_instance_attribute,
        {
            (NotFound, "flavor"): "InvalidParameterValue",
            (BadRequest, "user_data"): "InvalidUserData.Malformed",
            QuotaExceeded: "InstanceLimitExceeded",
            Conflict: "IncorrectInstanceState",
        },
    ),
)
