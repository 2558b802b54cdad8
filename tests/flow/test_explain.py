"""Whether a packet passes an instance's filters, asked of its host through the whole house."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from tests.flow.house import House, Json

PEER = "203.0.113.7"


async def ask(house: House, name: str, status: int = 200, **asked: Any) -> Json:
    return await house.ask("GET", f"/instances/{name}/explain?{urlencode(asked)}", status=status)


async def run(house: House, name: str, *groups: str) -> Json:
    made = await house.launch(name=name, security_groups=groups)
    return await house.until(made["id"], "ACTIVE")


async def test_the_rule_that_decides_is_named_and_follows_every_change(house: House) -> None:
    await house.ask("POST", "/security-groups", {"name": "web"}, status=201)
    await run(house, "front", "web")
    dropped = await ask(house, "front", address=PEER, port=22)
    assert (dropped["passes"], "web" in dropped["rule"]) == (False, True)
    rule = {"rules": [{"protocol": "tcp", "from_port": 20, "to_port": 22}]}
    await house.ask("POST", "/security-groups/web/rules", rule, status=201)
    passed = await ask(house, "front", address=PEER, protocol="tcp", port=22)
    assert passed["passes"]
    assert passed["rule"].startswith("group web: ingress tcp")
    assert not (await ask(house, "front", address=PEER, port=23))["passes"]
    assert not (await ask(house, "front", address=PEER, protocol="udp", port=22))["passes"]
    await house.ask("DELETE", "/security-groups/web/rules", rule, status=204)
    assert not (await ask(house, "front", address=PEER, port=22))["passes"]


async def test_members_of_a_group_are_let_in_by_its_rule(house: House) -> None:
    front, other = await run(house, "front", "default"), await run(house, "other", "default")
    await house.ask("POST", "/security-groups", {"name": "web"}, status=201)
    outside = await run(house, "outside", "web")
    assert (await ask(house, "front", address=other["addresses"][0], port=5432))["passes"]
    assert not (await ask(house, "front", address=outside["addresses"][0], port=5432))["passes"]
    assert (await ask(house, "outside", address=front["addresses"][0], port=5432))["passes"] is False


async def test_what_goes_out_and_what_icmp_is(house: House) -> None:
    rules = [
        {"protocol": "tcp", "from_port": 443, "direction": "egress"},
        {"protocol": "icmp", "from_port": 8},
    ]
    await house.ask("POST", "/security-groups", {"name": "web", "rules": rules}, status=201)
    await run(house, "front", "web")
    out: Json = {"direction": "egress", "address": PEER}
    assert (await ask(house, "front", **out, port=443))["passes"]
    assert not (await ask(house, "front", **out, port=80))["passes"]
    assert (await ask(house, "front", address=PEER, protocol="icmp"))["passes"]
    assert not (await ask(house, "front", address=PEER, protocol="icmp", icmp_type=0))["passes"]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"port": 22}, 400),
        ({"address": PEER}, 400),
        ({"address": PEER, "protocol": "udp"}, 400),
        ({"address": "::1", "port": 22}, 400),
        ({"address": "nowhere", "port": 22}, 400),
        ({"address": PEER, "port": 22, "nic": 1}, 400),
        ({"address": PEER, "protocol": "arp"}, 400),
    ],
)
async def test_what_cannot_be_asked(house: House, asked: Json, status: int) -> None:
    await run(house, "front")
    await ask(house, "front", status, **asked)
    await ask(house, "nobody", 404, address=PEER, port=22)


async def test_an_instance_without_filters_is_not_explained(house: House) -> None:
    gate = house.hold_step("imaging")
    await house.launch(name="front")
    await gate.reached.wait()
    await ask(house, "front", 409, address=PEER, port=22)
    gate.open.set()
