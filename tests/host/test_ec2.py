"""EC2's own command line against a real machine: the commands of the README, as they stand there."""

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


async def test_the_readmes_commands_boot_a_machine_that_lets_its_key_in(server: Server, tmp_path: Path) -> None:
    async with server.running():
        said = await asyncio.to_thread(shell, commands("Point your EC2 tools here"), server, tmp_path)
        address = said.splitlines()[-1].strip()
        assert re.fullmatch(r"10\.0\.0\.\d+", address), said
        login = ["ssh", "-i", "test.pem", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]

        async def let_in() -> bool:
            tried = [*login, "-o", "ConnectTimeout=2", "-o", "BatchMode=yes", f"root@{address}", "uname -n"]
            done = await asyncio.to_thread(subprocess.run, tried, cwd=tmp_path, capture_output=True, text=True)
            return done.stdout.strip() == "server-1.novalocal"

        await eventually(let_in, within=60, what="the guest lets the key in")
        await asyncio.to_thread(_the_rest, server)


def _the_rest(server: Server) -> None:
    ec2 = client(server.admin["url"], server.admin["access_key"], server.admin["secret_key"])
    assert "sshd" in ec2.get_console_output(InstanceId="i-00000001")["Output"]
    ec2.terminate_instances(InstanceIds=["i-00000001"])
    ec2.get_waiter("instance_terminated").wait(
        InstanceIds=["i-00000001"], WaiterConfig={"Delay": 0.1, "MaxAttempts": 300}
    )
