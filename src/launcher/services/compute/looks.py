"""Looks at what is on the host: a machine after a restart, its console, and everything that instances left there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from launcher.auditing import NOBODY, ArtefactKind, ListArtefacts, Look, RemoveArtefacts
from launcher.bus import Bus
from launcher.drivers.images.store import ImageStore
from launcher.drivers.virt.driver import Domain, VirtDriver
from launcher.errors import Conflict
from launcher.messages.compute import GetConsoleLog, GetDiagnostics, PruneBases, VerifyInstance
from launcher.messages.reports import ReportVerified
from launcher.messaging import Context, Route
from launcher.models import POWERED_OFF, Diagnostics, LaunchOrder, PowerState
from launcher.services.artefacts import Artefacts
from launcher.services.compute.holdings import Holdings
from launcher.services.compute.launch import Launches
from launcher.services.compute.reporting import Reporting
from launcher.services.compute.work import Launch


class Looks:
    """A machine that is not found is looked for again after `second_look` seconds."""

    def __init__(
        self,
        *,
        host: str,
        bus: Bus,
        virt: VirtDriver,
        images: ImageStore,
        artefacts: Artefacts,
        holdings: Holdings,
        reporting: Reporting,
        launches: Launches,
        second_look: float,
    ) -> None:
        self.host, self.bus, self.virt, self.images, self.artefacts = host, bus, virt, images, artefacts
        self.holdings, self.reporting, self.launches, self.second_look = holdings, reporting, launches, second_look
        self.found_at_start = Look(host=host, kinds=frozenset(), artefacts=())

    @property
    def routes(self) -> Sequence[Route]:
        return [
            VerifyInstance.to(self.verify_instance),
            GetConsoleLog.to(self.get_console_log),
            GetDiagnostics.to(self.get_diagnostics),
            ListArtefacts.to(self.list_artefacts),
            RemoveArtefacts.to(self.remove_artefacts),
            PruneBases.to(self.prune_bases),
        ]

    async def start(self) -> None:
        self.found_at_start = await self.artefacts.look(self.host)
        self.holdings.numbers.see(self.found_at_start)

    async def verify_instance(self, ctx: Context, message: VerifyInstance) -> None:
        """After a restart: filters and links are put back, a machine that is missing is reported.

        The filters first: the controller refuses their policy where this comes too late. Held last: what is counted is
        not asked for again.
        """
        order = message.order
        async with self.holdings.turns.take(order, "verify") as mine:
            if not mine:
                return
            if not await (self._runs(order) if message.running else self.images.has_disks(order)):
                return
            work = Launch(ctx, order)
            again = self.launches
            for step in (again.allocate_address, again.apply_firewall, again.plug, again.plug_volumes):
                await step(work)
            self.holdings.hold(order, running=message.running)
            mended = self.found_at_start.lacks(order.number, {ArtefactKind.TAP, ArtefactKind.CHAIN})
            await self.bus.cast(ctx, ReportVerified(instance_id=order.instance_id, mended=mended))

    async def _runs(self, order: LaunchOrder) -> bool:
        """Whether this generation does; when none does, that is reported. One whose guest powered it off while nobody
        watched ended as if somebody had.
        """
        found = await self._find_domain(order)
        if found is None and order.instance_id in self.holdings.held:
            self.holdings.hold(order, running=False)  # it ended while it was being verified, and nobody listened
        if found is None and await self.virt.find_end(order) == POWERED_OFF:
            await self.reporting.power(order, PowerState.STOPPED, POWERED_OFF)
        elif found is None:
            await self.reporting.power(order, None, "no domain was found")
        return found is not None and found.generation == order.generation

    async def _find_domain(self, order: LaunchOrder) -> Domain | None:
        """None when it runs in neither of two looks: a hypervisor that starts may still be finding its guests again."""
        for pause in (0.0, self.second_look):
            await asyncio.sleep(pause)
            found = await self.virt.find_domain(order.instance_id)
            if found is not None and found.power is not PowerState.STOPPED:
                return found
        return None

    async def get_console_log(self, ctx: Context, message: GetConsoleLog) -> str:
        return (await self.images.read_console(message.order, message.max_bytes)).decode(errors="replace")

    async def get_diagnostics(self, ctx: Context, message: GetDiagnostics) -> Diagnostics:
        return await self.virt.get_diagnostics(message.order)

    async def list_artefacts(self, ctx: Context, message: ListArtefacts) -> Look:
        return await self.artefacts.look(self.host)

    async def remove_artefacts(self, ctx: Context, message: RemoveArtefacts) -> None:
        """Undo without a report. What is being worked on is left to that work, and to the next look."""
        ref = message.ref
        if ref is None:
            await self.images.remove_exports()
            return
        others = {order.number for order in self.holdings.held.values() if order.instance_id != ref.instance_id}
        async with self.holdings.turns.take_idle(ref.name if ref.instance_id == NOBODY else ref.instance_id) as mine:
            if not mine or ref.number in others:
                raise Conflict(f"{ref.name}: somebody is at work for it")
            await self.artefacts.remove(ref, message.kinds)

    async def prune_bases(self, ctx: Context, message: PruneBases) -> int:
        return await self.images.prune_bases()
