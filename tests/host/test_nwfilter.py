"""What is nwfilter's own: libvirt does it, so it can be missing, away, or spoilt by somebody."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator
from xml.etree import ElementTree

import libvirt
import pytest

from launcher.drivers.firewall.choice import choose_firewall
from launcher.drivers.firewall.nwfilter import NwfilterFirewall
from launcher.errors import FirewallFailed, HypervisorUnavailable
from launcher.explaining import Settings
from tests.contract.test_firewall_driver import SSH
from tests.host import nwfilters
from tests.host.libvirtd import Daemon
from tests.host.nwfilters import Plugging, plugging
from tests.orders import make_launch, make_order
from tests.serving import Server

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]
FOREIGN = """
<filterbinding>
  <owner><name>foreign</name><uuid>00000000-0000-4000-8000-00000000ffff</uuid></owner>
  <portdev name='vnet0'/><mac address='02:00:00:00:00:01'/><filterref filter='foreign'/>
</filterbinding>
"""


@pytest.fixture
def private(daemon: Daemon) -> Daemon:
    """Another one than the tests share."""
    return daemon


@pytest.fixture
async def firewall(sandboxed: None) -> AsyncIterator[Plugging]:
    nwfilters.daemon().forget()
    made = plugging(Settings())
    await made.start()
    yield made
    await made.stop()


def bound(uri: str) -> dict[str, set[str]]:
    """The devices that there are bindings for, and the addresses in each."""
    with contextlib.closing(libvirt.open(uri)) as handle:
        found = {}
        for binding in handle.listAllNWFilterBindings():
            parameters = ElementTree.fromstring(binding.XMLDesc()).findall(".//parameter[@name='IP']")
            found[binding.portDev()] = {each.attrib["value"] for each in parameters}
        return found


def ebtables(*words: str) -> None:
    subprocess.run(["ebtables", "-t", "nat", *words], check=True)


async def test_what_somebody_spoilt_is_seen_and_put_back(firewall: Plugging) -> None:
    """Rules flushed, the jump to them taken out, the binding deleted; what is whole is not made anew."""
    for number in (1, 2):
        await firewall.apply(*make_launch(number, SSH))

    def forget_binding() -> None:
        with contextlib.closing(libvirt.open(nwfilters.daemon().uri)) as handle:
            handle.nwfilterBindingLookupByPortDev("tap00000001").delete()

    def flush() -> None:
        ebtables("-F", "libvirt-O-tap00000001")

    def take_out() -> None:
        ebtables("-D", "PREROUTING", "-i", "tap00000001", "-j", "libvirt-I-tap00000001")

    for spoil in (forget_binding, flush, take_out):
        assert await firewall.list_instances() == {1: True, 2: True}
        spoil()
        assert await firewall.list_instances() == {1: False, 2: True}
        await firewall.apply(*make_launch(1, SSH))
    assert await firewall.list_instances() == {1: True, 2: True}
    subprocess.run(["nft", "flush", "table", "inet", "launcher-nwfilter"], check=True)
    assert await firewall.list_instances() == {1: False, 2: False}


async def test_the_binding_follows_the_address_and_nobody_elses_is_touched(firewall: Plugging) -> None:
    subprocess.run(["ip", "tuntap", "add", "vnet0", "mode", "tap"], check=True)
    with contextlib.closing(libvirt.open(nwfilters.daemon().uri)) as handle:
        handle.nwfilterDefineXML("<filter name='foreign' chain='root'/>")
        handle.nwfilterBindingCreateXML(FOREIGN)
    for address in ("10.0.0.3", "10.0.0.4"):
        await firewall.apply(*make_launch(1, SSH, address=address))
        assert bound(nwfilters.daemon().uri) == {"vnet0": set(), "tap00000001": {address}}
    assert await firewall.list_instances() == {1: True}
    await firewall.remove(make_order(1))
    assert bound(nwfilters.daemon().uri) == {"vnet0": set()}


async def test_while_the_daemon_is_away_nothing_is_applied(sandboxed: None) -> None:
    """And it is no other state than before: the next one finds it."""
    nwfilters.daemon().forget()
    firewall = Plugging(Settings(), nwfilters.daemon().uri, patience=0.2)
    await firewall.start()
    await firewall.apply(*make_launch(1, SSH))
    nwfilters.daemon().kill()
    for _ in range(2):  # the first call notices it
        with pytest.raises(HypervisorUnavailable):
            await firewall.apply(*make_launch(2, SSH))
    nwfilters.daemon().start()
    await firewall.stop()
    again = plugging(Settings())
    assert await again.list_instances() == {1: True}
    await again.apply(*make_launch(2, SSH))
    assert await again.list_instances() == {1: True, 2: True}
    await again.stop()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("qemu:///embed?root=/nowhere", "embed.* has no nwfilter"),
        ("qemu+unix:///system?socket=/nowhere/at-all", "/nowhere/at-all"),
    ],
)
async def test_without_nwfilter_it_is_refused(sandboxed: None, uri: str, words: str) -> None:
    with pytest.raises(FirewallFailed, match=words) as refusal:
        await choose_firewall("nwfilter", Settings(), uri)
    assert 'driver = "nftables"' in refusal.value.hint


async def test_instances_filtered_by_nwfilter_are_not_left_to_another(firewall: Plugging) -> None:
    await firewall.apply(*make_launch(1, SSH))
    with pytest.raises(FirewallFailed, match="filtered by nwfilter, not by nftables"):
        await choose_firewall("nftables", Settings(), nwfilters.daemon().uri)
    chosen = await choose_firewall("auto", Settings(), nwfilters.daemon().uri)
    assert isinstance(chosen, NwfilterFirewall)
    await chosen.stop()


async def test_a_machine_is_bound_before_it_runs_and_leaves_nothing(server: Server, private: Daemon) -> None:
    """It gets its address and answers; its libvirtd is killed and started again meanwhile."""
    server.settings = [f"virt.uri={private.uri}", "virt.virt_type=qemu", "firewall.driver=nwfilter"]
    async with server.running():
        await server.cli("run", "ami-tiny", "--name", "vm", "--wait=active,ssh")
        found = await server.get("/instances/vm")
        wanted = {f"tap{found['number']:08x}": set(found["addresses"])}
        assert bound(private.uri) == wanted
        await private.kill()
        await private.start()
        assert bound(private.uri) == wanted
        await server.cli("delete", "vm", "--wait")
        assert bound(private.uri) == {}
