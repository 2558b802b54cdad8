"""Compute v2.1: versions, flavors, key pairs, zones, and the servers of `servers.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import web
from pydantic import Field

from launcher.bus import Bus
from launcher.errors import BadRequest, Forbidden, LauncherError, NotFound
from launcher.messages.catalogue import ListFlavors, ListHosts
from launcher.messages.key_pairs import CreateKeyPair, DeleteKeyPair, ListKeyPairs
from launcher.models import Flavor, KeyPair, Model, Name
from launcher.services.api.openstack import nova
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply
from launcher.services.api.openstack.servers import Servers

UPDATED = "2013-07-23T11:33:21Z"
PAGED = ("limit", "marker", "sort_key", "sort_dir")


class KeyPairFields(Model):
    name: Name
    public_key: str | None = Field(default=None, min_length=1, max_length=16384)


class KeyPairRequest(Model):
    """POST /os-keypairs."""

    keypair: KeyPairFields


class Compute:
    """Nova's part."""

    type, name, prefix, endpoint, unscoped = "compute", "nova", nova.PREFIX, nova.ENDPOINT, False

    def __init__(self, *, bus: Bus) -> None:
        self.bus, self.servers = bus, Servers(bus=bus)

    @property
    def operations(self) -> Sequence[Operation]:
        flavors, keys = "/v2.1/flavors", "/v2.1/os-keypairs"
        filters = (*PAGED, "is_public", "minRam", "minDisk")
        return [
            Operation("GET", "", self.list_versions, public=True),
            Operation("GET", "/v2.1", self.get_version, public=True),
            Operation("GET", flavors, self.list_flavors, queries=filters),
            Operation("GET", f"{flavors}/detail", self.list_flavor_details, queries=filters),
            Operation("GET", f"{flavors}/{{id}}", self.get_flavor),
            Operation("GET", f"{flavors}/{{id}}/os-extra_specs", self.get_extra_specs),
            Operation("GET", keys, self.list_key_pairs, queries=("limit", "marker")),
            Operation("POST", keys, self.create_key_pair, body=KeyPairRequest),
            Operation("GET", f"{keys}/{{name}}", self.get_key_pair),
            Operation("DELETE", f"{keys}/{{name}}", self.delete_key_pair, status=202),
            Operation("GET", "/v2.1/os-availability-zone", self.list_zones),
            Operation("GET", "/v2.1/os-availability-zone/detail", self.list_zone_details),
            Operation("GET", "/v2.1/extensions", self.list_extensions),
            *self.servers.operations,
        ]

    def refusal(self, error: LauncherError) -> Json:
        return nova.refusal(error)

    def settle(self, request: web.Request) -> Mapping[str, str]:
        return nova.settle(request)

    async def list_versions(self, ask: Ask) -> Reply:
        return Reply({"versions": [_version(ask)]})

    async def get_version(self, ask: Ask) -> Reply:
        return Reply({"version": _version(ask)})

    # --- flavors: an id is a name -----------------------------------------------------------------------------

    async def list_flavors(self, ask: Ask) -> Reply:
        found = [{name: each[name] for name in ("id", "name", "links")} for each in await self._flavors(ask)]
        return Reply({"flavors": found})

    async def list_flavor_details(self, ask: Ask) -> Reply:
        return Reply({"flavors": await self._flavors(ask)})

    async def get_flavor(self, ask: Ask) -> Reply:
        found = [each for each in await self.bus.call(ask.ctx, ListFlavors()) if each.name == ask.path["id"]]
        if not found:
            raise NotFound(f"Flavor {ask.path['id']} could not be found.")
        return Reply({"flavor": _flavor(ask, found[0])})

    async def get_extra_specs(self, ask: Ask) -> Reply:
        await self.get_flavor(ask)
        return Reply({"extra_specs": {}})

    async def _flavors(self, ask: Ask) -> list[Json]:
        least_ram, least_disk = (_number(ask, name) for name in ("minRam", "minDisk"))
        found = [
            _flavor(ask, each)
            for each in await self.bus.call(ask.ctx, ListFlavors())
            if each.memory_mb >= least_ram and each.root_gb >= least_disk
        ]
        return page(ask, found)

    # --- key pairs ---------------------------------------------------------------------------------------------

    async def list_key_pairs(self, ask: Ask) -> Reply:
        found = await self.bus.call(ask.ctx, ListKeyPairs())
        told = [{name: _pair(each)[name] for name in ("name", "public_key", "fingerprint")} for each in found]
        return Reply({"keypairs": [{"keypair": each} for each in told]})

    async def create_key_pair(self, ask: Ask) -> Reply:
        given: KeyPairFields = ask.body.keypair
        made = await self.bus.call(ask.ctx, CreateKeyPair(name=given.name, public_key=given.public_key))
        secret = {"private_key": made.private_key} if made.private_key else {}
        return Reply({"keypair": {**_pair(made.key_pair), "user_id": ask.ctx.user_id, **secret}})

    async def get_key_pair(self, ask: Ask) -> Reply:
        pairs: list[KeyPair] = await self.bus.call(ask.ctx, ListKeyPairs())
        for number, each in enumerate(pairs, 1):
            if each.name == ask.path["name"]:
                times = {"created_at": nova.moment(each.created_ms), "updated_at": None, "deleted_at": None}
                whose = {"user_id": ask.ctx.user_id, "id": number, "deleted": False}
                return Reply({"keypair": {**_pair(each), **whose, **times}})
        raise NotFound(f"Keypair {ask.path['name']} not found for user {ask.ctx.user_id}")

    async def delete_key_pair(self, ask: Ask) -> Reply:
        await self.bus.call(ask.ctx, DeleteKeyPair(name=ask.path["name"]))
        return Reply()

    # --- zones, extensions -----------------------------------------------------------------------------------------

    async def list_zones(self, ask: Ask) -> Reply:
        hosts = await self.bus.call(ask.ctx, ListHosts())
        names = sorted({each.availability_zone for each in hosts})
        return Reply({"availabilityZoneInfo": [_zone(name, None) for name in names]})

    async def list_zone_details(self, ask: Ask) -> Reply:
        """Hosts are an administrator's to see."""
        if not ask.ctx.is_admin:
            raise Forbidden("Policy doesn't allow os_compute_api:os-availability-zone:detail to be performed.")
        zones: dict[str, Json] = {}
        for host in await self.bus.call(ask.ctx, ListHosts()):
            service = {"available": True, "active": True, "updated_at": nova.moment(host.seen_ms)}
            zones.setdefault(host.availability_zone, {})[host.name] = {"nova-compute": service}
        return Reply({"availabilityZoneInfo": [_zone(name, hosts) for name, hosts in sorted(zones.items())]})

    async def list_extensions(self, ask: Ask) -> Reply:
        return Reply({"extensions": []})


def _zone(name: str, hosts: Json | None) -> Json:
    return {"zoneName": name, "zoneState": {"available": True}, "hosts": hosts}


def page(ask: Ask, found: list[Json]) -> list[Json]:
    """After `marker`, at most `limit`."""
    marker, limit = ask.query.get("marker"), _number(ask, "limit", usual=1000)
    ids = [each["id"] for each in found]
    if marker is not None and marker not in ids:
        raise BadRequest(f"marker [{marker}] not found")
    start = ids.index(marker) + 1 if marker is not None else 0
    return found[start : start + min(limit, 1000)]


def _number(ask: Ask, name: str, *, usual: int = 0) -> int:
    text = ask.query.get(name)
    if text is None:
        return usual
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise BadRequest(f"{name} must be an integer, not {text[:20]!r}", field=name)
    return int(text)


def _version(ask: Ask) -> Json:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": nova.VERSION,
        "min_version": nova.VERSION,
        "updated": UPDATED,
        "links": [{"rel": "self", "href": f"{ask.base}{nova.ENDPOINT}/"}],
    }


def _flavor(ask: Ask, flavor: Flavor) -> Json:
    return {
        "id": flavor.name,
        "name": flavor.name,
        "vcpus": flavor.vcpus,
        "ram": flavor.memory_mb,
        "disk": flavor.root_gb,
        "swap": "",
        "rxtx_factor": 1.0,
        "OS-FLV-EXT-DATA:ephemeral": 0,
        "OS-FLV-DISABLED:disabled": False,
        "os-flavor-access:is_public": True,
        "links": nova.links(ask, f"flavors/{flavor.name}"),
    }


def _pair(pair: KeyPair) -> Json:
    return {"name": pair.name, "public_key": pair.public_key, "fingerprint": pair.fingerprint}
