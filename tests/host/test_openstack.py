"""The `openstack` command against a real machine: the commands of the README, as they stand there."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

import pytest

from tests.ec2_client import client
from tests.readme import commands, shell
from tests.serving import Server
from tests.waiting import eventually

pytestmark = pytest.mark.host


async def test_the_readmes_openstack_commands_boot_a_machine_that_lets_its_key_in(
    server: Server, tmp_path: Path
) -> None:
    """And the other doors see the same machine."""
    async with server.running():
        said = await asyncio.to_thread(
            shell, commands("Point your OpenStack tools here"), server, tmp_path, timeout=240
        )
        found = re.findall(r"10\.0\.0\.\d+", said)
        assert found, said
        login = ["ssh", "-i", "test.pem", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]

        async def let_in() -> bool:
            tried = [*login, "-o", "ConnectTimeout=2", "-o", "BatchMode=yes", f"root@{found[-1]}", "uname -n; ls /dev"]
            done = await asyncio.to_thread(subprocess.run, tried, cwd=tmp_path, capture_output=True, text=True)
            return done.stdout.startswith("vm1.novalocal") and "vdb" in done.stdout.split()

        await eventually(let_in, within=60, what="the guest lets the key in, and has the volume")
        native = await server.get("/instances/vm1")
        assert (native["status"], native["image_name"]) == ("ACTIVE", "ami-tiny")
        ec2 = client(server.admin["url"], server.admin["access_key"], server.admin["secret_key"])
        (reservation,) = (await asyncio.to_thread(ec2.describe_instances))["Reservations"]
        (instance,) = reservation["Instances"]
        assert (instance["State"]["Name"], instance["InstanceType"]) == ("running", "m1.tiny")
        rest = 'eval "$(launcher env)"; openstack console log show vm1; openstack server delete --wait vm1'
        assert "sshd" in await asyncio.to_thread(shell, rest, server, tmp_path)
        assert (await server.cli_json("list"))["instances"] == []
