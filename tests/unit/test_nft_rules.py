"""nftables' commands as text: golden files, and what a change holds of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.drivers.firewall import frames, nft_rules
from launcher.drivers.firewall.nft_tables import Tables
from launcher.explaining import Settings
from launcher.models import InstanceRef
from launcher.policy import Policy, SecurityGroup
from launcher.ports import ports_of
from tests.orders import make_lease, make_order
from tests.unit.test_rules import FENCED, MEMBERS, SSH_AND_PING, WEB, WITH_IPV6

GOLDEN = Path(__file__).parent.parent / "golden"
SETTINGS = Settings(metadata_port=8775)
BASE = nft_rules.base(SETTINGS)


def fresh() -> Tables:
    tables = Tables("launcher")
    tables.put_base(frames.BASE)
    tables.put_base(BASE)
    return tables


def put(tables: Tables, number: int, *groups: SecurityGroup, settings: Settings = SETTINGS) -> None:
    order = make_order(number)
    ports = ports_of(order, [make_lease(order, f"10.0.0.{number + 2}", WITH_IPV6)])
    nft_rules.put_instance(tables, order.tap, ports, Policy(groups=groups, members=MEMBERS), settings)


def filled(*numbers: int) -> Tables:
    tables = fresh()
    for number in numbers:
        put(tables, number, SSH_AND_PING)
    tables.take_commands()
    return tables


def apply_limited(tables: Tables) -> None:
    open_ = SETTINGS.model_copy(update={"allow_project_net_traffic": True})
    put(tables, 2, FENCED, WEB, settings=open_)


CHANGES: dict[str, Callable[[Tables], None]] = {
    "apply": lambda tables: put(tables, 1, SSH_AND_PING),
    "apply_limited": apply_limited,
    "network": lambda tables: nft_rules.put_network(tables, WITH_IPV6, SETTINGS),
}


@pytest.mark.parametrize("name", ["base", *CHANGES])
def test_transactions_are_as_agreed(name: str) -> None:
    tables = fresh() if name == "base" else filled()
    if name != "base":
        CHANGES[name](tables)
    assert tables.take_commands() == (GOLDEN / f"{name}.nft").read_text()


def test_instances_with_the_same_groups_share_their_chains() -> None:
    tables = filled(1)
    put(tables, 2, SSH_AND_PING)
    commands = tables.take_commands().splitlines()
    assert all(command.startswith("add element ") for command in commands)


def test_a_change_does_not_grow_with_the_instances() -> None:
    changes = []
    for tables in (filled(1), filled(*range(1, 25))):
        put(tables, 27, SSH_AND_PING, WEB)
        changes.append(tables.take_commands())
        nft_rules.remove_instance(tables, InstanceRef(instance_id=make_order(27).instance_id, number=27).tap)
        changes.append(tables.take_commands())
    assert changes[:2] == changes[2:]


def test_a_chain_goes_with_its_last_instance() -> None:
    tables = filled()
    before = dict(tables.chains)
    put(tables, 1, FENCED)
    assert {("inet", "in_br100_7"), ("inet", "out_any_7"), ("inet", "eg_7")} <= tables.chains.keys()
    nft_rules.remove_instance(tables, make_order(1).tap)
    assert tables.chains == before
    assert ("inet", "members4_9") not in tables.elements


def test_a_name_that_would_be_too_long_is_shortened() -> None:
    tables = filled()
    many = [SecurityGroup(id=1_000_000 + number, name="g") for number in range(40)]
    put(tables, 1, *many)
    assert all(len(name) < 128 for _, name in tables.chains)


def test_no_rule_looks_into_a_map_that_goes_with_it() -> None:
    """A packet under way in a chain that is written anew found nothing there, and was dropped."""
    tables = filled(1, 2)
    for chain, rules in tables.chains.items():
        assert not [rule for rule in rules if "map {" in rule], chain
