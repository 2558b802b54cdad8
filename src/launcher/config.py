"""The settings, as config.toml has them: strict, so an unknown or wrong one is an error that names it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from launcher.drivers.images.config_drive import Content, FileSystem
from launcher.drivers.images.store import Injection
from launcher.errors import BadRequest
from launcher.floating import FloatingPool
from launcher.models import Flavor, ImageFormat, Model, Name, Quotas, TaskState
from launcher.networks import SEGMENTS, BridgeName, DomainName, Network, NetworkMode, Overlay, ProjectRange


class RoleName(StrEnum):
    API = "api"
    CONTROLLER = "controller"
    SCHEDULER = "scheduler"
    COMPUTE = "compute"
    NETWORK = "network"


class HostConfig(Model):
    name: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$")
    region: str = Field(default="RegionOne", pattern=r"^[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$")
    availability_zone: str = "nova"
    roles: tuple[RoleName, ...] = tuple(RoleName)
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class ApiConfig(Model):
    listen: str = Field(default="127.0.0.1:8774", pattern=r"^[A-Za-z0-9._-]{1,253}:[0-9]{1,5}$")
    url: str = Field(default="", pattern=r"^(https?://[A-Za-z0-9._:-]+)?$")
    tls_certificate: str = ""
    tls_key: str = ""
    tls_authority: str = ""
    plain_http: bool = False
    connections: int = Field(default=1000, ge=1)
    rate_per_s: float = Field(default=0.0, ge=0)

    @field_validator("listen")
    @classmethod
    def _port_exists(cls, listen: str) -> str:
        if int(listen.rpartition(":")[2]) > 65535:
            raise ValueError("ports end at 65535")
        return listen

    @model_validator(mode="after")
    def _closed_to_listeners(self) -> ApiConfig:
        """Secrets cross the network: not in plain words, unless somebody who knows says so."""
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key go together")
        if not (self.tls_certificate or self.plain_http or _is_loopback(self.listen.rpartition(":")[0])):
            raise ValueError(
                f"{self.listen} is not loopback: set tls_certificate and tls_key, or plain_http = true if you know why"
            )
        return self

    def url_at(self, address: str, port: int) -> str:
        """What clients are told, of a server that listens there."""
        scheme = "https" if self.tls_certificate else "http"
        return self.url or f"{scheme}://{'127.0.0.1' if address == '0.0.0.0' else address}:{port}"  # noqa: S104


def _is_loopback(host: str) -> bool:
    try:
        return IPv4Address(host).is_loopback
    except ValueError:
        return host == "localhost"


class AccessConfig(Model):
    lockout_failures: int = Field(default=10, ge=0)
    lockout_s: float = Field(default=60.0, ge=0)
    token_s: float = Field(default=3600.0, gt=0)


class BusConfig(Model):
    url: str = Field(default="memory:", pattern=r"^(memory:|amqps?://.+)$")

    @field_validator("url")
    @classmethod
    def _names_a_broker(cls, url: str) -> str:
        """In words of our own: `urlsplit` would repeat a part of the password."""
        try:
            parts = urlsplit(url)
            known = url == "memory:" or (parts.hostname and parts.port != 0)
        except ValueError:
            known = False
        if not known:
            raise ValueError("there is no host, or no port that exists")
        return url


class VirtConfig(Model):
    driver: Literal["libvirt", "fake"] = "libvirt"
    uri: str = "auto"
    virt_type: Literal["auto", "kvm", "qemu"] = "auto"


class ImagesConfig(Model):
    library: str = ""
    disk_format: ImageFormat = ImageFormat.QCOW2
    inject: tuple[Injection, ...] = Field(
        default=(Injection.STORAGE_DAEMON, Injection.METADATA, Injection.CONFIG_DRIVE), min_length=1
    )
    inject_partition: int = Field(default=0, ge=0, le=128)
    config_drive: Content = Content.OPENSTACK
    config_drive_format: FileSystem = FileSystem.ISO9660
    cache_gb: int = Field(default=50, ge=1)
    largest_gb: int = Field(default=64, ge=1)
    fetch_from: tuple[IPv4Network | IPv6Network, ...] = ()
    known: str = ""
    listen: str = Field(default="", pattern=r"^([0-9.]{7,15}:[0-9]{1,5})?$")

    @field_validator("listen")
    @classmethod
    def _can_be_told(cls, listen: str) -> str:
        """Hosts are told this very address."""
        address, _, port = listen.rpartition(":")
        if listen and (IPv4Address(address).is_unspecified or int(port) > 65535):
            raise ValueError("other hosts need an address of this one, and ports end at 65535")
        return listen


class VolumesConfig(Model):
    driver: Literal["local", "lvm"] = "local"
    format: ImageFormat = ImageFormat.RAW
    path: str = ""
    group: str = Field(default="launcher", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,126}$")
    thin_pool: str = Field(default="", pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.+-]{0,126})?$")


class NetworkConfig(Model):
    mode: NetworkMode = NetworkMode.FLAT_DHCP
    name: Name = "default"
    bridge: BridgeName = "br100"
    cidr: IPv4Network = IPv4Network("10.0.0.0/24")
    cidr6: IPv6Network | Literal[""] = ""
    overlay: Overlay = Overlay.VLAN
    interface: str = Field(default="eth0", pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,14}$")
    segments: tuple[int, int] = (100, 199)
    project_prefix: int = Field(default=28, ge=9, le=30)
    vxlan_group: IPv4Address = IPv4Address("239.255.0.1")
    vxlan_peers: tuple[IPv4Address, ...] = ()
    dns: tuple[IPv4Address, ...] = ()
    domain: DomainName = "novalocal"
    lease_s: int = Field(default=3600, ge=120)
    nat: bool = True
    pools: tuple[FloatingPool, ...] = ()

    @model_validator(mode="after")
    def _roomy(self) -> NetworkConfig:
        if self.cidr.num_addresses < 4:
            raise ValueError("cidr has no room for a gateway and an instance")
        if self.cidr6 and self.cidr6.prefixlen != 64:
            raise ValueError("cidr6 is no /64, in which guests make their addresses")
        if self.mode is NetworkMode.VLAN:
            self._check_projects()
        self._check_pools()
        return self

    def _check_projects(self) -> None:
        (first, last), most = self.segments, 4094 if self.overlay is Overlay.VLAN else SEGMENTS[1]
        if not SEGMENTS[0] <= first <= last <= most:
            raise ValueError(f"segments are the first and the last of {SEGMENTS[0]} to {most}")
        if self.cidr.prefixlen > self.project_prefix:
            raise ValueError(f"no network with a prefix of {self.project_prefix} can be cut from {self.cidr}")

    def _check_pools(self) -> None:
        for number, pool in enumerate(self.pools):
            for name, cidr in ((self.name, self.cidr), *((other.name, other.cidr) for other in self.pools[:number])):
                if pool.cidr.overlaps(cidr):
                    raise ValueError(f"the pool {pool.name} ({pool.cidr}) overlaps {name} ({cidr})")
        if len({pool.name for pool in self.pools}) < len(self.pools):
            raise ValueError("two pools have one name")

    def projects(self) -> ProjectRange | None:
        """What each project's network is made of in the mode vlan."""
        if self.mode is not NetworkMode.VLAN:
            return None
        return ProjectRange(self.cidr, self.project_prefix, range(self.segments[0], self.segments[1] + 1))

    def network(self) -> Network:
        """The gateway is the first address, as Nova had it."""
        return Network(
            name=self.name,
            mode=self.mode,
            bridge=self.bridge,
            cidr=self.cidr,
            cidr6=self.cidr6 or None,
            gateway=self.cidr.network_address + 1,
            dns=self.dns,
            domain=self.domain,
        )


class MetadataConfig(Model):
    port: int = Field(default=8775, ge=0, le=65535)
    token: Literal["optional", "required"] = "optional"  # noqa: S105 - a choice
    tags: bool = True


class FirewallConfig(Model):
    driver: Literal["auto", "nftables", "iptables", "nwfilter"] = "auto"
    allow_host_traffic: bool = True
    allow_project_net_traffic: bool = False


class SchedulerConfig(Model):
    driver: Literal["chance", "zone", "simple"] = "chance"
    max_vcpus: int = Field(default=64, ge=1)
    host_timeout_s: float = Field(default=60.0, gt=0)


class ComputeConfig(Model):
    heartbeat_s: float = Field(default=10.0, gt=0)


class ControllerConfig(Model):
    build_timeout_s: float = Field(default=600.0, gt=0)
    max_attempts: int = Field(default=3, ge=1)
    shutdown_timeout_s: float = Field(default=60.0, ge=0, le=3600)
    missing: Literal["restart", "stop"] = "restart"
    tick_s: float = Field(default=1.0, gt=0)
    sweep_s: float = Field(default=60.0, ge=0)


class TimeoutsConfig(Model):
    scheduling_s: float = Field(default=300.0, gt=0)
    networking_s: float = Field(default=300.0, gt=0)
    bridging_s: float = Field(default=300.0, gt=0)
    imaging_s: float = Field(default=600.0, gt=0)
    injecting_s: float = Field(default=300.0, gt=0)
    filtering_s: float = Field(default=300.0, gt=0)
    spawning_s: float = Field(default=300.0, gt=0)
    rescheduling_s: float = Field(default=300.0, gt=0)

    def of_states(self) -> dict[TaskState, float]:
        return {TaskState(name.removesuffix("_s")): seconds for name, seconds in self}


class FakeConfig(Model):
    """How the fake drivers behave; used with `[virt] driver = "fake"` only."""

    vcpus: int = Field(default=64, ge=1)
    memory_mb: int = Field(default=262144, ge=1)
    step_delay_s: float = Field(default=0.0, ge=0)


FLAVORS = (
    Flavor(name="m1.tiny", vcpus=1, memory_mb=512, root_gb=0),
    Flavor(name="m1.small", vcpus=1, memory_mb=2048, root_gb=20),
    Flavor(name="m1.medium", vcpus=2, memory_mb=4096, root_gb=40),
    Flavor(name="m1.large", vcpus=4, memory_mb=8192, root_gb=80),
    Flavor(name="m1.xlarge", vcpus=8, memory_mb=16384, root_gb=160),
    Flavor(name="t2.nano", vcpus=1, memory_mb=512, root_gb=0),
    Flavor(name="t2.micro", vcpus=1, memory_mb=1024, root_gb=0),
    Flavor(name="t2.small", vcpus=1, memory_mb=2048, root_gb=0),
    Flavor(name="t2.medium", vcpus=2, memory_mb=4096, root_gb=0),
    Flavor(name="t2.large", vcpus=2, memory_mb=8192, root_gb=0),
    Flavor(name="t3.nano", vcpus=2, memory_mb=512, root_gb=0),
    Flavor(name="t3.micro", vcpus=2, memory_mb=1024, root_gb=0),
    Flavor(name="t3.small", vcpus=2, memory_mb=2048, root_gb=0),
    Flavor(name="t3.medium", vcpus=2, memory_mb=4096, root_gb=0),
    Flavor(name="t3.large", vcpus=2, memory_mb=8192, root_gb=0),
)


class Config(Model):
    """config.toml; every section and key may be left out."""

    host: HostConfig = HostConfig()
    api: ApiConfig = ApiConfig()
    access: AccessConfig = AccessConfig()
    bus: BusConfig = BusConfig()
    virt: VirtConfig = VirtConfig()
    images: ImagesConfig = ImagesConfig()
    volumes: VolumesConfig = VolumesConfig()
    network: NetworkConfig = NetworkConfig()
    metadata: MetadataConfig = MetadataConfig()
    firewall: FirewallConfig = FirewallConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    compute: ComputeConfig = ComputeConfig()
    controller: ControllerConfig = ControllerConfig()
    timeouts: TimeoutsConfig = TimeoutsConfig()
    quotas: Quotas = Quotas()
    fake: FakeConfig = FakeConfig()
    flavors: tuple[Flavor, ...] = FLAVORS


def load(path: Path | None, settings: Sequence[str] = ()) -> Config:
    """The file at `path` (None: the defaults), changed by `section.key=value` settings.

    Raises BadRequest that names the key and what was expected.
    """
    try:
        raw = tomllib.loads(path.read_text()) if path else {}
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror}", hint="see --config") from None
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{path}: {error}") from None
    for setting in settings:
        _set(raw, setting)
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise BadRequest("; ".join(map(_words, error.errors(include_url=False)))) from None


def _set(raw: dict[str, Any], setting: str) -> None:
    """`section.key=value`; the value is TOML, or the text itself where it is none."""
    name, equals, text = setting.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise BadRequest(f"--set {setting!r}: expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text}") if text.isprintable() else {}
    except (ValueError, RecursionError):
        value = {}
    table = raw.setdefault(section, {})
    if not isinstance(table, dict):
        raise BadRequest(f"--set {setting!r}: {section} is no section")
    table[key] = value.get("value", text)


def _words(problem: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {where}"
    found = re.sub(r"//.*@", "//…@", repr(problem["input"]))[:200]  # a URL's password is not for the log
    return f"{where} = {found}: {problem['msg']}"
