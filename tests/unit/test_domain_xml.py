"""The domain's XML, branch by branch, and that nothing a user wrote becomes markup."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.drivers.virt import domain_xml
from launcher.drivers.virt.driver import Disks
from launcher.errors import InvalidDomainConfig
from launcher.models import Flavor, Image, ImageFormat, ImageKind, LaunchOrder, Machine, Nic

GOLDEN = Path(__file__).parent.parent / "golden"
INSTANCES = Path("/var/lib/launcher/instances/instance-0000002a")
EVIL = "'\"/><disk type='file'><source file='/etc/shadow'/></disk><!-- &lt; ]]> %s {0} $(id) \\ ,if=none\n\t"


def an_order(*, kernel_args: str = "", **changes: Any) -> LaunchOrder:
    image = Image(
        id="ami-1",
        name="tiny",
        kind=ImageKind.MACHINE,
        format=ImageFormat.RAW,
        size=1,
        virtual_size=1,
        sha256="0" * 64,
        path=Path("/images/tiny"),
        kernel_args=kernel_args,
    )
    order = LaunchOrder(
        instance_id="7d1f0d50-5bf6-4c3e-8b4e-0c0a3a3f5a11",
        number=42,
        generation=3,
        project_id="demo",
        hostname="web-1",
        nics=(Nic(mac="02:16:3e:17:35:39"),),
        flavor=Flavor(name="m1.tiny", vcpus=1, memory_mb=128, root_gb=0),
        image=image,
    )
    return order.model_copy(update=changes)


def the_disks(**changes: Any) -> Disks:
    disks = Disks(
        root=INSTANCES / "disk",
        root_format=ImageFormat.QCOW2,
        kernel=INSTANCES / "kernel",
        ramdisk=INSTANCES / "ramdisk",
        console_log=INSTANCES / "console.log",
    )
    return disks.model_copy(update=changes)


BRANCHES = {
    "kernel_ramdisk": (an_order(), the_disks(), "qemu"),
    "kernel_only": (an_order(kernel_args="init=/bin/sh"), the_disks(ramdisk=None), "qemu"),
    "whole_disk": (an_order(), the_disks(kernel=None, ramdisk=None), "qemu"),
    "config_drive": (an_order(), the_disks(config_drive=INSTANCES / "config-drive"), "qemu"),
    "disks": (
        an_order(),
        the_disks(ephemeral=INSTANCES / "ephemeral", swap=INSTANCES / "swap", config_drive=INSTANCES / "config-drive"),
        "qemu",
    ),
    "rescued": (an_order(), the_disks(rescued=INSTANCES / "disk", root=INSTANCES / "rescue" / "disk"), "qemu"),
    "uefi_q35": (
        an_order(image=an_order().image.model_copy(update={"firmware": "uefi", "machine": Machine.Q35})),
        the_disks(kernel=None, ramdisk=None, firmware_state=INSTANCES / "firmware-state"),
        "qemu",
    ),
    "raw_root": (an_order(), the_disks(root_format=ImageFormat.RAW), "qemu"),
    "three_nics": (
        an_order(nics=tuple(Nic(mac=f"02:16:3e:17:35:3{last}") for last in "9ab")),
        the_disks(),
        "qemu",
    ),
    "kvm": (an_order(flavor=Flavor(name="m1.small", vcpus=2, memory_mb=2048, root_gb=20)), the_disks(), "kvm"),
}


@pytest.mark.parametrize("branch", BRANCHES)
def test_each_branch_gives_the_golden_xml(branch: str) -> None:
    order, disks, virt_type = BRANCHES[branch]
    golden = (GOLDEN / f"domain_{branch}.xml").read_text()
    assert domain_xml.build(order, disks, virt_type=virt_type) == golden


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.glob("domain_*.xml")} == {f"domain_{branch}.xml" for branch in BRANCHES}


def test_the_cache_of_translated_code_grows_with_the_guest() -> None:
    large = an_order(flavor=Flavor(name="m1.medium", vcpus=1, memory_mb=4096, root_gb=0))
    tree = ElementTree.fromstring(domain_xml.build(large, the_disks(), virt_type="qemu"))
    assert tree.findtext("features/tcg/tb-cache") == "1024"


def test_text_from_users_stays_text() -> None:
    """Each field is given markup, past the models where they would refuse it; the tree keeps its shape."""
    plain = domain_xml.build(an_order(kernel_args="x"), the_disks(), virt_type="qemu")
    order = an_order(
        kernel_args=EVIL, nics=(Nic.model_construct(mac=EVIL),), hostname=EVIL, public_key=EVIL, project_id=EVIL
    )
    disks = the_disks(root=Path(EVIL), kernel=Path(EVIL), ramdisk=Path(EVIL), console_log=Path(EVIL))

    xml = domain_xml.build(order, disks, virt_type="qemu")

    tree = ElementTree.fromstring(xml)
    assert shape(tree) == shape(ElementTree.fromstring(plain))
    assert tree.findtext("os/cmdline") == f"{domain_xml.COMMAND_LINE} {EVIL}".strip()
    assert tree.findtext("os/kernel") == str(Path(EVIL))
    assert attribute(tree, "devices/disk/source", "file") == str(Path(EVIL))
    assert attribute(tree, "devices/serial/log", "file") == str(Path(EVIL))
    assert attribute(tree, "devices/interface/mac", "address") == EVIL


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")))
def test_any_kernel_arguments_come_out_as_they_went_in(kernel_args: str) -> None:
    tree = ElementTree.fromstring(domain_xml.build(an_order(kernel_args=kernel_args), the_disks(), virt_type="qemu"))
    assert tree.findtext("os/cmdline") == f"{domain_xml.COMMAND_LINE} {kernel_args}".strip()
    assert len(tree.findall(".//cmdline")) == 1


@pytest.mark.parametrize("odd", ["\0", "\x1b[2J", "\x7f\x08", "\ud800", "\uffff"])
def test_a_character_that_xml_cannot_carry_is_refused_with_its_name(odd: str) -> None:
    with pytest.raises(InvalidDomainConfig, match="instance-0000002a: the character"):
        domain_xml.build(an_order(kernel_args=f"quiet {odd}"), the_disks(), virt_type="qemu")


def test_what_users_call_things_is_not_in_the_xml_at_all() -> None:
    order = an_order(hostname="very-private-name", public_key="ssh-ed25519 AAAA me@home", project_id="secret-project")
    xml = domain_xml.build(order, the_disks(), virt_type="qemu")
    assert not [word for word in ("very-private-name", "AAAA", "secret-project") if word in xml]


@pytest.mark.parametrize("launcher", ["", "5eed"])
def test_the_mark_is_read_back(launcher: str) -> None:
    xml = domain_xml.build(an_order(), the_disks(), virt_type="qemu", launcher=launcher)
    tree = ElementTree.fromstring(xml)
    element = tree.find("metadata")
    assert element is not None
    mark = domain_xml.read_mark(ElementTree.tostring(element[0], encoding="unicode"))
    assert mark == domain_xml.Mark("7d1f0d50-5bf6-4c3e-8b4e-0c0a3a3f5a11", 42, 3, launcher)


@pytest.mark.parametrize("made_up", ["<instance/>", "<instance id='x' number='one' generation='1'/>"])
def test_a_made_up_mark_is_not_ours(made_up: str) -> None:
    assert domain_xml.read_mark(made_up) is None


def shape(tree: ElementTree.Element) -> list[tuple[str, list[str]]]:
    return [(element.tag, sorted(element.attrib)) for element in tree.iter()]


def attribute(tree: ElementTree.Element, path: str, name: str) -> str | None:
    element = tree.find(path)
    return None if element is None else element.get(name)
