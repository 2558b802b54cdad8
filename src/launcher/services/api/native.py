"""The native dialect: JSON over HTTP, one endpoint per thing a user does. It translates and decides nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from launcher.auditing import Audit, AuditHosts, Collected, CollectGarbage
from launcher.bus import Bus
from launcher.errors import BadRequest, Conflict, Forbidden, NotFound, QuotaExceeded
from launcher.groups import GroupRef
from launcher.messages.catalogue import ListFlavors, ListHosts
from launcher.messages.instances import (
    CreateInstances,
    DeleteInstance,
    GetConsoleOutput,
    GetInstance,
    GetReadiness,
    GetTrace,
    ListInstances,
    NicRequest,
)
from launcher.messages.key_pairs import CreateKeyPair, DeleteKeyPair, ListKeyPairs
from launcher.models import (
    CreatedKeyPair,
    Flavor,
    HostState,
    Instance,
    KeyPair,
    Model,
    Name,
    Personality,
    Readiness,
    ShutdownBehaviour,
    Span,
)
from launcher.networks import MOST_NICS
from launcher.services.api.endpoint import Answer, Ask, Endpoint

PAGE = 1000
IDEMPOTENCY_KEY = r"^[!-~]([ -~]{0,253}[!-~])?$"


class InstancesBody(Model):
    """POST /instances. `count` is short for the same `min_count` and `max_count`."""

    image: str = Field(min_length=1, max_length=255, examples=["ami-tiny"])
    flavor: str = Field(min_length=1, max_length=255, examples=["m1.tiny"])
    name: Name | None = None
    key_name: str | None = Field(default=None, min_length=1, max_length=255)
    count: int | None = Field(default=None, ge=1, le=1000)
    min_count: int | None = Field(default=None, ge=1, le=1000)
    max_count: int | None = Field(default=None, ge=1, le=1000)
    security_groups: tuple[GroupRef, ...] = Field(default=(), max_length=1000)
    networks: tuple[NicRequest, ...] = Field(default=(), max_length=MOST_NICS, description="a NIC for each")
    user_data: str | None = Field(default=None, max_length=100_000, description="base64 of at most 64 KiB")
    personality: Personality = Personality()
    config_drive: bool = Field(default=False, description="tell the guest all of this by a disk of its own")
    shutdown_behaviour: ShutdownBehaviour = ShutdownBehaviour.STOP
    protected: bool = Field(default=False, description="from being deleted")
    availability_zone: str | None = Field(default=None, max_length=255)
    metadata: dict[str, str] = Field(default_factory=dict)


class InstancesQuery(Model):
    limit: int = Field(default=PAGE, ge=1, le=PAGE)
    marker: str | None = None
    name: str | None = None
    status: Literal["BUILD", "ACTIVE", "PAUSED", "SUSPENDED", "STOPPED", "RESCUED", "ERROR", "DELETED"] | None = None
    host: str | None = None
    all_projects: bool = False
    deleted: bool = False


class ConsoleQuery(Model):
    bytes: int = Field(default=102400, ge=1, le=102400)


class KeyPairBody(Model):
    """POST /keypairs; with `public_key` the pair is imported."""

    name: Name
    public_key: str | None = Field(default=None, min_length=1, max_length=16384)


class GarbageBody(Model):
    """POST /gc; with `dry_run` nothing is removed."""

    dry_run: bool = False


class InstanceList(Model):
    instances: list[Instance]
    next_marker: str | None = None


class SpanList(Model):
    spans: list[Span]


class KeyPairList(Model):
    keypairs: list[KeyPair]


class CreatedKey(KeyPair):
    """A key pair just made; `private_key` is shown this once."""

    private_key: str | None = None


class FlavorList(Model):
    flavors: list[Flavor]


class HostList(Model):
    hosts: list[HostState]


class Native:
    """The endpoints and what they call on the bus."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        return [*self._instances(), *self._evidence(), *self._key_pairs(), *self._catalogue(), *self._upkeep()]

    def _instances(self) -> Sequence[Endpoint]:
        one = "/instances/{id}"
        return [
            Endpoint(
                "POST",
                "/instances",
                self.create_instances,
                "Launch instances; the answer comes before they run",
                status=202,
                body=InstancesBody,
                response=InstanceList,
                headers={"Idempotency-Key": {"type": "string", "pattern": IDEMPOTENCY_KEY}},
                raises=(QuotaExceeded, NotFound, Conflict),
                traced=True,
            ),
            Endpoint(
                "GET",
                "/instances",
                self.list_instances,
                "List instances in order of creation",
                query=InstancesQuery,
                response=InstanceList,
                raises=(Forbidden, NotFound),
            ),
            Endpoint("GET", one, self.get_instance, "Show an instance", response=Instance, raises=(Conflict,)),
            Endpoint(
                "DELETE",
                one,
                self.delete_instance,
                "Terminate an instance",
                status=202,
                response=Instance,
                raises=(Conflict,),
                traced=True,
            ),
        ]

    def _evidence(self) -> Sequence[Endpoint]:
        one = "/instances/{id}"
        return [
            Endpoint(
                "GET",
                f"{one}/console",
                self.get_console,
                "The end of its console log",
                query=ConsoleQuery,
                response=str,
                content_type="text/plain",
                raises=(Conflict,),
            ),
            Endpoint(
                "GET",
                f"{one}/trace",
                self.get_trace,
                "The spans of its launch and deletion",
                response=SpanList,
                raises=(Conflict,),
            ),
            Endpoint(
                "GET",
                f"{one}/readiness",
                self.get_readiness,
                "Evidence of what is late",
                response=Readiness,
                raises=(Conflict,),
            ),
        ]

    def _key_pairs(self) -> Sequence[Endpoint]:
        return [
            Endpoint(
                "POST",
                "/keypairs",
                self.create_key_pair,
                "Make or import a key pair",
                status=201,
                body=KeyPairBody,
                response=CreatedKey,
                raises=(QuotaExceeded, Conflict),
            ),
            Endpoint("GET", "/keypairs", self.list_key_pairs, "List key pairs", response=KeyPairList),
            Endpoint("DELETE", "/keypairs/{name}", self.delete_key_pair, "Delete a key pair", status=204),
        ]

    def _catalogue(self) -> Sequence[Endpoint]:
        return [
            Endpoint("GET", "/flavors", self.list_flavors, "List flavors", response=FlavorList),
            Endpoint("GET", "/hosts", self.list_hosts, "List compute hosts", response=HostList),
        ]

    def _upkeep(self) -> Sequence[Endpoint]:
        return [
            Endpoint(
                "GET",
                "/audit",
                self.audit_hosts,
                "Compare the rows with the hosts",
                response=Audit,
                raises=(Forbidden,),
            ),
            Endpoint(
                "POST",
                "/gc",
                self.collect_garbage,
                "Remove what nobody owns",
                body=GarbageBody,
                response=Collected,
                raises=(Forbidden, Conflict),
            ),
        ]

    async def create_instances(self, ask: Ask) -> Answer:
        body: InstancesBody = ask.body
        wanted = body.model_dump(exclude={"count", "min_count", "max_count"})
        message = CreateInstances(**wanted, **_counts(body), idempotency_key=_idempotency_key(ask))
        made = await self.bus.call(ask.ctx, message)
        return Answer(InstanceList(instances=made), {"Location": f"/instances/{made[0].id}"})

    async def list_instances(self, ask: Ask) -> Answer:
        found = await self.bus.call(ask.ctx, ListInstances(**ask.query.model_dump()))
        more = found[-1].id if len(found) == ask.query.limit else None
        return Answer(InstanceList.model_construct(instances=found, next_marker=more))

    async def get_instance(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, GetInstance(instance_id=ask.path["id"])))

    async def delete_instance(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, DeleteInstance(instance_id=ask.path["id"])))

    async def get_console(self, ask: Ask) -> Answer:
        message = GetConsoleOutput(instance_id=ask.path["id"], max_bytes=ask.query.bytes)
        return Answer(await self.bus.call(ask.ctx, message))

    async def get_trace(self, ask: Ask) -> Answer:
        return Answer(SpanList(spans=await self.bus.call(ask.ctx, GetTrace(instance_id=ask.path["id"]))))

    async def get_readiness(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, GetReadiness(instance_id=ask.path["id"])))

    async def create_key_pair(self, ask: Ask) -> Answer:
        made: CreatedKeyPair = await self.bus.call(ask.ctx, CreateKeyPair(**ask.body.model_dump()))
        return Answer(CreatedKey(**made.key_pair.model_dump(), private_key=made.private_key))

    async def list_key_pairs(self, ask: Ask) -> Answer:
        return Answer(KeyPairList(keypairs=await self.bus.call(ask.ctx, ListKeyPairs())))

    async def delete_key_pair(self, ask: Ask) -> Answer:
        await self.bus.call(ask.ctx, DeleteKeyPair(name=ask.path["name"]))
        return Answer()

    async def list_flavors(self, ask: Ask) -> Answer:
        return Answer(FlavorList(flavors=await self.bus.call(ask.ctx, ListFlavors())))

    async def list_hosts(self, ask: Ask) -> Answer:
        return Answer(HostList(hosts=await self.bus.call(ask.ctx, ListHosts())))

    async def audit_hosts(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, AuditHosts()))

    async def collect_garbage(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, CollectGarbage(dry_run=ask.body.dry_run)))


def _counts(body: InstancesBody) -> dict[str, int]:
    """EC2's rule: a single given bound is both."""
    if body.count is not None and (body.min_count is not None or body.max_count is not None):
        raise BadRequest("count goes without min_count and max_count", field="count")
    most = body.count or body.max_count or body.min_count or 1
    return {"min_count": body.count or body.min_count or most, "max_count": most}


def _idempotency_key(ask: Ask) -> str | None:
    key = ask.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch(IDEMPOTENCY_KEY, key):
        raise BadRequest("Idempotency-Key has 1 to 255 printable ASCII characters", field="Idempotency-Key")
    return key
