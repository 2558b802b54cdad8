"""Whether packets of guests get through this host, and what launcher has changed for them."""

from __future__ import annotations

import json
from pathlib import Path

from launcher.cli.checks.finding import OK, WITHOUT, Finding
from launcher.drivers import process
from launcher.drivers.nat.nftables import NOTE, ROUTING
from launcher.errors import LauncherError


def routing(state: Path) -> Finding:
    """The host's own; the sandbox has one of its own."""
    try:
        is_router = ROUTING.read_text().strip() == "1"
    except OSError as error:
        return Finding("routing", WITHOUT, f"{ROUTING}: {error.strerror}; guests do not reach beyond the host")
    if not is_router:
        return Finding("routing", OK, "off; `launcher serve` without --sandbox turns it on for [network] nat and pools")
    try:
        was = json.loads((state / NOTE).read_text())["was"]
    except (OSError, ValueError, KeyError, TypeError):
        return Finding("routing", OK, "net.ipv4.ip_forward is 1, and was so before launcher")
    return Finding("routing", OK, f"net.ipv4.ip_forward is 1; launcher set it, it was {was}")


async def forwarding() -> Finding:
    try:
        said = await process.run(["iptables", "--wait", "-S", "FORWARD"])
    except LauncherError:
        return Finding("forwarding", OK, "only root may see iptables' FORWARD; the sandbox has one of its own")
    if "-P FORWARD DROP" not in said.splitlines():
        return Finding("forwarding", OK, "the policy of iptables' FORWARD lets guests out")
    found = "the policy of iptables' FORWARD is DROP; launcher adds a chain at its end that accepts what guests need"
    return Finding("forwarding", OK, found)
