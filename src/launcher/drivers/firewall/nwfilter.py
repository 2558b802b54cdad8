"""The packet filter by libvirt's nwfilter, which looks at frames, and by nftables, which knows connections.

Needs a daemon with nwfilter; the embedded driver has none. libvirt runs ebtables once for each rule, so a NIC takes it
some tenths of a second, where nftables.py takes a millisecond.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import libvirt

from launcher.drivers import process
from launcher.drivers.firewall import bindings, frames
from launcher.drivers.firewall.bindings import Binding
from launcher.drivers.firewall.nftables import NftablesFirewall
from launcher.drivers.virt.connection import Connection, Lane, Work
from launcher.errors import FirewallFailed, LauncherError, ProgramFailed
from launcher.explaining import Settings
from launcher.models import InstanceRef, LaunchOrder
from launcher.networks import FixedIp, Network
from launcher.policy import Policy
from launcher.ports import Port, ports_of

NAME = "launcher-nwfilter"
"""Of our tables in nftables; other ones than those of the driver nftables, so that each finds its own instances."""

_HINT = 'look with `virsh nwfilter-binding-list`; [firewall] driver = "nftables" needs no nwfilter'


class NwfilterFirewall:
    """See FirewallDriver. Raises HypervisorUnavailable while the daemon does not answer.

    `apply` needs the instance's taps. A tap whose binding has to be made anew is down meanwhile. `patience` is how many
    seconds a call waits for a lost daemon.
    """

    def __init__(self, settings: Settings, uri: str, *, patience: float = 20.0) -> None:
        self._uri, self._patience = uri, patience
        self._groups = NftablesFirewall(settings, name=NAME, guard=frames.ADVERTISED)
        self._connection: Connection[None] | None = None
        self._lane = Lane("nwfilter", 1)
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Raises FirewallFailed where the connection has no nwfilter."""
        async with self._lock:
            for xml in bindings.FILTERS:
                await self._call(functools.partial(_define, xml=xml), f"{self._uri} has no nwfilter")
        await self._groups.start()

    async def stop(self) -> None:
        await self._groups.stop()
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def ensure_base(self, network: Network) -> None:
        await self.start()
        await self._groups.ensure_base(network)

    async def apply(self, order: LaunchOrder, nics: Sequence[FixedIp], policy: Policy) -> None:
        async with self._lock:
            await self._bind(order, ports_of(order, nics))
        await self._groups.apply(order, nics, policy)

    async def update(self, policy: Policy) -> None:
        await self._groups.update(policy)

    async def remove(self, order: InstanceRef) -> None:
        await self._groups.remove(order)
        async with self._lock:
            for tap, binding in (await self._bound()).items():
                if bindings.number_of(tap) == order.number:
                    await self._unbind(binding)

    async def list_instances(self) -> Mapping[int, bool]:
        """Before the start nothing is asked of libvirt unless there are instances in our tables."""
        found = await self._groups.list_instances()
        if self._connection is None and not found:
            return found
        async with self._lock:
            bound, reached = await self._bound(), await self._reached()
        taps = await self._groups.list_taps()
        taps |= {tap: number for tap in bound if (number := bindings.number_of(tap)) is not None}
        torn = {number for tap, number in taps.items() if tap not in bound.keys() & reached}
        return {number: found.get(number, False) and number not in torn for number in sorted(set(taps.values()))}

    async def _bind(self, order: InstanceRef, ports: Sequence[Port]) -> None:
        wanted, reached = [Binding.of(port) for port in ports], await self._reached()
        found = await self._bound()
        for tap, binding in found.items():
            if bindings.number_of(tap) == order.number and (binding not in wanted or tap not in reached):
                with contextlib.suppress(ProgramFailed):  # it is gone
                    await process.run(["ip", "link", "set", "dev", tap, "down"])
                await self._unbind(binding)
        for binding in wanted:
            if found.get(binding.tap) != binding or binding.tap not in reached:
                make = functools.partial(_bind, xml=binding.xml(order))
                await self._call(make, f"{order.name}: nwfilter does not take {binding.tap}")
                await process.run(["ip", "link", "set", "dev", binding.tap, "up"])

    async def _unbind(self, binding: Binding) -> None:
        await self._call(functools.partial(_unbind, tap=binding.tap), f"nwfilter does not let go of {binding.tap}")

    async def _bound(self) -> dict[str, Binding]:
        """Our bindings by their taps."""
        read = await self._call(_list, "nwfilter's bindings cannot be listed")
        return {each.tap: each for each in map(Binding.read, read) if each.filter in (bindings.FOUR, bindings.SIX)}

    async def _reached(self) -> set[str]:
        try:
            return bindings.reached(await process.run(["ebtables", "-t", "nat", "-L"]))
        except ProgramFailed as error:
            raise FirewallFailed(f"what libvirt filters cannot be looked at: {error}") from error

    async def _call(self, work: Work[Any], what: str) -> Any:
        if self._connection is None:
            self._connection = await self._opened()
        try:
            return await self._connection.call(self._lane, work, what, FirewallFailed)
        except FirewallFailed as error:
            error.hint = error.hint or _HINT
            raise

    async def _opened(self) -> Connection[None]:
        connection = Connection[None](
            self._uri,
            census=lambda handle: None,
            on_up=lambda found: None,
            on_event=lambda *event: None,
            patience=self._patience,
            settle=0.0,
        )
        if connection.embedded:
            hint = 'give [virt] uri of a daemon ("qemu:///system"), or set [firewall] driver = "nftables"'
            raise FirewallFailed(f"{self._uri} has no nwfilter: libvirt's embedded driver is without it", hint=hint)
        try:
            await connection.open()
        except LauncherError as error:
            raise FirewallFailed(f"no nwfilter: {error}", hint=_HINT) from error
        return connection


def _define(handle: libvirt.virConnect, xml: str) -> None:
    handle.nwfilterDefineXML(xml)


def _list(handle: libvirt.virConnect) -> list[str]:
    return [binding.XMLDesc() for binding in handle.listAllNWFilterBindings()]


def _bind(handle: libvirt.virConnect, xml: str) -> None:
    handle.nwfilterBindingCreateXML(xml)


def _unbind(handle: libvirt.virConnect, tap: str) -> None:
    """Absent is success."""
    try:
        handle.nwfilterBindingLookupByPortDev(tap).delete()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_NWFILTER_BINDING:
            raise
