"""The settings: documented, strict, and the sample says what the defaults are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from launcher.config import Config, load
from launcher.errors import BadRequest

SAMPLE = Path(__file__).parents[2] / "config.toml"


def test_the_sample_holds_every_setting_with_its_default() -> None:
    assert load(SAMPLE) == Config()
    text = SAMPLE.read_text()
    for section in (name for name in Config.model_fields if name != "flavors"):
        chapter = text.split(f"[{section}]\n")[1].split("\n[")[0]
        keys = re.findall(r"^(\w+) =", chapter, re.MULTILINE)
        assert keys == list(type(getattr(Config(), section)).model_fields), section


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("virt.drivr=1", "unknown setting virt.drivr"),
        ("vrit.driver=fake", "unknown setting vrit"),
        ("quotas.instances=-1", "quotas.instances = -1"),
        ("api.listen=here", "api.listen = 'here'"),
        ("network.cidr=10.0.0.0/31", "no room"),
        ("network.cidr6=fd00::/48", "no /64"),
        ("network.interface=e 0", "network.interface = 'e 0'"),
        ("network.vxlan_peers=['nowhere']", "network.vxlan_peers.0 = 'nowhere'"),
        (
            "network.pools=[{name='a',cidr='10.0.0.128/28',interface='eth0'}]",
            "overlaps default",
        ),
        ("network.pools=[{name='a',cidr='192.0.2.0/28',interface='eth 0'}]", "network.pools.0.interface"),
        ("virt", "expected section.key=value"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, words: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(words)):
        load(None, [setting])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["network.segments=[100, 4095]"], "2 to 4094"),
        (["network.segments=[200, 100]"], "2 to 4094"),
        (["network.segments=[1, 100]", "network.overlay=vxlan"], "2 to 16777215"),
        (["network.cidr=10.0.0.0/29"], "no network with a prefix of 28"),
    ],
)
def test_a_range_of_projects_that_cannot_be_is_named(settings: list[str], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        load(None, ["network.mode=vlan", *settings])


def test_a_project_gets_what_the_settings_say() -> None:
    settings = load(None, ["network.mode=vlan", "network.cidr=10.0.0.0/16", "network.segments=[7, 9]"]).network
    projects = settings.projects()
    assert projects is not None
    assert (str(projects.cidr), projects.prefix, list(projects.segments)) == ("10.0.0.0/16", 28, [7, 8, 9])
    assert load(None).network.projects() is None


def test_settings_on_the_command_line_are_toml_or_plain_words() -> None:
    config = load(None, ["quotas.instances=3", "virt.driver=fake", 'host.roles=["api"]', "network.dns=['1.1.1.1']"])
    assert (config.quotas.instances, config.virt.driver, len(config.host.roles)) == (3, "fake", 1)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"nowhere\.toml: No such file"):
        load(tmp_path / "nowhere.toml")
    (tmp_path / "broken.toml").write_text("[virt\n")
    with pytest.raises(BadRequest, match=r"broken\.toml"):
        load(tmp_path / "broken.toml")
