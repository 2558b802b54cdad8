"""To a compute host."""

from __future__ import annotations

from pydantic import Field

from launcher.accounts import UserRole
from launcher.explaining import Decision
from launcher.groups import Traffic
from launcher.messaging import Call, Cast
from launcher.models import Diagnostics, LaunchOrder


class RunInstance(Cast):
    """Launch, or go on launching. A running machine of the same generation is success."""

    topic = "compute"
    traced = True
    order: LaunchOrder


class TerminateInstance(Cast):
    """Undo the launch, whole or half done, and report ReportGone.

    With `keep_address` the launch goes on at another host: its lease stays, and the controller is asked first, because
    this order may come so late that the instance is here again.
    """

    topic = "compute"
    traced = True
    order: LaunchOrder
    keep_address: bool = False


class VerifyInstance(Cast):
    """The controller believes it to be on this host, at rest: re-apply what a restart may have lost.

    With `running` there must be a machine; one that is missing is reported.
    """

    topic = "compute"
    order: LaunchOrder
    running: bool = True


class RefreshGroups(Cast):
    """What this host filters by has changed, for the last time at this version: ask for it, and let it hold."""

    topic = "compute"
    version: int


class GetConsoleLog(Call[str]):
    topic = "compute"
    needs = UserRole.READER
    order: LaunchOrder
    max_bytes: int = Field(ge=1, le=102400)


class GetDiagnostics(Call[Diagnostics]):
    topic = "compute"
    needs = UserRole.READER
    order: LaunchOrder


class ExplainFilters(Call[Decision]):
    """Would this pass the instance's filters, and by which rule? Raises Conflict when it has none here."""

    topic = "compute"
    needs = UserRole.READER
    order: LaunchOrder
    traffic: Traffic


class PruneBases(Call[int]):
    """Remove the copies of images that no instance here uses; the bytes that this freed."""

    topic = "compute"
    needs = UserRole.ADMIN
