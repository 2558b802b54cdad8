"""Neutron's door: networks and ports to read, groups, rules and floating IPs to change."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.flow import openstack_client
from tests.flow.house import House, Json
from tests.flow.openstack_client import logged_in, openstack
from tests.flow.test_floating_ips import POOLS
from tests.flow.test_openstack_compute import compare

V2 = "/network/v2.0"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path, pools=POOLS).open() as opened:
        yield opened


@pytest.fixture
async def http(house: House) -> AsyncIterator[ClientSession]:
    async with logged_in(house) as session:
        yield session


async def send(http: ClientSession, method: str, path: str, body: object = None, *, status: int) -> Any:
    return await openstack_client.send(http, method, f"{V2}{path}", body, status=status)


async def test_the_network_story_by_the_openstack_command(house: House) -> None:
    await openstack(house, "security group create web")
    await openstack(house, "security group rule create web --protocol tcp --dst-port 80:81 --remote-ip 192.0.2.0/24")
    await openstack(house, "server create --image ami-tiny --flavor m1.tiny --network default --wait vm1")
    await openstack(house, "server add security group vm1 web")
    made = json.loads(await openstack(house, "floating ip create public -f json"))
    await openstack(house, f"server add floating ip vm1 {made['floating_ip_address']}")
    (port,) = json.loads(await openstack(house, "port list --server vm1 -f json"))
    shown = json.loads(await openstack(house, f"floating ip show {made['id']} -f json"))
    assert (shown["port_id"], shown["status"]) == (port["ID"], "ACTIVE")
    server = json.loads(await openstack(house, "server show vm1 -f json"))
    assert server["addresses"] == {"default": ["10.0.0.2", made["floating_ip_address"]]}
    assert {each["name"] for each in server["security_groups"]} == {"default", "web"}
    await openstack(house, f"server remove floating ip vm1 {made['floating_ip_address']}")
    await openstack(house, f"floating ip delete {made['id']}")
    names = {each["Name"] for each in json.loads(await openstack(house, "network list -f json"))}
    assert names == {"default", "public", "other"}
    assert "10.0.0.0/24" in await openstack(house, "subnet list")


async def test_rules_come_and_go_as_they_were_said(http: ClientSession) -> None:
    group = (await send(http, "POST", "/security-groups", {"security_group": {"name": "web"}}, status=201))[
        "security_group"
    ]
    for said, told in (
        ({"protocol": "tcp", "port_range_min": 80, "port_range_max": 81}, ("tcp", 80, 81, "IPv4", "0.0.0.0/0")),
        ({"protocol": "17", "port_range_min": 53}, ("udp", 53, 53, "IPv4", "0.0.0.0/0")),
        ({"protocol": "icmp", "ethertype": "IPv6"}, ("ipv6-icmp", None, None, "IPv6", "::/0")),
        ({"protocol": None, "remote_ip_prefix": "192.0.2.0/24"}, (None, None, None, "IPv4", "192.0.2.0/24")),
        ({"protocol": "tcp", "remote_group_id": group["id"]}, ("tcp", None, None, "IPv4", None)),
        ({"protocol": "tcp", "direction": "egress"}, ("tcp", None, None, "IPv4", "0.0.0.0/0")),
    ):
        body = {"security_group_rule": {"security_group_id": group["id"], "direction": "ingress", **said}}
        made = (await send(http, "POST", "/security-group-rules", body, status=201))["security_group_rule"]
        names = ("protocol", "port_range_min", "port_range_max", "ethertype", "remote_ip_prefix")
        assert tuple(made[name] for name in names) == told
        await send(http, "POST", "/security-group-rules", body, status=409)
        assert (await send(http, "GET", f"/security-group-rules/{made['id']}", status=200))[
            "security_group_rule"
        ] == made
        await send(http, "DELETE", f"/security-group-rules/{made['id']}", status=204)
    assert (await send(http, "GET", f"/security-groups/{group['id']}", status=200))["security_group"] == group
    await send(http, "DELETE", f"/security-groups/{group['id']}", status=204)
    await send(http, "GET", f"/security-groups/{group['id']}", status=404)


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "sctp"},
        {"ethertype": "IPv6", "remote_ip_prefix": "192.0.2.0/24"},
        {"remote_ip_prefix": "everywhere"},
        {"port_range_min": 70000},
        {"description": "for the web"},
        {"colour": "red"},
    ],
)
async def test_a_rule_that_means_nothing_is_refused_in_neutrons_words(http: ClientSession, change: Json) -> None:
    (group,) = (await send(http, "GET", "/security-groups?name=default", status=200))["security_groups"]
    rule = {"security_group_id": group["id"], "direction": "ingress", "protocol": "tcp", **change}
    refused = await send(http, "POST", "/security-group-rules", {"security_group_rule": rule}, status=400)
    assert refused["NeutronError"]["type"] == "HTTPBadRequest"


async def test_lists_are_filtered_cut_and_paged(house: House, http: ClientSession) -> None:
    for name in ("a", "b", "c"):
        await send(http, "POST", "/security-groups", {"security_group": {"name": name}}, status=201)
    found = await send(http, "GET", "/security-groups?name=a&name=b&fields=name", status=200)
    assert found == {"security_groups": [{"name": "a"}, {"name": "b"}]}
    page = await send(http, "GET", "/security-groups?sort_key=name&sort_dir=desc&limit=2", status=200)
    assert [each["name"] for each in page["security_groups"]] == ["default", "c"]
    await send(http, "GET", "/security-groups?colour=red", status=400)
    made = (await house.launch(name="vm1"))["id"]
    await house.until(made, "ACTIVE")
    for query, count in ((f"device_id={made}", 1), ("fixed_ips=ip_address%3D10.0.0.2", 1), ("device_id=other", 0)):
        assert len((await send(http, "GET", f"/ports?{query}", status=200))["ports"]) == count


async def test_a_ports_groups_are_its_servers(house: House, http: ClientSession) -> None:
    made = (await house.launch(name="vm1"))["id"]
    await house.until(made, "ACTIVE")
    group = (await send(http, "POST", "/security-groups", {"security_group": {"name": "web"}}, status=201))[
        "security_group"
    ]
    (port,) = (await send(http, "GET", "/ports", status=200))["ports"]
    body = {"port": {"security_groups": [group["id"]]}}
    told = (await send(http, "PUT", f"/ports/{port['id']}", body, status=200))["port"]
    assert told["security_groups"] == [group["id"]]
    assert (await house.ask("GET", f"/instances/{made}", status=200))["security_groups"] == ["web"]
    await send(http, "PUT", f"/ports/{port['id']}", {"port": {"security_groups": ["nobody's"]}}, status=400)


async def test_a_floating_ip_leads_where_its_port_is(house: House, http: ClientSession) -> None:
    made = (await house.launch(name="vm1"))["id"]
    await house.until(made, "ACTIVE")
    (port,) = (await send(http, "GET", "/ports", status=200))["ports"]
    (outer,) = (await send(http, "GET", "/networks?name=public", status=200))["networks"]
    body = {"floatingip": {"floating_network_id": outer["id"], "port_id": port["id"]}}
    floating = (await send(http, "POST", "/floatingips", body, status=201))["floatingip"]
    assert (floating["fixed_ip_address"], floating["status"]) == ("10.0.0.2", "ACTIVE")
    path = f"/floatingips/{floating['id']}"
    none = (await send(http, "PUT", path, {"floatingip": {"port_id": None}}, status=200))["floatingip"]
    assert (none["port_id"], none["status"]) == (None, "DOWN")
    again = (await send(http, "PUT", path, {"floatingip": {"port_id": port["id"]}}, status=200))["floatingip"]
    assert again == floating
    await send(http, "DELETE", path, status=204)
    await send(http, "GET", path, status=404)


async def test_every_answer_of_the_network_is_the_golden_one(house: House, http: ClientSession) -> None:
    made = (await house.launch(name="vm1"))["id"]
    await house.until(made, "ACTIVE")
    for name in ("networks", "subnets", "ports", "routers", "security-groups", "quotas/admin", "extensions", "agents"):
        compare(f"network-{name.partition('/')[0]}", await send(http, "GET", f"/{name}", status=200), house)
