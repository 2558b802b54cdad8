"""A server that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from aiohttp import WSMsgType, web

from launcher.models import Flavor, Instance, Nic, TaskState, VmState

Json = dict[str, Any]
CREATED_MS = 1_700_000_000_000
ID = "0123abcd-0000-4000-8000-000000000001"


ACTIVE: Json = {
    "number": 1,
    "generation": 1,
    "project_id": "demo",
    "user_id": "demo",
    "name": "web",
    "hostname": "web",
    "vm_state": VmState.ACTIVE,
    "task_state": None,
    "state_since_ms": CREATED_MS,
    "host": "box",
    "nics": (Nic(mac="02:16:3e:00:00:01", network="default", address=IPv4Address("10.0.0.3")),),
    "addresses": ("10.0.0.3",),
    "flavor": Flavor(name="m1.tiny", vcpus=1, memory_mb=512, root_gb=0),
    "image_id": "1",
    "image_name": "ami-tiny",
    "key_name": "me",
    "security_groups": ("default",),
    "availability_zone": None,
    "metadata": {},
    "reservation_id": "r-00000000",
    "launch_index": 0,
    "created_ms": CREATED_MS,
    "launched_ms": CREATED_MS + 400,
    "fault": None,
    "trace_id": "0" * 32,
}


def make_instance(instance_id: str = ID, **changes: Any) -> Json:
    """An instance as the API shows it; without changes, an active one."""
    facts = {**ACTIVE, "id": instance_id, **changes}
    state, task = facts["vm_state"], facts["task_state"]
    facts["status"] = {"building": "BUILD"}.get(state, state.upper()) if task != TaskState.DELETING else "DELETING"
    return Instance(**facts).model_dump(mode="json")


def make_event(seq: int, vm_state: VmState, task_state: TaskState | None, **changes: Any) -> Json:
    return {
        "seq": seq,
        "at_ms": CREATED_MS + 100 * seq,
        "project_id": "demo",
        "instance_id": ID,
        "name": "web",
        "vm_state": vm_state,
        "task_state": task_state,
        "host": "box",
        "request_id": "req-1",
        "message": "",
        **changes,
    }


@dataclass
class StubApi:
    """`answers` by "METHOD /path": a JSON value, or a function of the request; anything else is not found."""

    answers: dict[str, Any] = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)
    greeting: bytes = b""
    asked: list[tuple[str, Json | None]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/events", self.stream)
        application.router.add_get("/instances/{id}/tcp/{port}", self.tunnel)
        application.router.add_route("*", "/{path:.*}", self.answer)
        return application

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append((f"{request.method} {request.path_qs}", json.loads(body) if body else None))
        self.headers.append(dict(request.headers))
        found = self.answers.get(f"{request.method} {request.path}")
        if callable(found):
            found = found(request)
        if isinstance(found, web.StreamResponse):
            return found
        return problem(404, "not found", detail=f"there is no {request.path}") if found is None else text(found)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """What has happened, in pieces that do not end where lines end; then silence, or the end."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        after = int(request.query.get("after", "0"))
        for event in self.events:
            if event["seq"] > after:
                frame = f": alive\n\nid: {event['seq']}\nevent: instance\ndata: {json.dumps(event)}\n\n".encode()
                await response.write(frame[:25])
                await response.write(frame[25:])
        await response.write_eof()
        return response

    async def tunnel(self, request: web.Request) -> web.StreamResponse:
        """Greets, then sends back whatever comes."""
        if not self.greeting:
            return problem(502, "unreachable", detail="10.0.0.3 port 22: Connection refused")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.ping(b"still there?")
        await socket.send_bytes(self.greeting)
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket


def text(value: Any) -> web.Response:
    if isinstance(value, str):
        return web.Response(text=value)
    return web.json_response(value)


def problem(status: int, title: str, **more: str) -> web.Response:
    body = {"type": "about:blank", "title": title, "status": status, "code": "x", "request_id": "req-1", **more}
    return web.json_response(body, status=status, content_type="application/problem+json")
