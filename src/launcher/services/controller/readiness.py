"""Why an instance is not ready yet, said from the evidence; a pure function."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.life import AWAKE
from launcher.models import DhcpEvidence, Diagnostics, Instance, PowerState, VmState

CONSOLE_LINES = 8


def verdict(
    instance: Instance,
    dhcp: DhcpEvidence | None,
    domain: Diagnostics | None,
    console: Sequence[str],
    *,
    now_ms: float,
) -> str:
    """One sentence: where it stands, since when, and what was seen or not seen."""
    seconds = (now_ms - instance.state_since_ms) / 1000
    if instance.fault is not None and instance.vm_state is VmState.ERROR:
        return f"{instance.fault.step} failed: {instance.fault.message}"
    if instance.vm_state not in AWAKE:
        return f"{instance.task_state or instance.vm_state} for {seconds:.1f} s"
    said = f"the console last said {console[-1].strip()!r}" if console else "the console is silent"
    return f"running for {seconds:.1f} s; {_machine(domain)}; {_dhcp(dhcp)}; {said}"


def _machine(domain: Diagnostics | None) -> str:
    if domain is None:
        return "no domain is found on its host"
    if domain.power is not PowerState.RUNNING:
        return f"the domain is {domain.power}"
    return f"its vCPUs have used {domain.cpu_time_ms / 1000:.1f} s"


def _dhcp(dhcp: DhcpEvidence | None) -> str:
    if dhcp is None:
        return "its network serves no DHCP"
    if dhcp.requested_ms is None:
        return "no DHCP request was seen from it"
    if dhcp.answered_ms is None:
        return "it asked by DHCP and got no answer"
    return "it has its address by DHCP"
