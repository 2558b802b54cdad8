"""Waiting for a launch, stage by stage, each with a deadline of its own and a reason when it is missed.

active: the machine runs · ip: the DHCP server has given it its address · ssh: a server greets on port 22.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from launcher.cli import events
from launcher.cli.client import Api, Exit, Failure, Json
from launcher.cli.lateness import late
from launcher.cli.websocket import Tunnel

STAGES = ("active", "ip", "ssh")
Tell = Callable[[Json, str, float, str], None]
"""Called with the instance, what has begun or been reached, milliseconds since the call, and a remark."""

_POLL = 0.2
_KNOCK = 5.0
"""Seconds a single attempt on port 22 may take, the greeting included."""


def wait_active(api: Api, instances: Sequence[Json], timeout: float, tell: Tell) -> list[Json]:
    """Follow the event log until each instance runs. Raises Failure when one ends otherwise or is late."""
    deadline = time.monotonic() + timeout
    waiting = {instance["id"]: instance for instance in instances}
    only = instances[0]["id"] if len(instances) == 1 else None
    for event in events.follow(api, deadline, instance_id=only):
        instance = waiting.get(event["instance_id"])
        if instance is None:
            continue
        state = event["vm_state"]
        step = event["task_state"] if state == "building" else state
        tell(instance, step or state, event["at_ms"] - instance["created_ms"], event["message"])
        if state == "active":
            del waiting[event["instance_id"]]
        elif state != "building" or event["task_state"] == "deleting":
            raise ended(api, instance)
        if not waiting:
            return [api.get(f"/instances/{instance['id']}") for instance in instances]
    raise late(api, next(iter(waiting.values())), "active", timeout)


def wait_ip(api: Api, instance: Json, timeout: float, tell: Tell) -> None:
    """Until the DHCP server has answered the guest."""
    deadline = time.monotonic() + timeout
    reason = ""
    while time.monotonic() < deadline:
        try:
            seen = api.get(f"/instances/{instance['id']}/readiness", timeout=timeout)["dhcp"]
            if seen and seen["answered_ms"]:
                tell(instance, "ip", seen["answered_ms"] - instance["created_ms"], ", ".join(instance["addresses"]))
                return
        except Failure as failure:
            _raise_unless_passing(failure)
            reason = failure.title
        time.sleep(_POLL)
    raise late(api, instance, "ip", timeout, reason)


def wait_ssh(api: Api, instance: Json, timeout: float, tell: Tell) -> None:
    """Until a server greets on port 22."""
    deadline = time.monotonic() + timeout
    begun, reason = time.time() * 1000, ""
    while time.monotonic() < deadline:
        try:
            greeting = greet(api, instance["id"], min(_KNOCK, timeout))
            tell(instance, "ssh", time.time() * 1000 - instance["created_ms"], greeting)
            return
        except Failure as failure:
            _raise_unless_passing(failure)
            reason = f"{failure.title}: {failure.detail}" if failure.detail else failure.title
        time.sleep(_POLL)
    waited = time.time() * 1000 - begun
    raise late(api, instance, "ssh", waited / 1000, reason)


def greet(api: Api, instance_id: str, timeout: float) -> str:
    """The line with which the guest's SSH server greets (RFC 4253, section 4.2). Raises Failure."""
    with Tunnel.open(api, instance_id, 22, timeout=timeout) as tunnel:
        said = tunnel.payload()
        try:
            while b"\n" not in said and not tunnel.closed:
                said += tunnel.receive()
        except OSError as error:
            raise Failure("port 22 is open but silent", exit_code=Exit.LATE, detail=str(error)) from None
    if not said.startswith(b"SSH-"):
        raise Failure("port 22 was closed at once" if not said else "port 22 speaks no SSH")
    return said.split(b"\n")[0].decode(errors="replace").strip()


def ended(api: Api, instance: Json) -> Failure:
    """The failure of a launch that did not end in a running machine, in the server's words."""
    try:
        instance = api.get(f"/instances/{instance['id']}")
    except Failure as failure:
        return Failure(f"{instance['name']} is gone", exit_code=Exit.FAULT, detail=failure.title)
    fault = instance["fault"]
    if not fault:
        return Failure(f"{instance['name']} ended as {instance['status']}", exit_code=Exit.FAULT)
    return Failure(
        f"{instance['name']}: {fault['step']} failed",
        exit_code=Exit.FAULT,
        detail=f"{fault['message']} [{fault['code']}, {fault['request_id']}]",
        hint=fault["hint"] or f"launcher trace {instance['id'][:8]}",
    )


def _raise_unless_passing(failure: Failure) -> None:
    """A launch that is gone stays gone; whatever else is in the way may pass before the deadline."""
    if failure.exit_code == Exit.NOT_FOUND:
        raise failure
