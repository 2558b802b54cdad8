"""Compute v2.1's key pairs. They are the project's, as everything is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from launcher.bus import Bus
from launcher.errors import NotFound
from launcher.messages.key_pairs import CreateKeyPair, DeleteKeyPair, ListKeyPairs
from launcher.models import KeyPair, Model, Name
from launcher.services.api.openstack import nova
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply
from launcher.services.api.openstack.versions import Refused, Version, shaped, since

TYPED = Version(2, 2)
"""From here on a pair has a type, and its creation and its end have statuses of their own."""
SHAPE = {"type": since(2)}


class KeyPairFields(Model):
    name: Name
    public_key: str | None = Field(default=None, min_length=1, max_length=16384)
    type: Annotated[Literal["ssh"], since(2)] = "ssh"
    user_id: Annotated[Any, since(10), Refused("key pairs are the project's")] = None


class KeyPairRequest(Model):
    """POST /os-keypairs."""

    keypair: KeyPairFields


class KeyPairs:
    """A part of Compute."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        every, one = "/v2.1/os-keypairs", "/v2.1/os-keypairs/{name}"
        paged = {"limit": since(35), "marker": since(35)}
        return [
            Operation("GET", every, self.list_key_pairs, aged=paged),
            Operation("POST", every, self.create_key_pair, body=KeyPairRequest),
            Operation("GET", one, self.get_key_pair),
            Operation("DELETE", one, self.delete_key_pair),
        ]

    async def list_key_pairs(self, ask: Ask) -> Reply:
        found = await self.bus.call(ask.ctx, ListKeyPairs())
        shown = nova.page(ask, [{"id": each.name, **_pair(ask, each)} for each in found])
        told = [{name: value for name, value in each.items() if name != "id"} for each in shown]
        return Reply({"keypairs": [{"keypair": each} for each in told]})

    async def create_key_pair(self, ask: Ask) -> Reply:
        given: KeyPairFields = ask.body.keypair
        made = await self.bus.call(ask.ctx, CreateKeyPair(name=given.name, public_key=given.public_key))
        secret = {"private_key": made.private_key} if made.private_key else {}
        body = {**_pair(ask, made.key_pair), "user_id": ask.ctx.user_id, **secret}
        return Reply({"keypair": body}, status=201 if ask.version >= TYPED else 200)

    async def get_key_pair(self, ask: Ask) -> Reply:
        pairs: list[KeyPair] = await self.bus.call(ask.ctx, ListKeyPairs())
        for number, each in enumerate(pairs, 1):
            if each.name == ask.path["name"]:
                times = {"created_at": nova.moment(each.created_ms), "updated_at": None, "deleted_at": None}
                whose = {"user_id": ask.ctx.user_id, "id": number, "deleted": False}
                return Reply({"keypair": {**_pair(ask, each), **whose, **times}})
        raise NotFound(f"Keypair {ask.path['name']} not found for user {ask.ctx.user_id}")

    async def delete_key_pair(self, ask: Ask) -> Reply:
        await self.bus.call(ask.ctx, DeleteKeyPair(name=ask.path["name"]))
        return Reply(status=204 if ask.version >= TYPED else 202)


def _pair(ask: Ask, pair: KeyPair) -> Json:
    whole = {"name": pair.name, "public_key": pair.public_key, "fingerprint": pair.fingerprint, "type": "ssh"}
    return shaped(SHAPE, ask.version, whole)
