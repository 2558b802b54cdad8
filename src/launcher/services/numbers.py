"""Whose the numbers are that everything on this host is named from.

The database gives every number once. One that was lost or put back from a copy does it again, while the guests of the
first time still run: then a tap or a chain of that name is not the new instance's to take, nor to take away.
"""

from __future__ import annotations

from launcher.auditing import NOBODY, Look
from launcher.errors import DomainConflict
from launcher.models import InstanceId, InstanceRef


class Numbers:
    """In memory: looked up once at the start, and told by the launches since. `highest` is the highest ever seen."""

    def __init__(self) -> None:
        self.owners: dict[int, InstanceId] = {}
        self.highest = 0

    def see(self, look: Look) -> None:
        """Domains and directories bear their instance's id; of a tap or chain alone nobody knows whose it was."""
        self.owners |= dict.fromkeys(look.others, NOBODY)
        self.owners |= {each.number: each.instance_id for each in look.artefacts if each.number and each.instance_id}
        self.highest = max([0, *look.others, *(each.number or 0 for each in look.artefacts)])

    def take(self, ref: InstanceRef) -> None:
        """Raises DomainConflict when the number is another instance's on this host."""
        owner = self.owners.setdefault(ref.number, ref.instance_id)
        if owner != ref.instance_id:
            raise DomainConflict(
                f"{ref.name}: on this host that is the instance {owner}, of another database",
                hint="launch again, new numbers are free; `launcher audit` shows what this database does not know",
            )
        self.highest = max(self.highest, ref.number)

    def has(self, ref: InstanceRef) -> bool:
        """Whether what bears the number may be taken away for this instance."""
        return self.owners.get(ref.number, ref.instance_id) == ref.instance_id

    def release(self, ref: InstanceRef) -> None:
        """Nothing of the instance is left here."""
        if self.has(ref):
            self.owners.pop(ref.number, None)
