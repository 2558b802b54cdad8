"""libvirt was killed while it started a domain: what it lists afterwards is no machine."""

from __future__ import annotations

import os
import re
import signal

import pytest

from launcher import failpoints
from tests.host.test_story import leftovers, qemus
from tests.serving import Server
from tests.waiting import until

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]


async def half_started(server: Server) -> None:
    """A launch whose machine ran when everything was killed, the word of which never arrived."""
    server.environment = {failpoints.VARIABLE: "report.active:before:1:kill"}
    await server.start()
    body = {"image": "ami-tiny", "flavor": "m1.tiny", "name": "half"}
    async with server.http() as http, http.post("/instances", json=body) as answer:
        assert answer.status == 202
    await until(lambda: server.ended)
    for machine in qemus(server):
        os.kill(int(machine.name), signal.SIGKILL)
    await until(lambda: not qemus(server))


def never_born(server: Server) -> None:
    """What libvirt writes before it starts a QEMU."""
    (status,) = (server.state / "libvirt" / "run" / "qemu").glob("instance-*.xml")
    changed, count = re.subn(
        "<domstatus [^>]*>", "<domstatus state='paused' reason='starting up' pid='0'>", status.read_text()
    )
    assert count == 1
    status.write_text(changed)


async def test_a_domain_that_never_had_a_process_is_no_machine(server: Server) -> None:
    """An instance was told ACTIVE without one: libvirt lists it for half a minute, as paused."""
    server.settings = ["virt.virt_type=qemu"]
    await half_started(server)
    never_born(server)
    server.environment = {}
    async with server.running():
        await server.until_instance("half", status="ACTIVE")
        assert len(qemus(server)) == 1
        await server.cli("audit")
        await server.cli("delete", "half", "--wait")
        assert leftovers(server) == []
