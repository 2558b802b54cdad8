"""Compute v2.1's servers: create, list, show, update, delete."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.bus import Bus
from launcher.errors import BadRequest, NotFound
from launcher.messages.attributes import ModifyInstance
from launcher.messages.instances import CreateInstances, DeleteInstance, ListInstances, NicRequest
from launcher.messages.network import ListNetworks
from launcher.models import Instance
from launcher.services.api.openstack import ids, nova, server_requests
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply
from launcher.services.api.openstack.server_requests import (
    AGED,
    FILTERS,
    PAGED,
    SORTS,
    NetworkFields,
    ServerFields,
    ServerRequest,
    UpdateFields,
    UpdateRequest,
)
from launcher.services.api.openstack.server_shapes import look_around, server, updated

PAGE = 1000


class Servers:
    """A part of Compute."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        every, one = "/v2.1/servers", "/v2.1/servers/{id}"
        queries = (*FILTERS, *PAGED)
        return [
            Operation("POST", every, self.create_server, status=202, body=ServerRequest),
            Operation("GET", every, self.list_servers, queries=queries, aged=AGED),
            Operation("GET", f"{every}/detail", self.list_details, queries=queries, aged=AGED),
            Operation("GET", one, self.get_server),
            Operation("PUT", one, self.update_server, body=UpdateRequest),
            Operation("DELETE", one, self.delete_server, status=204),
        ]

    async def create_server(self, ask: Ask) -> Reply:
        given: ServerFields = ask.body.server
        given.check(ask.version)
        message = CreateInstances(
            image=given.imageRef,
            flavor=given.flavorRef,
            name=given.name,
            key_name=given.key_name,
            min_count=given.min_count,
            max_count=given.max_count or given.min_count,
            networks=await self._nics(ask, given.nics),
            security_groups=tuple(each.name for each in given.security_groups),
            metadata=given.metadata,
            user_data=given.user_data,
            personality=given.files,
            config_drive=given.config_drive or False,
            availability_zone=given.availability_zone,
            description=given.description,
            labels=tuple(given.tags),
        )
        try:
            first = (await self.bus.call(ask.ctx, message))[0]
        except NotFound as error:  # of what the request names, which is no path here
            raise BadRequest(error.message, field=error.field) from None
        if given.return_reservation_id:
            return Reply({"reservation_id": first.reservation_id})
        groups = [{"name": name} for name in first.security_groups]
        made = {"id": first.id, "links": nova.links(ask, f"servers/{first.id}"), "security_groups": groups}
        headers = {"Location": f"{ask.base}{nova.ENDPOINT}/servers/{first.id}"}
        return Reply({"server": {**made, "OS-DCF:diskConfig": "MANUAL"}}, headers=headers)

    async def _nics(self, ask: Ask, wanted: Sequence[NetworkFields]) -> tuple[NicRequest, ...]:
        """Networks are named by the ids that they have in OpenStack's door, or by their own."""
        if not wanted:
            return ()
        known = {ids.of_network(each): str(each.id) for each in await self.bus.call(ask.ctx, ListNetworks())}
        if any(each.uuid is None for each in wanted):
            raise BadRequest("networks: each needs the uuid of a network", field="networks")
        return tuple(
            NicRequest(network=known.get(each.uuid or "", each.uuid or ""), address=each.fixed_ip) for each in wanted
        )

    async def list_servers(self, ask: Ask) -> Reply:
        found, more = await self._list(ask)
        told = [{"id": each.id, "name": each.name, "links": nova.links(ask, f"servers/{each.id}")} for each in found]
        return Reply({"servers": told, **_next(ask, found, more=more)})

    async def list_details(self, ask: Ask) -> Reply:
        found, more = await self._list(ask)
        around = await look_around(self.bus, ask, all_projects=nova.truth(ask.query, "all_tenants"))
        return Reply({"servers": [server(ask, each, around) for each in found], **_next(ask, found, more=more)})

    async def get_server(self, ask: Ask) -> Reply:
        found = await nova.the_server(self.bus, ask)
        return Reply({"server": server(ask, found, await look_around(self.bus, ask))})

    async def update_server(self, ask: Ask) -> Reply:
        given: UpdateFields = ask.body.server
        found = await nova.the_server(self.bus, ask)
        description = (given.description or "") if "description" in given.model_fields_set else None
        changes = ModifyInstance(instance_id=found.id, name=given.name, description=description)
        changed = await self.bus.call(ask.ctx, changes)
        return Reply({"server": updated(ask, changed, await look_around(self.bus, ask))})

    async def delete_server(self, ask: Ask) -> Reply:
        found = await nova.the_server(self.bus, ask)
        await self.bus.call(ask.ctx, DeleteInstance(instance_id=found.id))
        return Reply()

    async def _list(self, ask: Ask) -> tuple[list[Instance], bool]:
        """A page, and whether there is more. The youngest come first, where nothing else is asked for."""
        query, limit = ask.query, max(1, min(nova.number(ask, "limit", usual=PAGE), PAGE))
        since, before = nova.moments(ask, "changes-since"), nova.moments(ask, "changes-before")
        deleted = nova.truth(query, "deleted")
        found = [
            each
            for each in await self._all(ask, deleted_after_ms=None if since is None else max(0, int(since)))
            if server_requests.fits(each, query)
            and ("locked" not in query or each.locked == nova.truth(query, "locked"))
            and (since or 0) <= each.state_since_ms <= (before or each.state_since_ms)
            and (not deleted or each.deleted_ms is not None)
        ]
        found = _sorted(ask, found)
        start = _after(query.get("marker"), found)
        return found[start : start + limit], len(found) > start + limit

    async def _all(self, ask: Ask, *, deleted_after_ms: int | None) -> list[Instance]:
        found: list[Instance] = []
        while True:
            message = ListInstances(
                marker=found[-1].id if found else None,
                all_projects=nova.truth(ask.query, "all_tenants"),
                deleted=nova.truth(ask.query, "deleted"),
                deleted_after_ms=deleted_after_ms,
            )
            some = await self.bus.call(ask.ctx, message)
            found += some
            if len(some) < PAGE:
                return found


def _sorted(ask: Ask, found: list[Instance]) -> list[Instance]:
    """By several keys, the first one counting most; each has its direction, or else the last one named."""
    asked = ask.request.query
    keys = asked.getall("sort_key", ["created_at"])
    directions = asked.getall("sort_dir", ["desc"])
    directions += directions[-1:] * (len(keys) - len(directions))
    for key, direction in reversed(list(zip(keys, directions, strict=False))):
        if key not in SORTS or direction not in ("asc", "desc"):
            raise BadRequest(f"servers cannot be sorted by {key[:40]!r}, {direction[:10]!r}", field="sort_key")
        found = sorted(found, key=SORTS[key], reverse=direction == "desc")
    return found


def _after(marker: str | None, found: list[Instance]) -> int:
    if marker is None:
        return 0
    places = [place for place, each in enumerate(found, 1) if each.id == marker]
    if not places:
        raise BadRequest(f"marker [{marker}] not found", field="marker")
    return places[0]


def _next(ask: Ask, found: list[Instance], *, more: bool) -> Json:
    if not more:
        return {}
    again = ask.request.url.update_query(marker=found[-1].id)
    return {"servers_links": [{"rel": "next", "href": f"{ask.base}{again.relative()}"}]}
