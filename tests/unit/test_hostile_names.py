"""What users and guests write never becomes more than it is in a file, a command, a table or on a terminal."""

from __future__ import annotations

import base64
import contextlib
import re
from ipaddress import IPv4Address
from pathlib import Path
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from launcher.cli import output
from launcher.cli.client import Failure
from launcher.cli.login import key_path, ssh_command
from launcher.drivers.firewall import chains, rules
from launcher.drivers.images.inject.content import with_key
from launcher.drivers.network.dnsmasq import host_lines
from launcher.errors import BadRequest, NetworkFailed, NotFound
from launcher.guestdata import ec2, openstack
from launcher.guestdata.guest import Guest
from launcher.guestdata.tree import Leaf, answer, find, split
from launcher.messages.network import AllocateFixedIp
from launcher.messages.security_groups import RuleSpec
from launcher.models import GuestMetadata, Instance, LaunchOrder, Name
from launcher.policy import Protocol, SecurityGroup
from launcher.services.controller import admission
from launcher.services.controller.security_groups import checked
from tests.malformed import NASTY
from tests.orders import instance_id, make_instance, make_lease, make_order

ANY_TEXT = st.text() | st.sampled_from(NASTY)
NAME: TypeAdapter[str] = TypeAdapter(Name)
NAMES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9 ._:@-]{0,254}\Z")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@given(ANY_TEXT)
def test_a_name_that_is_taken_fits_everywhere(name: str) -> None:
    with contextlib.suppress(ValidationError):
        found = NAME.validate_python(name)
        assert found == name
        assert re.fullmatch(r"[A-Za-z0-9 ._:@-]{1,255}", found)
        assert found[0] not in "-. "


@given(NAMES | ANY_TEXT, st.integers(1, 2**32 - 1))
def test_any_display_name_makes_a_hostname(name: str, number: int) -> None:
    """RFC 1123; it reaches dnsmasq's hosts file and the guest."""
    hostname = admission._hostname(name, number)
    assert HOSTNAME.fullmatch(hostname)
    lease = make_lease(make_order(1, hostname=hostname))
    assert host_lines([lease]) == f"{lease.mac},{hostname}.novalocal,{lease.address}\n"


@given(st.none() | NAMES, st.integers(1, 2**32 - 1), st.integers(1, 1000))
def test_any_instances_of_one_request_have_different_names(name: str | None, number: int, count: int) -> None:
    made = {admission._display_name(name, number + index, index, count) for index in range(count)}
    assert len(made) == count
    assert all(made)


@given(ANY_TEXT)
def test_no_hostname_on_the_bus_breaks_the_hosts_file(name: str) -> None:
    """One that did would keep every other guest of the network without an address."""
    fields = {"instance_id": instance_id(1), "project_id": "p", "mac": "02:16:3e:00:00:01", "hostname": name}
    with contextlib.suppress(ValidationError):
        taken = AllocateFixedIp.model_validate(fields).hostname
        assert LaunchOrder.model_validate(make_order(1).model_dump() | {"hostname": name}).hostname == taken
        assert host_lines([make_lease(make_order(1, hostname=taken))]).count("\n") == 1


@given(ANY_TEXT)
def test_the_hosts_file_has_a_line_a_lease_or_is_not_written(name: str) -> None:
    lease = make_lease(make_order(1)).model_copy(update={"hostname": name})
    with contextlib.suppress(NetworkFailed):
        assert re.fullmatch(r"[0-9a-f:]{17},[A-Za-z0-9.-]+,[0-9.]+\n", host_lines([lease]))


PORTS = st.none() | st.integers(0, 65535) | st.sampled_from([0, 255, 256])
CIDRS = st.builds(
    lambda address, bits: f"{IPv4Address(address & ~((1 << (32 - bits)) - 1))}/{bits}",
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)


@given(st.sampled_from(Protocol), PORTS, PORTS, CIDRS)
def test_a_rule_that_is_taken_is_one_line_of_the_table(
    protocol: Protocol, first: int | None, last: int | None, cidr: str
) -> None:
    spec = RuleSpec.model_validate({"protocol": protocol, "from_port": first, "to_port": last, "cidr": cidr})
    with contextlib.suppress(BadRequest):
        rule = checked(spec)
        (line,) = rules.group_rules(SecurityGroup(id=7, name="g", rules=(rule,)))
        assert re.fullmatch(r"[a-z0-9./: -]+ -j ACCEPT|-j ACCEPT", line)
        assert chains.play({}, chains.transaction("filter", [f"-A x {line}"])) == {"x": [line]}


@given(ANY_TEXT | st.sampled_from(["0.0.0.0/33", "0.0.0.0/-1", "1.2.3.4 -j ACCEPT", "1.2.3.4\n-F", "٠.0.0.0/8"]))
def test_no_other_text_is_a_range_of_addresses(cidr: str) -> None:
    described = RuleSpec.model_json_schema()["properties"]["cidr"]["anyOf"][0]["pattern"]
    assume(not re.fullmatch(described, cidr, re.ASCII))
    with pytest.raises(ValidationError):
        RuleSpec.model_validate({"protocol": "tcp", "cidr": cidr})


def test_bits_beyond_the_prefix_are_cleared_as_ec2_does() -> None:
    assert str(RuleSpec.model_validate({"protocol": "tcp", "cidr": "10.1.2.3/8"}).cidr) == "10.0.0.0/8"


# --- what a guest is given, and what it says -------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_user_data_arrives_as_it_was_sent(data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    admission._check_encoded(encoded, "user_data", admission.USER_DATA_LIMIT)
    guest = a_guest(make_instance(), user_data=encoded)
    assert find(ec2.root(guest, tags=True), ["latest", "user-data"]) == Leaf(data, "application/octet-stream")
    told = find(openstack.root(guest, rng=Random(1)), ["latest", "user_data"])
    assert told == Leaf(data, "application/octet-stream")


@given(ANY_TEXT)
def test_what_is_no_base64_is_refused(text: str) -> None:
    try:
        admission._check_encoded(text, "user_data", admission.USER_DATA_LIMIT)
    except BadRequest as error:
        assert error.field == "user_data"  # noqa: PT017 - the other outcome is fine
    else:
        assert base64.b64encode(base64.b64decode(text)).decode() == text


@given(
    st.lists(ANY_TEXT | st.sampled_from(["latest", "meta-data", "public-keys", "0", "", ".."])).map("/".join), ANY_TEXT
)
def test_any_path_of_the_metadata_service_is_there_or_not_found(path: str, words: str) -> None:
    instance = make_instance(key_name=words, security_groups=(words, words), metadata={words: words})
    guest = a_guest(instance, user_data=None, words=words)
    for root in (ec2.root(guest, tags=True), openstack.root(guest, rng=Random(1))):
        with contextlib.suppress(NotFound):
            assert isinstance(answer(find(root, split(path))), Leaf)


def a_guest(instance: Instance, *, user_data: str | None, words: str = "x") -> Guest:
    told = GuestMetadata(
        instance=instance,
        region=words,
        availability_zone=words,
        public_key=words,
        kernel_id=None,
        ramdisk_id=None,
        user_data=user_data,
    )
    return Guest(told, (make_lease(make_order(1)),))


@given(st.text(st.characters()))
def test_nothing_a_guest_says_moves_the_cursor(said: str) -> None:
    shown = output.harmless(said)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown.replace("\r", ""))
    assert output.harmless(shown) == shown


@given(ANY_TEXT)
def test_a_key_of_any_name_stays_in_its_directory_and_one_argument(name: str) -> None:
    with contextlib.suppress(Failure):
        path = key_path(name)
        assert path.parent.name == "keys"
        assert path.resolve().parent == path.parent.resolve()


@given(NAMES)
def test_the_command_of_ssh_has_the_guest_for_its_destination(name: str) -> None:
    instance = {"id": instance_id(1), "key_name": None, "name": name, "status": "ACTIVE"}
    words = ssh_command(instance, None, "root", ["--", name])
    assert words[0] == "ssh"
    assert words[words.index(instance_id(1)) + 1 :] == ["--", name]


@given(st.binary(max_size=100), st.text(max_size=40))
def test_a_key_is_one_more_line_of_the_guests_keys(before: bytes, comment: str) -> None:
    key = f"ssh-ed25519 {' '.join(comment.split())}".strip()
    wanted = with_key(before, key)
    assert wanted.splitlines() in (before.splitlines(), [*before.splitlines(), key.encode()])
    assert key.encode() in wanted.splitlines()
    assert with_key(wanted, key) == wanted
