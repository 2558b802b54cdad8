"""What an instance and its machine can be, and what can be under way with it; `models.py` has them for everybody."""

from __future__ import annotations

from enum import StrEnum


class VmState(StrEnum):
    """What the machine is; moved only by conditional updates (`db/moves.py`, `db/life.py`)."""

    BUILDING = "building"
    ACTIVE = "active"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    RESCUED = "rescued"
    STOPPED = "stopped"
    ERROR = "error"
    DELETED = "deleted"


class ShutdownBehaviour(StrEnum):
    """What becomes of an instance whose guest powers itself off."""

    STOP = "stop"
    TERMINATE = "terminate"


class TaskState(StrEnum):
    """What is being done to it: the launch's steps by name, its three ways back, what its owner asked for (`life.py`).

    `rescheduling` undoes what a host has made of a launch that goes on at another.
    """

    SCHEDULING = "scheduling"
    NETWORKING = "networking"
    BRIDGING = "bridging"
    IMAGING = "imaging"
    INJECTING = "injecting"
    FILTERING = "filtering"
    SPAWNING = "spawning"
    RESCHEDULING = "rescheduling"
    CLEANING = "cleaning"
    DELETING = "deleting"
    STOPPING = "stopping"
    STARTING = "starting"
    REBOOTING = "rebooting"
    PAUSING = "pausing"
    UNPAUSING = "unpausing"
    SUSPENDING = "suspending"
    RESUMING = "resuming"
    REBUILDING = "rebuilding"
    RESCUING = "rescuing"
    UNRESCUING = "unrescuing"
    IMAGE_SNAPSHOT = "image_snapshot"


class PowerState(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


POWERED_OFF = "shutdown"
"""The cause of an end that the guest asked for itself; every other end came over it."""
