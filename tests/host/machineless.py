"""`launcher`, with the real network and the real filters, but machines that are only lines of a file.

Fifty real guests would need memory for fifty; what is tried out here needs their taps, addresses and filters. The file
is what libvirt is to the product: it knows after a restart what ran before. `[virt] driver = "fake"` must be set.
"""

from __future__ import annotations

import sys
from pathlib import Path

from launcher import app
from launcher.cli.main import main
from launcher.config import Config
from launcher.drivers.firewall.choice import choose_firewall
from launcher.drivers.images.fake import FakeImages
from launcher.drivers.nat.nftables import NftablesNat
from launcher.drivers.network.flat_dhcp import FlatDhcpNetwork
from launcher.drivers.virt.driver import Disks, Domain
from launcher.drivers.virt.fake import FakeVirt
from launcher.drivers.volumes.fake import FakeVolumes
from launcher.equipment import Drivers, firewall_settings
from launcher.models import InstanceRef, LaunchOrder
from launcher.services.controller import start_report


class KeptVirt(FakeVirt):
    """Domains outlive the process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.domains = {domain.instance_id: domain for domain in map(Domain.model_validate_json, lines)}

    async def spawn(self, order: LaunchOrder, disks: Disks) -> None:
        await super().spawn(order, disks)
        self._keep()

    async def destroy(self, order: InstanceRef) -> None:
        await super().destroy(order)
        self._keep()

    def _keep(self) -> None:
        draft = self.path.with_suffix(".new")
        draft.write_text("".join(f"{domain.model_dump_json()}\n" for domain in self.domains.values()))
        draft.replace(self.path)


async def make_drivers(config: Config, state: Path) -> Drivers:
    return Drivers(
        virt=KeptVirt(state / "domains"),
        firewall=await choose_firewall(config.firewall.driver, firewall_settings(config), config.virt.uri),
        network=FlatDhcpNetwork(state, lease_seconds=config.network.lease_s),
        nat=NftablesNat(note=None),
        images=FakeImages(),
        volumes=FakeVolumes(),
    )


if __name__ == "__main__":
    app.make_drivers = make_drivers  # type: ignore[attr-defined]
    start_report.BETWEEN_LOOKS = 0.5
    sys.exit(main())
