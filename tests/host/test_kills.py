"""kill -9 of the real process before and after every effect of a launch and of its end (`launcher/failpoints.py`)."""

from __future__ import annotations

import pytest

from launcher import failpoints
from tests.host.killing import SCORES, Client, Score, kills, leases, mixed
from tests.host.test_story import leftovers, qemus
from tests.rabbitmq import Broker
from tests.serving import Server

pytestmark = [pytest.mark.host, pytest.mark.timeout(900)]

BASE = kills(["image.base"])  # first of all: a base is made once
LAUNCH = [
    *(kill for kill in kills(list(failpoints.LAUNCH)) if kill not in BASE),
    "move:after:4:kill",
    "report.step:after:6:kill",
]
END = kills(list(failpoints.TERMINATE))
FAILURE = [
    f"spawning:before:1:raise,{then}"
    for then in (*kills(list(failpoints.FAILURE)), "undo.imaging:after:1:kill", "report.gone:before:1:kill")
]


@pytest.fixture
def score(request: pytest.FixtureRequest) -> Score:
    scores = request.config.stash.setdefault(SCORES, {})
    return scores.setdefault(request.node.name, Score())


@pytest.fixture
def client(server: Server, score: Score) -> Client:
    """On a real host: one guest, or nothing at all."""
    server.settings = ["virt.virt_type=qemu"]

    def running() -> None:
        assert (len(qemus(server)), len(leases(server))) == (1, 1)

    def empty() -> None:
        assert [*leftovers(server), *leases(server), *qemus(server)] == []

    return Client(server, score, running=running, empty=empty)


@pytest.fixture
def client_of_fakes(server: Server, score: Score, broker: Broker) -> Client:
    """Over RabbitMQ, on a host that exists in the server's memory only."""
    server.settings = ["virt.driver=fake", f"bus.url={broker.url}"]

    def empty() -> None:
        assert leases(server) == []

    return Client(server, score, running=lambda: None, empty=empty)


async def test_killed_at_every_point_of_a_launch_and_of_its_end(client: Client) -> None:
    for failpoint in [*BASE, *mixed(LAUNCH, END, FAILURE)]:
        await client.survive(failpoint)
    await client.finish()


@pytest.mark.rabbitmq
async def test_killed_at_every_point_over_rabbitmq_without_machines(client_of_fakes: Client) -> None:
    for failpoint in mixed(*([kill for kill in half if "image." not in kill] for half in (LAUNCH, END, FAILURE))):
        await client_of_fakes.survive(failpoint)
    await client_of_fakes.finish()


@pytest.mark.rabbitmq
async def test_killed_over_rabbitmq_with_machines(client: Client, broker: Broker) -> None:
    client.server.settings = [*client.server.settings, f"bus.url={broker.url}"]
    for failpoint in mixed(kills(["cast.run", "lease", "spawning"]), kills(["nudge", "undo.spawning", "release"])):
        await client.survive(failpoint)
    await client.finish()


async def test_a_launch_that_is_killed_at_every_step_in_turn(client: Client) -> None:
    """A process for each of its steps, and one for each step of its end."""
    for failpoint in [*BASE, *LAUNCH, *END]:
        if failpoint.endswith("after:1:kill"):
            await client.survive(failpoint)
    await client.finish()
