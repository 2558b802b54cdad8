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


def test_settings_on_the_command_line_are_toml_or_plain_words() -> None:
    config = load(None, ["quotas.instances=3", "virt.driver=fake", 'host.roles=["api"]', "network.dns=['1.1.1.1']"])
    assert (config.quotas.instances, config.virt.driver, len(config.host.roles)) == (3, "fake", 1)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"nowhere\.toml: No such file"):
        load(tmp_path / "nowhere.toml")
    (tmp_path / "broken.toml").write_text("[virt\n")
    with pytest.raises(BadRequest, match=r"broken\.toml"):
        load(tmp_path / "broken.toml")
