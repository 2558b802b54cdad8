"""Which packet filter this host gets."""

from __future__ import annotations

import contextlib
import logging
from typing import Literal

from launcher.drivers import process
from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.firewall.iptables import IptablesFirewall
from launcher.drivers.firewall.nftables import NftablesFirewall
from launcher.drivers.firewall.nwfilter import NwfilterFirewall
from launcher.errors import FirewallFailed, LauncherError
from launcher.explaining import Settings

Choice = Literal["auto", "nftables", "iptables", "nwfilter"]

log = logging.getLogger(__name__)


async def choose_firewall(choice: Choice, settings: Settings, uri: str) -> FirewallDriver:
    """`auto` is what filters instances here already; else nftables, or iptables where iptables drops by itself.

    What nftables accepts other tables may still drop, as Docker's do with all that they do not know; a jump on top of
    iptables' own chains comes before them. Raises FirewallFailed where running instances are filtered by another one,
    and for nwfilter where libvirt at `uri` has none.
    """
    drivers: dict[str, FirewallDriver] = {
        "nftables": NftablesFirewall(settings),
        "iptables": IptablesFirewall(settings),
        "nwfilter": NwfilterFirewall(settings, uri),
    }
    used = [name for name, driver in drivers.items() if await _filters_somebody(driver)]
    chosen = choice if choice != "auto" else used[0] if used else await _suggestion()
    for name in used:
        if name != chosen:
            raise FirewallFailed(
                f"instances of this host are filtered by {name}, not by {chosen}",
                hint=f'set [firewall] driver = "{name}", or delete them first',
            )
    log.info("packets are filtered by %s", chosen)
    for name, driver in drivers.items():
        if name != chosen:
            await driver.stop()
    if chosen == "nwfilter":
        await drivers[chosen].start()
    return drivers[chosen]


async def _filters_somebody(driver: FirewallDriver) -> bool:
    """Where a program is missing, nobody is filtered by it."""
    with contextlib.suppress(LauncherError):
        return bool(await driver.list_instances())
    return False


async def _suggestion() -> str:
    with contextlib.suppress(LauncherError):
        if "-P FORWARD DROP" in await process.run(["iptables", "-S", "FORWARD"]):
            return "iptables"
    return "nftables"
