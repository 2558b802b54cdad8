"""OpenStack's clients: the `openstack` command, and requests with a token got as clients get it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from launcher.cli import environment
from tests.flow.house import ADMIN, House, Json

PROGRAM = Path(sys.executable).with_name("openstack")


def login(**changes: object) -> Json:
    """POST /identity/v3/auth/tokens, by the administrator's password."""
    user = {"name": "admin", "domain": {"id": "default"}, "password": ADMIN.password}
    scope = {"project": {"name": "admin", "domain": {"name": "Default"}}}
    return {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope, **changes}}


@contextlib.asynccontextmanager
async def logged_in(house: House) -> AsyncIterator[ClientSession]:
    """With an administrator's token."""
    async with ClientSession(house.url) as session:
        async with session.post("/identity/v3/auth/tokens", json=login()) as response:
            assert response.status == 201, await response.text()
            session.headers["X-Auth-Token"] = response.headers["X-Subject-Token"]
        yield session


async def send(
    http: ClientSession, method: str, path: str, body: object = None, *, status: int, version: str = ""
) -> Any:
    """The answer's JSON, None for an empty one; `version` as in "compute 2.79"."""
    headers = {"OpenStack-API-Version": version} if version else {}
    async with http.request(method, path, json=body, headers=headers) as response:
        text = await response.text()
        assert response.status == status, text
        return json.loads(text) if text else None


async def get(http: ClientSession, path: str, *, status: int = 200, **options: Any) -> Json:
    async with http.get(path, **options) as response:
        assert response.status == status, await response.text()
        found: Json = await response.json()
        return found


async def openstack(house: House, line: str, *, code: int = 0) -> str:
    """The command, with what `launcher env` exports and nothing else."""
    known = {"url": house.url, "region": "RegionOne", "user_id": "admin", "project_id": "admin", **ADMIN.model_dump()}
    process = await asyncio.create_subprocess_exec(
        *(str(PROGRAM), *line.split()),
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment.of_admin(known)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == code, f"{line}: {out.decode()}{err.decode()}"
    return out.decode() + err.decode()
