"""Security groups as their project sees them; what of them a host must know is in `policy.py`."""

from __future__ import annotations

from pydantic import Field

from launcher.models import Model, Name
from launcher.policy import Rule

GroupRef = str | int
"""How a group is named: by its name or, a number, by its id. Text that is no name may be an id, too."""


class GroupRule(Rule):
    """A rule and how to name it; `group` is the name of the group at its other end, if that is one."""

    id: int
    group: Name | None = None


class Group(Model):
    """A named set of rules; what none of an instance's groups lets in is dropped."""

    id: int
    project_id: str
    name: Name
    description: str = ""
    rules: tuple[GroupRule, ...] = Field(default=(), description="in the order in which they were added")
