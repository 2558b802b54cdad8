"""The command `doctor`: what this machine can and cannot do, and the next thing to try.

Each finding is ok, without (launcher runs, and says what it does instead) or broken (no real guest can run).
What can be tried is tried, in a sandbox of its own: a device node that exists proves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from launcher.cli import output
from launcher.cli.checks import host, routing, server
from launcher.cli.checks.finding import BROKEN, Finding
from launcher.cli.client import Exit, find_state


def run(args: argparse.Namespace) -> int:
    findings = asyncio.run(examine(args.state))
    broken = any(finding.verdict == BROKEN for finding in findings)
    if args.json:
        found = [finding._asdict() for finding in findings]
        output.print_json({"can_run_guests": not broken, "findings": found})
    else:
        _show(findings)
    return Exit.REFUSED if broken else Exit.OK


async def examine(state: str | None) -> list[Finding]:
    """All findings, in the order of the launch: programs, devices, network, room, server."""
    directory = find_state(state)
    programs, probes = await asyncio.gather(host.programs(), host.probes())
    return [
        host.python(),
        *programs,
        host.libvirt(),
        host.kvm(directory),
        host.tun(),
        *probes,
        host.bridge_filter(),
        routing.routing(directory),
        await routing.forwarding(),
        host.injection(),
        host.uefi(),
        host.reaping(),
        host.memory(),
        host.disk(directory),
        host.state(directory),
        host.images(directory),
        await asyncio.to_thread(server.reachable, state),
    ]


def _show(findings: Sequence[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(output.painted(f"{finding.verdict:8} {finding.name:{width}}  {output.harmless(finding.found)}"))
        if finding.advice:
            print(f"{'':8} {'':{width}}  try: {finding.advice}")
    print()
    print(verdict(findings))
    sys.stdout.flush()


def verdict(findings: Sequence[Finding]) -> str:
    """The last line: can it run guests here?"""
    broken = [finding.name for finding in findings if finding.verdict == BROKEN]
    if broken:
        return (
            f"launcher cannot run real guests here yet: {', '.join(broken)}. "
            "Without guests, everything else can be seen with `launcher serve --set virt.driver=fake`."
        )
    less = [finding.name for finding in findings if finding.verdict != "ok"]
    return "launcher can run real guests here" + (f", without: {', '.join(less)}." if less else ".")
