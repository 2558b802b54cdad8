"""Why a launch is late: the evidence of the roles, side by side, in place of an empty time-out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from launcher.cli import output
from launcher.cli.client import Api, Exit, Failure, Json

SAMPLE = 1.0
"""Seconds between two looks at the vCPU's clock."""

BUSY = 0.1
"""The share of a processor above which a guest is at work; an idle one takes 0.02 under TCG."""

EXPECTED = {
    "active": "the machine is not running yet",
    "ip": "the machine runs but has taken no address",
    "ssh": "the machine runs but nothing answers on port 22",
}


def late(
    api: Api, instance: Json, stage: str, waited: float, reason: str = "", sleep: Callable[[float], None] = time.sleep
) -> Failure:
    """The failure that ends a wait of `waited` seconds for `stage`; `reason` is what the last attempt met."""
    title = f"{instance['name']}: late at {stage}: {EXPECTED[stage]} after {output.duration(waited * 1000)}"
    path = f"/instances/{instance['id']}/readiness"
    try:
        first = api.get(path)
        sleep(SAMPLE)
        second = api.get(path)
    except Failure as failure:
        detail = f"no evidence either: {failure.title}: {failure.detail}"
        return Failure(title, exit_code=Exit.LATE, detail=detail, hint=f"launcher show {instance['id'][:8]}")
    lines = output.table([*evidence(first, second), *([("last try", reason)] if reason else [])])
    tail = [f"  | {line}" for line in second["console_tail"][-5:]]
    return Failure(
        title,
        exit_code=Exit.LATE,
        detail="\n".join([*lines, *(["console ends with", *tail] if tail else ["console  empty"])]),
        hint=f"launcher console {instance['id'][:8]} -f; only the wait has ended, nothing was undone",
    )


def evidence(first: Json, second: Json) -> Iterator[tuple[str, str]]:
    """What each role knows, from two looks SAMPLE seconds apart."""
    instance = second["instance"]
    yield "verdict", second["verdict"]
    yield "state", f"{output.status(instance)} on {instance['host'] or 'no host yet'}"
    yield "DHCP", _dhcp(second["dhcp"], instance["created_ms"])
    yield "vCPU", _vcpu(first["domain"], second["domain"])
    if instance["key_name"]:
        yield "key", f"{instance['key_name']}, injected by {second['injection'] or 'nobody yet'}"


def _dhcp(seen: Json | None, created_ms: float) -> str:
    if seen is None:
        return "no record of this NIC"
    if seen["requested_ms"] is None and seen["answered_ms"] is None:
        return "no request seen from the guest"
    said = ", ".join(
        f"{word} {output.duration(seen[field] - created_ms)} after the call" if seen[field] else f"not {word}"
        for word, field in (("requested", "requested_ms"), ("answered", "answered_ms"))
    )
    return f"{said} ({seen['last_words']})" if seen["last_words"] else said


def _vcpu(first: Json | None, second: Json | None) -> str:
    if second is None:
        return "there is no domain"
    if first is None or second["power"] != "running":
        return f"the domain is {second['power']}"
    used = second["cpu_time_ms"] - first["cpu_time_ms"]
    if used <= 0:
        return f"stuck: its clock stands at {second['cpu_time_ms']} ms of processor time"
    word = "busy" if used >= BUSY * SAMPLE * 1000 else "idle, waiting for something"
    return f"{word}: {used} ms of processor time in {SAMPLE:g} s, {second['cpu_time_ms']} ms in all"
