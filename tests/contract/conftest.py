"""The buses that the contract suite runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from launcher.amqp import AmqpBus
from tests.contract.wire import AnyWire, Wire, amqp_wire, memory_wire
from tests.rabbitmq import SERVER, Broker


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if not Broker.installed():
        pytest.skip(f"RABBITMQ TEST NOT RUN: {SERVER} is missing; install the package rabbitmq-server")
    broker = Broker(tmp_path_factory.mktemp("rabbitmq"))
    yield broker
    broker.kill()


@pytest.fixture
def broker(shared_broker: Broker) -> Broker:
    """A private RabbitMQ, up and well; the same for the whole session unless a test put it down."""
    if not shared_broker.running:
        shared_broker.start()
    return shared_broker


@pytest.fixture(params=["memory", pytest.param("amqp", marks=pytest.mark.rabbitmq)])
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[AnyWire]:
    opened = memory_wire() if request.param == "memory" else amqp_wire(request.getfixturevalue("broker").url)
    async with opened as wire:
        yield wire


@pytest.fixture
async def amqp(broker: Broker) -> AsyncIterator[Wire[AmqpBus]]:
    async with amqp_wire(broker.url) as wire:
        yield wire
