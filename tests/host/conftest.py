from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.host.killing import SCORES
from tests.host.libvirtd import Daemon
from tests.host.test_restart_under_traffic import FIGURES
from tests.rabbitmq import Broker
from tests.serving import LIBRARY, Server


@pytest.fixture
async def server(sandboxed: None, tmp_path: Path) -> AsyncIterator[Server]:
    """A server on this sandbox's network. It is not started; whatever it left running is ended."""
    if not (LIBRARY / "ami-tiny" / "image.json").exists():
        pytest.skip("HOST TEST NOT RUN: the tiny image is missing; run `make setup`")
    server = Server(tmp_path / "state")
    yield server
    if server.process is not None and not server.ended:
        await server.stop()
    leave_nothing(server)


def leave_nothing(server: Server) -> None:
    """End the guests of this state directory."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(server.state).encode() in words and int(process.name) != os.getpid():
            os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture
async def daemon(sandboxed: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("d"))
    async with daemon.running:
        await daemon.start()
        yield daemon


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if not Broker.installed():
        pytest.skip("RABBITMQ TEST NOT RUN: install the package rabbitmq-server")
    broker = Broker(tmp_path_factory.mktemp("rabbitmq"))
    yield broker
    broker.kill()


@pytest.fixture
def broker(shared_broker: Broker) -> Broker:
    """A private RabbitMQ, up and well; the same for all tests of a file."""
    if not shared_broker.running:
        shared_broker.start()
    return shared_broker


@pytest.fixture
async def busy(server: Server, broker: Broker) -> Server:
    """A server of fakes whose bus is the private broker."""
    server.settings = [
        "virt.driver=fake",
        "host.name=node-1",
        "fake.step_delay_s=0.2",
        "quotas.instances=1000",
        "quotas.cores=1000",
        "quotas.memory_mb=1000000",
        f"bus.url={broker.url}",
    ]
    await server.start()
    return server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, score in config.stash.get(SCORES, {}).items():
        terminalreporter.write_line(f"kill -9: {score} ({name})")
    for line in config.stash.get(FIGURES, []):
        terminalreporter.write_line(f"restarts under traffic: {line}")
