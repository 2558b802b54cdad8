"""One dnsmasq a bridge: its command line, its files, what its log tells, and keeping it alive.

It serves exactly the leases it was told (`static`), under names of its own domain, and forwards other names
only to the DNS servers that are configured. It is a daemon, so that guests keep their addresses while the
launcher is restarted; the next launcher finds it by its pid file and verifies it by its command line.
"""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from launcher.drivers import process
from launcher.drivers.network.namespaces import Namespaces
from launcher.errors import NetworkFailed, ProgramFailed
from launcher.models import DhcpEvidence, MacAddress
from launcher.networks import FixedIp, Network

LOG_LIMIT = 4 * 1024 * 1024
LOG_TAIL = 512 * 1024
"""Bytes of the log: cut at the one, searched in the other (a guest's boot writes about 3 KiB)."""

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LOG_LINE = re.compile(
    rf"(?P<month>{'|'.join(_MONTHS)}) +"
    r"(?P<day>\d\d?) (?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d) dnsmasq-dhcp\[\d+\]: (?:\d+ )?"
    r"(?P<words>(?P<kind>DHCP[A-Z]+)\(\S+\) (?:[\d.]+ )?(?P<mac>[0-9a-f:]{17})(?: .*)?)"
)
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_LEASE = re.compile(rf"[0-9]+ ([0-9a-f]{{2}}(?::[0-9a-f]{{2}}){{5}}) ({_OCTET}(?:\.{_OCTET}){{3}}) \S+ \S+")
_REQUESTS, _ANSWERS = {"DHCPDISCOVER", "DHCPREQUEST"}, {"DHCPOFFER", "DHCPACK"}


@dataclass(frozen=True)
class Files:
    """What dnsmasq reads and writes, in a directory of its network's own."""

    directory: Path

    @property
    def hosts(self) -> Path:
        return self.directory / "hosts"

    @property
    def names(self) -> Path:
        return self.directory / "names"

    @property
    def leases(self) -> Path:
        return self.directory / "leases"

    @property
    def pid(self) -> Path:
        return self.directory / "pid"

    @property
    def log(self) -> Path:
        return self.directory / "log"


def command_line(network: Network, files: Files, *, lease_seconds: int, user: str, mtu: int | None = None) -> list[str]:
    """All of dnsmasq's configuration; the host's own files (dnsmasq.conf, hosts, resolv.conf) are not read."""
    cidr = network.cidr
    return [
        "dnsmasq",
        "--conf-file=",
        f"--user={user}",
        f"--pid-file={files.pid}",
        f"--log-facility={files.log}",
        "--log-dhcp",
        "--bind-interfaces",
        "--except-interface=lo",
        f"--interface={network.bridge}",
        f"--listen-address={network.gateway}",
        f"--dhcp-range={cidr.network_address},static,{cidr.netmask},{lease_seconds}s",
        f"--dhcp-lease-max={cidr.num_addresses}",
        "--dhcp-authoritative",
        f"--dhcp-hostsfile={files.hosts}",
        f"--dhcp-leasefile={files.leases}",
        f"--dhcp-option=option:router,{network.gateway}",
        *([f"--dhcp-option=option:mtu,{mtu}"] if mtu else []),
        *(["--enable-ra", f"--dhcp-range={network.cidr6.network_address},ra-only,64"] if network.cidr6 else []),
        f"--domain={network.domain}",
        f"--local=/{network.domain}/",
        "--no-hosts",
        f"--addn-hosts={files.names}",
        "--no-resolv",
        "--strict-order",
        *(f"--server={server}" for server in network.dns),
    ]


def host_lines(leases: Sequence[FixedIp]) -> str:
    """The hosts file: `mac,name,address` a lease. Raises NetworkFailed for a name that could smuggle in more.

    Names carry the domain: dnsmasq would take a bare `ignore`, `infinite` or `45` for an instruction.
    """
    return "".join(f"{lease.mac},{_full_name(lease)},{lease.address}\n" for lease in leases)


def name_lines(leases: Sequence[FixedIp]) -> str:
    """The names that it answers for, from the lease on and not only when the guest has asked for its address."""
    return "".join(
        f"{address} {_full_name(lease)}\n"
        for lease in leases
        for address in (lease.address, lease.address6)
        if address is not None
    )


def _full_name(lease: FixedIp) -> str:
    if not _HOSTNAME.fullmatch(lease.hostname):
        raise NetworkFailed(
            f"{lease.address}: {lease.hostname!r} is no host name, so the DHCP server was not told of any change",
            hint="letters, digits, dots and hyphens, at most 63",
        )
    return f"{lease.hostname}.{lease.network.domain}"


def read_evidence(log: str, lease: FixedIp, *, written_s: float) -> DhcpEvidence:
    """The last request of the lease's NIC in dnsmasq's log and the last answer to it.

    `written_s` is when the log was last written, seconds since the epoch: its lines bear no year. A guest can put
    words of its own into the log, but never at the place where a line says what happened.
    """
    requested = answered = None
    words = ""
    for line in log.split("\n"):
        seen = _LOG_LINE.fullmatch(line) if lease.mac in line else None
        if seen is None or seen["mac"] != lease.mac:
            continue
        words, at_ms = seen["words"], _milliseconds(seen, written_s)
        requested = at_ms if seen["kind"] in _REQUESTS else requested
        answered = at_ms if seen["kind"] in _ANSWERS else answered
    return DhcpEvidence(instance_id=lease.instance_id, requested_ms=requested, answered_ms=answered, last_words=words)


def _milliseconds(seen: re.Match[str], written_s: float) -> int:
    """dnsmasq runs in UTC; a date later in the year than the last writing is one of the year before."""
    written = time.gmtime(written_s)
    date = (_MONTHS.index(seen["month"]) + 1, int(seen["day"]), int(seen["h"]), int(seen["m"]), int(seen["s"]))
    year = written.tm_year - (date > written[1:6])
    return calendar.timegm((year, *date)) * 1000


def stray_leases(lease_file: str, hosts: str, before: str = "") -> list[tuple[MacAddress, IPv4Address]]:
    """What dnsmasq has leased (`expiry mac address name client-id` a line) to a NIC that is not to have it any more.

    And what NICs had by the hosts file `before`: their leases may have been given and not yet written down.
    """
    wanted = _told(hosts)
    leased = [(found[1], found[2]) for line in lease_file.split("\n") if (found := _LEASE.fullmatch(line))]
    return [
        (mac, IPv4Address(address))
        for mac, address in dict.fromkeys([*leased, *_told(before)])
        if (mac, address) not in wanted
    ]


def _told(hosts: str) -> dict[tuple[MacAddress, str], None]:
    return {(mac, address): None for mac, _, address in (line.split(",") for line in hosts.splitlines())}


def release_packet(mac: MacAddress, address: IPv4Address, server: IPv4Address) -> bytes:
    """A DHCPRELEASE (RFC 2131 §4.4.6) as the NIC itself would send it."""
    header = struct.pack("!BBBBIHH", 1, 1, 6, 0, 0, 0, 0) + address.packed + bytes(12)
    hardware = bytes.fromhex(mac.replace(":", "")).ljust(16, b"\0") + bytes(64 + 128)
    options = b"\x63\x82\x53\x63" + b"\x35\x01\x07" + b"\x36\x04" + server.packed + b"\xff"
    return (header + hardware + options).ljust(300, b"\0")


class Dnsmasq:
    """The DHCP and DNS server of one network. Every verb may be repeated; the caller runs one at a time.

    With `namespaces` it lives in the one of its network's gateway, where the bridge's name is the gateway's device.
    """

    def __init__(
        self,
        network: Network,
        directory: Path,
        *,
        lease_seconds: int,
        mtu: int | None = None,
        namespaces: Namespaces | None = None,
    ) -> None:
        self._network, self._namespaces = network, namespaces
        self._files = Files(directory)
        self._lease_seconds, self._mtu = lease_seconds, mtu

    async def ensure(self) -> None:
        """Running with today's arguments: one that a former launcher left is kept when its arguments are the same."""
        with self._blaming():
            arguments = await asyncio.to_thread(self._prepare)
            pid = self._find()
            if pid is not None and _arguments(pid) == arguments and self._is_at_home(pid):
                # It may have missed the last change: the former launcher can have died before telling it.
                _signal(pid, signal.SIGHUP)
                return
            if pid is not None:
                await self._end(pid)
            await self._start(arguments)

    async def publish(self, leases: Sequence[FixedIp]) -> None:
        """Make these its leases: a file and a signal, whose effect is not waited for."""
        with self._blaming():
            if not await asyncio.to_thread(self._publish, host_lines(leases), name_lines(leases)):
                await self._start(await asyncio.to_thread(self._prepare))

    def get_evidence(self, lease: FixedIp) -> DhcpEvidence:
        """Blocks on the log file."""
        try:
            with self._files.log.open("rb") as log:
                status = os.fstat(log.fileno())
                log.seek(max(0, status.st_size - LOG_TAIL))
                tail = log.read().decode(errors="replace")
        except FileNotFoundError:
            return DhcpEvidence(instance_id=lease.instance_id)
        return read_evidence(tail, lease, written_s=status.st_mtime)

    def list_leases(self) -> list[MacAddress]:
        """The NICs in its hosts file. Blocks on the file."""
        return [line.split(",")[0] for line in _read(self._files.hosts).splitlines()]

    async def revive(self) -> None:
        """Start it again if it has died."""
        with self._blaming():
            if await asyncio.to_thread(self._find) is None:
                await self._start(await asyncio.to_thread(self._prepare))

    async def remove(self) -> None:
        """End it and forget what it knew."""
        pid = self._find()
        if pid is not None:
            await self._end(pid)
        await asyncio.to_thread(shutil.rmtree, self._files.directory, ignore_errors=True)

    async def stop(self) -> None:
        """End it, unless guests have leases of it: they go on living without a launcher."""
        pid = self._find()
        if pid is not None and not _read(self._files.hosts):
            await self._end(pid)

    def _prepare(self) -> list[str]:
        """The directory, a hosts file, and the command line for them."""
        self._files.directory.mkdir(parents=True, exist_ok=True)
        for file in (self._files.hosts, self._files.names):
            if not file.exists():
                _replace(file, "")
        user = _user_for(self._files.directory)
        return command_line(self._network, self._files, lease_seconds=self._lease_seconds, user=user, mtu=self._mtu)

    async def _start(self, arguments: list[str]) -> None:
        """Returns when it listens: dnsmasq goes into the background only then."""
        argv = self._namespaces.command(self._network.bridge, *arguments) if self._namespaces else arguments
        await process.run(argv, environment={**process.ENVIRONMENT, "TZ": "UTC0"})
        self._release_strays()

    @contextlib.contextmanager
    def _blaming(self) -> Iterator[None]:
        try:
            yield
        except (ProgramFailed, OSError) as error:
            raise NetworkFailed(
                f"{self._network.bridge}: no DHCP server: {error}",
                hint=f"see {self._files.log}, and who has ports 53 and 67 of {self._network.gateway}: `ss -lunp`",
            ) from error

    def _publish(self, hosts: str, names: str) -> bool:
        """Write, tell, tidy; whether there is a running dnsmasq that was told."""
        wanted, before = {self._files.names: names, self._files.hosts: hosts}, _read(self._files.hosts)
        changed = {file: text for file, text in wanted.items() if _read(file) != text}
        for file, text in changed.items():
            self._files.directory.mkdir(parents=True, exist_ok=True)
            _replace(file, text)
        pid = self._find()
        if pid is None:
            return False
        if changed:
            _signal(pid, signal.SIGHUP)
        self._release_strays(before)
        if self._files.log.stat().st_size > LOG_LIMIT:
            os.truncate(self._files.log, 0)  # it is opened for appending, so nothing else has to be told
        return True

    def _release_strays(self, before: str = "") -> None:
        """dnsmasq refuses an address to its new NIC while an old one's lease runs, so give it back in its name."""
        strays = stray_leases(_read(self._files.leases), _read(self._files.hosts), before)
        if not strays:
            return
        with self._open() as out:
            # dnsmasq looks only at what arrives by its bridge.
            out.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._network.bridge.encode())
            for mac, address in strays:
                out.sendto(release_packet(mac, address, self._network.gateway), (str(self._network.gateway), 67))

    def _open(self) -> socket.socket:
        if self._namespaces:
            return self._namespaces.open(self._network.bridge, socket.SOCK_DGRAM)
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def _is_at_home(self, pid: int) -> bool:
        """Not so where the namespace that it was started in has been replaced."""
        if self._namespaces is None:
            return True
        try:
            return Path(f"/proc/{pid}/ns/net").stat().st_ino == self._namespaces.identity(self._network.bridge)
        except OSError:
            return False

    def _find(self) -> int | None:
        """The pid of this network's dnsmasq, ours by its command line."""
        text = _read(self._files.pid).strip()
        if text.isdecimal() and process.alive(int(text), f"--dhcp-hostsfile={self._files.hosts}"):
            return int(text)
        return None

    async def _end(self, pid: int) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            _signal(pid, number)
            for _ in range(200):
                if self._find() != pid:
                    return
                await asyncio.sleep(0.01)
        raise NetworkFailed(f"{self._network.bridge}: its DHCP server (pid {pid}) cannot be ended")


def _user_for(directory: Path) -> str:
    """Whom dnsmasq becomes after its start: nobody, if nobody can read the files; root else.

    Empty for an ordinary user, who cannot become another.
    """
    if os.geteuid() != 0:
        return ""
    resolved = directory.resolve()
    readable = all(part.stat().st_mode & 0o001 for part in (resolved, *resolved.parents))
    return "nobody" if readable else "root"


def _signal(pid: int, number: signal.Signals) -> None:
    """One that has just died is found dead by the next call."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


def _read(path: Path) -> str:
    """A file's text; an absent file is an empty one."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _replace(path: Path, text: str) -> None:
    """Write a file so that dnsmasq reads the old text or the new one, never a part."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.replace(path)
