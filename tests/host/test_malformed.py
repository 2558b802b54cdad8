"""A thousand malformed messages over RabbitMQ at a server's roles: each is dead or is answered."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from launcher.connections import DEAD_QUEUE, EXCHANGE
from launcher.messages import access, compute, instances, network, reports, scheduler
from launcher.messaging import Message
from tests.malformed import Forger
from tests.rabbitmq import Broker
from tests.serving import Server
from tests.waiting import eventually

pytestmark = [pytest.mark.host, pytest.mark.rabbitmq]

SEED, LETTERS = 20101021, 1000


def messages_to(topic: str) -> list[type[Message]]:
    modules = (access, compute, instances, network, reports, scheduler)
    return [
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Message) and each.__dict__.get("topic") == topic
    ]


async def post_all(channel: AbstractChannel, reply_to: str) -> int:
    """How many of them want an answer."""
    rng, wanted = Random(SEED), 0
    exchange = await channel.get_exchange(EXCHANGE, ensure=False)
    forgers = {topic: Forger(messages_to(topic), rng) for topic in ("controller", "scheduler", "compute", "network")}
    for number in range(LETTERS):
        topic = rng.choice(list(forgers))
        letter = forgers[topic].spoilt()
        wanted += letter.answered
        message = aio_pika.Message(
            letter.body, reply_to=reply_to if letter.answered else None, correlation_id=str(number)
        )
        await exchange.publish(message, rng.choice((topic, f"{topic}.node-1")))
    return wanted


async def test_a_thousand_malformed_messages_are_all_accounted_for(busy: Server, broker: Broker) -> None:
    answers: Counter[str] = Counter()

    async def take(letter: AbstractIncomingMessage) -> None:
        answers[json.loads(letter.body)["failure"]["code"]] += 1

    async def dead() -> int:
        return int((await busy.get("/healthz"))["dead_letters"])

    async def accounted_for() -> bool:
        return await dead() + answers.total() >= LETTERS

    async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(exclusive=True)
        await queue.consume(take, no_ack=True)
        wanted = await post_all(channel, queue.name)
        await eventually(accounted_for, within=60, what="an account of every message")
        assert await dead() + answers.total() == LETTERS
        assert set(answers) == {"bad_message", "unknown_method"}
        assert 0 < answers.total() < wanted
        kept = await channel.declare_queue(DEAD_QUEUE, passive=True)
        assert kept.declaration_result.message_count == await dead()
    async with busy.http() as http:
        async with http.post("/instances", json={"image": "ami-tiny", "flavor": "m1.tiny", "name": "after"}) as answer:
            assert answer.status == 202
        await busy.until_instance("after", status="ACTIVE")
        async with http.get("/metrics") as answer:
            assert f"launcher_bus_dead_letters {float(await dead())}" in await answer.text()
