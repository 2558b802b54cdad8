"""`launcher` as a process that begins with everything imported: one process of the tests' own has it, and forks.

To import the launcher takes a second of processor time. Whoever starts it a hundred times starts it so; what it does
then is the same, its memory apart.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import launcher.app
import launcher.cli.main
import launcher.cli.serve
from launcher import failpoints
from tests.waiting import until


class Forked:
    """What a test needs of asyncio's Process."""

    def __init__(self, news: socket.socket) -> None:
        self.pid = int(news.recv(16))
        self.returncode_: int | None = None
        self._news = news
        news.setblocking(False)

    @property
    def returncode(self) -> int | None:
        if self.returncode_ is None:
            try:
                self.returncode_ = int(self._news.recv(16))
                self._news.close()
            except BlockingIOError:
                pass
        return self.returncode_

    async def wait(self) -> int:
        await until(lambda: self.returncode is not None)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is not None:
            raise ProcessLookupError(self.pid)
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(words: Sequence[str], environment: Mapping[str, str], log: Path) -> Forked:
    """`launcher WORDS…` with this environment; what it says is added to the log."""
    news, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        request = json.dumps([[*words], {**environment}, str(log)]).encode()
        socket.send_fds(_nursery(), [request], [other.fileno()])
    return Forked(news)


@functools.cache
def _nursery() -> socket.socket:
    """The way to the process that forks; it ends when this one does."""
    ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        command = [sys.executable, "-m", "tests.preloaded", str(other.fileno())]
        subprocess.Popen(command, pass_fds=[other.fileno()], cwd=Path(__file__).parents[1]).returncode = 0
    atexit.register(ours.close)
    return ours


# --- the process that forks --------------------------------------------------------------------------


class Nursery:
    """One thread, no loop: what forks must have neither."""

    def __init__(self, requests: socket.socket) -> None:
        self.requests = requests
        self.children: dict[int, socket.socket] = {}
        self.woken, self.waker = socket.socketpair()
        self.waker.setblocking(False)

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.waker.fileno())
        while True:
            ready, _, _ = select.select([self.requests, self.woken], [], [])
            if self.woken in ready:
                self.woken.recv(1000)
                self.bury()
            if self.requests in ready:
                request, descriptors, _, _ = socket.recv_fds(self.requests, 1 << 20, 1)
                if not request:
                    return
                self.fork(json.loads(request), socket.socket(fileno=descriptors[0]))

    def fork(self, request: Any, news: socket.socket) -> None:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in (self.requests, self.woken, self.waker, news, *self.children.values()):
                each.close()
            become(*request)
        news.send(str(pid).encode())
        self.children[pid] = news

    def bury(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with self.children.pop(pid) as news:
                news.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(words: list[str], environment: dict[str, str], log: str) -> None:
    """The launcher; never returns."""
    said = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, place in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(descriptor, place)
    os.environ.clear()
    os.environ.update(environment)
    failpoints.ARMED = failpoints.parse(environment.get(failpoints.VARIABLE, ""))
    code = 70
    try:
        code = launcher.cli.main.main(words)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - the child of a fork must not return into the parent's stack
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    gc.freeze()
    Nursery(socket.socket(fileno=int(sys.argv[1]))).serve()
