"""Schemathesis against /openapi.json: whatever it makes of the description, the answers are as it says."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from pathlib import Path

from tests.flow.house import TOKEN, House

SEED = 20120229
ELSEWHERE = "^/events$|/tcp/|^/tokens/self$|^/credentials/"
"""Streams do not end by themselves, so `test_bad_input.py` asks them; who ends his own token ends the run."""

# What fits its schema may still mean nothing: a key that is none, an empty range, ports for icmp, 7.0 for 7.
CONFIGURATION = """
[[operations]]
include-name = [
  "GET /instances/{id}/explain", "POST /instances", "POST /keypairs", "POST /networks",
  "POST /images", "PATCH /images/{image}",
  "POST /volumes", "POST /volumes/{id}/size", "POST /snapshots",
  "POST /floating-ips", "POST /security-groups", "POST /tokens", "PUT /projects/{project}/quotas",
  "POST /security-groups/{group}/rules", "DELETE /security-groups/{group}/rules",
]
checks.positive_data_acceptance.enabled = false
"""
PUBLIC = {"/healthz", "/metrics", "/openapi.json", "/tokens", "unknown"}


async def schemathesis(house: House, directory: Path, *options: str) -> None:
    """One run, the same requests each time; what it finds is shown with the command that repeats it."""
    (directory / "schemathesis.toml").write_text(CONFIGURATION)
    words = ["run", f"{house.url}/openapi.json", f"--seed={SEED}", "--no-color"]
    words += ["--generation-database=none", "--continue-on-failure", "--no-shrink"]
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("schemathesis")), *words, f"--exclude-path-regex={ELSEWHERE}", *options),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    report, _ = await process.communicate()
    assert process.returncode == 0, report.decode()


async def asked(house: House) -> Counter[tuple[str, int]]:
    """How often each endpoint answered with each status, as the server counted."""
    async with house.http.get("/metrics") as response:
        text = await response.text()
    found = re.findall(
        r'^launcher_http_requests_total{endpoint="([^"]*)",[^}]*status="(\d+)"} (\S+)$', text, re.MULTILINE
    )
    counted: Counter[tuple[str, int]] = Counter()
    for endpoint, status, times in found:
        counted[endpoint, int(status)] += int(float(times))
    return counted


async def test_whatever_is_asked_is_answered_as_described(house: House, tmp_path: Path) -> None:
    await schemathesis(house, tmp_path, f"--header=Authorization: Bearer {TOKEN}", "--max-examples=15")
    counted = await asked(house)
    assert counted.total() > 800
    assert [each for each in counted if each[1] >= 500] == []
    assert sum(times for (_, status), times in counted.items() if status < 300) > 100
    assert house.bus.dead.count == 0
    await house.ask("POST", "/images", {"name": "ami-tiny"}, status=201)  # it was deleted, or called something else
    made = await house.launch()
    await house.until(made["id"], "ACTIVE")


async def test_without_a_token_only_what_is_public_is_told(house: House, tmp_path: Path) -> None:
    await schemathesis(house, tmp_path, "--max-examples=2")
    counted = await asked(house)
    assert counted.total() > 200
    told = {endpoint for endpoint, status in counted if status not in (401, 405)}
    assert told <= PUBLIC
