"""Security groups and their rules as their project handles them: names, values, quotas, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.models import Quotas
from tests.flow.house import House, Json

SSH = {"direction": "ingress", "protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "0.0.0.0/0"}


async def make(house: House, name: str, *rules: Json) -> Json:
    return await house.ask("POST", "/security-groups", {"name": name, "rules": list(rules)}, status=201)


async def rules_of(house: House, name: str) -> list[Json]:
    found: list[Json] = (await house.ask("GET", f"/security-groups/{name}", status=200))["rules"]
    return [{key: value for key, value in rule.items() if value is not None and key != "id"} for rule in found]


async def test_the_default_group_lets_its_own_members_in_and_stays(house: House) -> None:
    group = await house.ask("GET", "/security-groups/default", status=200)
    (rule,) = group["rules"]
    assert (rule["direction"], rule["protocol"], rule["group_id"], rule["group"]) == (
        "ingress",
        "any",
        group["id"],
        "default",
    )
    refused = await house.ask("DELETE", "/security-groups/default", status=409)
    assert "default" in refused["detail"]


async def test_a_group_is_found_by_its_name_and_by_its_id(house: House) -> None:
    made = await house.ask("POST", "/security-groups", {"name": "web", "description": "the front"}, status=201)
    for word in ("web", made["id"]):
        assert (await house.ask("GET", f"/security-groups/{word}", status=200)) == made
    assert (made["description"], made["project_id"]) == ("the front", "admin")
    assert (await house.launch(security_groups=[made["id"], "web"]))["security_groups"] == ["web"]
    other = await make(house, str(made["id"]))
    assert (await house.ask("GET", f"/security-groups/{made['id']}", status=200))["id"] == other["id"]
    listed = await house.ask("GET", "/security-groups", status=200)
    assert [group["name"] for group in listed["security_groups"]] == [str(made["id"]), "default", "web"]
    for word in ("nope", "99999", "9" * 30, "%2e%2e%2e"):
        await house.ask("GET", f"/security-groups/{word}", status=404)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"protocol": "TCP", "from_port": 22}, SSH),
        ({"protocol": "udp", "from_port": 0, "to_port": 0}, {"protocol": "udp", "from_port": 0, "to_port": 0}),
        ({"protocol": "Icmp", "from_port": 0, "to_port": 0}, {"protocol": "icmp", "from_port": 0, "to_port": 0}),
        ({"protocol": "icmp", "from_port": 8}, {"protocol": "icmp", "from_port": 8}),
        ({"protocol": "ICMPv6", "from_port": 128}, {"protocol": "icmp", "cidr": "::/0", "from_port": 128}),
        ({"protocol": "ipv6-icmp", "cidr": "fd00::/8"}, {"protocol": "icmp", "cidr": "fd00::/8"}),
        ({"protocol": "any", "cidr": "10.1.2.3/8"}, {"protocol": "any", "cidr": "10.0.0.0/8"}),
        ({"protocol": "tcp", "cidr": "10.1.2.3"}, {"protocol": "tcp", "cidr": "10.1.2.3/32"}),
        ({"protocol": "tcp", "direction": "egress", "cidr": "::/0"}, {"direction": "egress", "cidr": "::/0"}),
        ({"protocol": "udp", "group": "web"}, {"protocol": "udp", "group": "web"}),
    ],
)
async def test_a_rule_is_added_shown_and_removed_by_value(house: House, given: Json, kept: Json) -> None:
    await make(house, "web")
    (added,) = (await house.ask("POST", "/security-groups/web/rules", {"rules": [given]}, status=201))["rules"]
    (shown,) = await rules_of(house, "web")
    assert {**shown, **kept} == shown
    assert (added["from_port"], added["to_port"]) == (shown.get("from_port"), shown.get("to_port"))
    refused = await house.ask("POST", "/security-groups/web/rules", {"rules": [given]}, status=409)
    assert "already" in refused["detail"]
    await house.ask("DELETE", "/security-groups/web/rules", {"rules": [given]}, status=204)
    assert await rules_of(house, "web") == []
    await house.ask("DELETE", "/security-groups/web/rules", {"rules": [given]}, status=404)


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        ({"protocol": "tcp", "from_port": 5, "to_port": 4}, 400),
        ({"protocol": "tcp", "to_port": 4}, 400),
        ({"protocol": "tcp", "from_port": 70000}, 400),
        ({"protocol": "tcp", "from_port": -1}, 400),
        ({"protocol": "any", "from_port": 1}, 400),
        ({"protocol": "icmp", "from_port": 300}, 400),
        ({"protocol": "icmp", "to_port": 0}, 400),
        ({"protocol": "icmpv6", "cidr": "10.0.0.0/8"}, 400),
        ({"protocol": "tcp", "cidr": "0.0.0.0/33"}, 400),
        ({"protocol": "tcp", "cidr": "10.0.0.0/8\n-j ACCEPT"}, 400),
        ({"protocol": "tcp", "cidr": "10.0.0.0/8", "group": "default"}, 400),
        ({"protocol": "gre"}, 400),
        ({"protocol": "tcp", "direction": "sideways"}, 400),
        ({"protocol": "tcp", "group": "nope"}, 404),
        ({"protocol": "tcp", "ports": 22}, 400),
    ],
)
async def test_a_bad_rule_changes_nothing(house: House, bad: Json, status: int) -> None:
    await make(house, "web")
    for method in ("POST", "DELETE"):
        await house.ask(method, "/security-groups/web/rules", {"rules": [bad, SSH]}, status=status)
    assert await rules_of(house, "web") == []
    await house.ask("POST", "/security-groups", {"name": "bad", "rules": [bad]}, status=status)
    await house.ask("GET", "/security-groups/bad", status=404)


async def test_a_rule_is_removed_by_its_id(house: House) -> None:
    web, other = await make(house, "web", SSH), await make(house, "other", SSH)
    rule, foreign = web["rules"][0]["id"], other["rules"][0]["id"]
    for wrong in (foreign, "x", "9" * 40, -1):
        await house.ask("DELETE", f"/security-groups/web/rules/{wrong}", status=404)
    await house.ask("DELETE", f"/security-groups/web/rules/{rule}", status=204)
    await house.ask("DELETE", f"/security-groups/web/rules/{rule}", status=404)
    assert (await rules_of(house, "web"), len(await rules_of(house, "other"))) == ([], 1)


async def test_a_group_in_use_is_not_deleted_and_the_refusal_names_who(house: House) -> None:
    await make(house, "web", {"protocol": "any", "group": "default"})
    await make(house, "db", {"protocol": "tcp", "from_port": 5432, "group": "web"})
    used = await house.launch(name="front", security_groups=["web"])
    assert "'front'" in (await house.ask("DELETE", "/security-groups/web", status=409))["detail"]
    await house.until(used["id"], "ACTIVE")
    await house.ask("DELETE", f"/instances/{used['id']}", status=202)
    await house.until(used["id"], "DELETED")
    assert "'db'" in (await house.ask("DELETE", "/security-groups/web", status=409))["detail"]
    await house.ask("DELETE", "/security-groups/db", status=204)
    own = {"protocol": "udp", "group": "web"}
    await house.ask("POST", "/security-groups/web/rules", {"rules": [own]}, status=201)
    await house.ask("DELETE", "/security-groups/web", status=204)
    await house.ask("DELETE", "/security-groups/web", status=404)


async def test_quotas_of_groups_rules_and_groups_of_an_instance(tmp_path: Path) -> None:
    quotas = Quotas(security_groups=4, security_group_rules=2, groups_per_instance=2)
    async with House(tmp_path, quotas=quotas).open() as house:
        udp: Json = {"protocol": "udp"}
        for name in ("one", "two", "three"):
            await make(house, name, SSH)
        refused = await house.ask("POST", "/security-groups", {"name": "four"}, status=403)
        assert refused["code"] == "quota_exceeded"
        await house.ask("POST", "/security-groups/one/rules", {"rules": [udp, {"protocol": "icmp"}]}, status=403)
        await house.ask("POST", "/security-groups/one/rules", {"rules": [udp]}, status=201)
        many = {"image": "ami-tiny", "flavor": "m1.tiny", "security_groups": ["one", "two", "three"]}
        await house.ask("POST", "/instances", many, status=403)
        made = await house.launch(security_groups=["one", "two", "two"])
        assert made["security_groups"] == ["one", "two"]
        groups = {"security_groups": ["one", "two", "three"]}
        await house.ask("PUT", f"/instances/{made['id']}/security-groups", groups, status=403)


async def test_a_launch_names_the_group_that_is_not_there(house: House) -> None:
    body = {"image": "ami-tiny", "flavor": "m1.tiny", "security_groups": ["default", "nope"]}
    refused = await house.ask("POST", "/instances", body, status=404)
    assert "'nope'" in refused["detail"]
    assert refused["field"] == "security_groups"
    assert (await house.launch())["security_groups"] == ["default"]


async def test_the_groups_of_an_instance_are_set_in_order_until_it_is_deleted(house: House) -> None:
    await make(house, "web")
    made = await house.launch(name="front")
    await house.until(made["id"], "ACTIVE")
    path = "/instances/front/security-groups"
    for groups, names in ((["web", "default"], ["web", "default"]), (["default", "web"], ["default", "web"])):
        assert (await house.ask("PUT", path, {"security_groups": groups}, status=200))["security_groups"] == names
    assert (await house.ask("PUT", path, {"security_groups": []}, status=200))["security_groups"] == ["default"]
    await house.ask("PUT", path, {"security_groups": ["nope"]}, status=404)
    gate = house.hold_step("spawning")
    held = await house.launch(name="held")
    await gate.reached.wait()
    await house.ask("DELETE", f"/instances/{held['id']}", status=202)
    await house.ask("PUT", f"/instances/{held['id']}/security-groups", {"security_groups": ["web"]}, status=409)
    gate.open.set()
    await house.until(held["id"], "DELETED")
