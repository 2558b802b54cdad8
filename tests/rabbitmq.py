"""A RabbitMQ node of one's own, for tests and benchmarks; the machine's broker, if any, is never touched."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Debian's server proper. The one in /usr/sbin refuses root, or runs as `rabbitmq` in the package's directories."""

NODE = "launcher@localhost"
CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{port}
disk_free_limit.absolute = 1MB
log.file.level = warning
"""


class Broker:
    """A node with its own ports, files, cookie and name service (epmd), all on 127.0.0.1 and below `directory`.

    It starts in 4–10 s and keeps its durable queues over stop(), kill() and start(). Every method may block for
    as long; in a running event loop use `asyncio.to_thread`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port, self.node_port, self.names_port = free_ports(3)
        self.node: subprocess.Popen[bytes] | None = None
        self.names: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @staticmethod
    def installed() -> bool:
        return SERVER.exists()

    @property
    def running(self) -> bool:
        return self.node is not None and self.node.poll() is None

    def start(self, patience: float = 60) -> None:
        """Returns when the node speaks AMQP; raises RuntimeError with its last words when it does not."""
        (self.directory / "rabbitmq.conf").write_text(CONFIG.format(port=self.port))
        (self.directory / "plugins").write_text("[].")
        self.names = self._spawn(_epmd(), "-port", str(self.names_port), "-address", "127.0.0.1")
        self.node = self._spawn(SERVER)
        deadline = time.monotonic() + patience
        while not speaks_amqp(self.port):
            if self.node.poll() is not None or time.monotonic() > deadline:
                words = (self.directory / "output").read_text(errors="replace")[-2000:]
                self.kill()
                raise RuntimeError(f"RabbitMQ did not start in {patience:g} s:\n{words}")
            time.sleep(0.1)

    def stop(self) -> None:
        """As an operator stops it: queues are flushed, clients are told."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a power cut ends it."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Its sockets stay open and are silent."""
        assert self.node is not None
        self.node.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.node is not None
        self.node.send_signal(signal.SIGCONT)

    def alarm(self, *, on: bool) -> None:
        """What the broker does when its memory runs out: it takes nothing from publishers any more."""
        verb, more = ("set_alarm", ", []") if on else ("clear_alarm", "")
        what = "{resource_limit, memory, node()}"
        words = f"rabbit_alarm:{verb}({{{what}{more}}})." if on else f"rabbit_alarm:{verb}({what})."
        done = self._spawn(SERVER.with_name("rabbitmqctl"), "--node", NODE, "eval", words)
        assert done.wait(timeout=60) == 0, (self.directory / "output").read_text(errors="replace")[-2000:]

    def _end(self, number: signal.Signals) -> None:
        for process in (self.node, self.names):
            if process is None:
                continue
            process.send_signal(number)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=5)
        self.node = self.names = None

    def _spawn(self, *command: str | Path) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.directory),
            "ERL_EPMD_PORT": str(self.names_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "none"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_DIST_PORT": str(self.node_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RUNNING_UNDER_SYSTEMD": "true",  # the script then becomes the node instead of its parent
        }
        with (self.directory / "output").open("ab") as output:
            return subprocess.Popen(
                [*map(str, command)],
                env=environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )


class Cable:
    """A TCP connection to the broker that can be pulled out, or go deaf in one direction."""

    def __init__(self, url: str) -> None:
        self.to = urlsplit(url)
        self.near: list[asyncio.StreamWriter] = []
        self.far: list[asyncio.StreamWriter] = []
        self.deaf = False

    async def __aenter__(self) -> Cable:
        self.server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        self.pull()

    @property
    def url(self) -> str:
        return self.to._replace(netloc=f"guest:guest@127.0.0.1:{self.port}").geturl()

    def pull(self) -> None:
        """Cut every connection; new ones are made and heard."""
        self.strand()
        for writer in self.far:
            writer.transport.abort()
        self.far.clear()

    def strand(self) -> None:
        """Cut this side of every connection only: the broker believes that they are there."""
        self.deaf = False
        for writer in self.near:
            writer.transport.abort()
        self.near.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self.to.hostname, self.to.port)
        self.near.append(writer)
        self.far.append(far_writer)
        await asyncio.gather(self._pump(reader, far_writer, up=True), self._pump(far_reader, writer, up=False))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not (up and self.deaf):
                    writer.write(data)
        if not up:
            writer.close()


def speaks_amqp(port: int) -> bool:
    """Whether a broker answers the protocol's header with its first frame."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _epmd() -> Path:
    """Erlang's name service; Debian has no link to it on PATH."""
    erl = shutil.which("erl")
    assert erl is not None, "rabbitmq-server depends on Erlang"
    return Path(erl).resolve().parent / "epmd"
