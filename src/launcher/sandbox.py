"""A small family of processes around the server: a parent that reaps orphans and, on request, a sandbox.

libvirt's QEMU daemonizes itself and libvirt waits until its corpse is gone, which takes seconds where PID 1
reaps slowly. So the server's parent is a child subreaper that does nothing but wait.

In the sandbox that parent is PID 1 of a PID namespace with its own network and mounts (and, for an ordinary
user, a user namespace in which its capabilities count). When it ends, by whatever cause, the kernel ends
every process in it and takes the bridges, taps and filters away: nothing can stay behind on the host.

`python -m launcher.sandbox COMMAND…` runs any command so; the tests do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from launcher.outside import Outside

INSIDE = "LAUNCHER_SANDBOX"
ACCOUNT = "libvirt-qemu"

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
_MS_BIND, _MS_REC_PRIVATE = 0x1000, 0x4000 | 0x40000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 4, 36, 47, 2
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")

_libc = ctypes.CDLL(None, use_errno=True)


def supervise(main: Callable[[], int], *, sandboxed: bool, outside: Outside | None = None) -> int:
    """Run `main` in a child process and return its exit code; signals are passed on to it. `outside` gives the sandbox
    its ways out and in.

    Must be called before the process has a second thread. Raises OSError where namespaces are forbidden.
    """
    if not sandboxed:
        _call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return _reap(main)
    _leave_host()
    return _reap(lambda: _furnish_and_reap(main, outside))


def _furnish_and_reap(main: Callable[[], int], outside: Outside | None) -> int:
    """As PID 1 of the sandbox: own /proc, /sys and /run, loopback up, ways out and in, then wait for everything."""
    for kind, place in ((b"proc", b"/proc"), (b"sysfs", b"/sys"), (b"tmpfs", b"/run")):
        _call("mount", kind, place, kind, 0, None)
    if os.geteuid() == 0:
        _lend_account()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, stdin=subprocess.DEVNULL)
    os.environ[INSIDE] = "1"
    if outside is not None:
        outside.connect()
    return _reap(main)


def _lend_account() -> None:
    """As root, libvirt's embedded driver insists on the account that libvirt-daemon-system makes, and never uses it.

    Where it is missing, this mount namespace sees copies of the account files that have it.
    """
    lines = {"passwd": f"{ACCOUNT}:x:64055:64055::/:/usr/sbin/nologin\n", "group": f"{ACCOUNT}:x:64055:\n"}
    for name, line in lines.items():
        original, copy = Path("/etc", name), Path("/run", name)
        text = original.read_text()
        if not text.startswith(f"{ACCOUNT}:") and f"\n{ACCOUNT}:" not in text:
            copy.write_text(text.rstrip("\n") + "\n" + line)
            _call("mount", bytes(copy), bytes(original), None, _MS_BIND, None)


def _reap(main: Callable[[], int]) -> int:
    """Fork `main`, then bury every orphan until `main` has ended."""
    child = os.fork()
    if child == 0:
        _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os._exit(_guarded(main))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: _pass_on(child, received))
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _pass_on(child: int, received: int) -> None:
    """The child may have ended in the meantime."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, received)


def _guarded(main: Callable[[], int]) -> int:
    """`main`'s exit code; a SystemExit or an uncaught error ends only this process."""
    try:
        return main()
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)  # noqa: T201 - what the interpreter itself would print
            return 1
        return leaving.code or 0
    except BaseException:  # noqa: BLE001 - the child of a fork must not return into the parent's stack
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _leave_host() -> None:
    """Own network, mounts and (for the children) process ids; an ordinary user gets a user namespace first."""
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        _call("unshare", _CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        _keep_capabilities()
        # Who has gained capabilities is closed to other programs of the same user, slirp4netns among them.
        _call("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0)
    _call("unshare", _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWPID)
    _call("mount", b"none", b"/", None, _MS_REC_PRIVATE, None)


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _keep_capabilities() -> None:
    """Let the programs started later keep what the new user namespace gave (capabilities(7), ambient set)."""
    header, data = _CapHeader(_CAPABILITY_VERSION_3, 0), (_CapData * 2)()
    _call("capget", ctypes.byref(header), data)
    for part in data:
        part.inheritable = part.permitted
    _call("capset", ctypes.byref(header), data)
    for capability in range(int(_LAST_CAPABILITY.read_text()) + 1):
        _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def _call(function: str, *arguments: object) -> None:
    if getattr(_libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def _exec(argv: list[str]) -> int:
    os.execvp(argv[0], argv)  # noqa: S606 - the command is the caller's own


if __name__ == "__main__":
    sys.exit(supervise(lambda: _exec(sys.argv[1:]), sandboxed=True))
