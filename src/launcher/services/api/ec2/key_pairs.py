"""Key pairs: made, imported, described, deleted."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from launcher.errors import BadRequest, Conflict, NotFound, QuotaExceeded
from launcher.messages import key_pairs as messages
from launcher.messages.tags import RemoveTags, SetTags
from launcher.models import CreatedKeyPair, KeyPair
from launcher.services.api.ec2 import finding, ids, tags
from launcher.services.api.ec2.operation import TAG_FILTERS, Ask, Described, Listing, Operation, plain
from launcher.services.api.ec2.query import Request
from launcher.services.api.ec2.refusals import Names, Refusal, bad_value
from launcher.services.api.ec2.shapes import TagSet, moment, tag_set
from launcher.services.api.ec2.tagged import key_target
from launcher.services.api.ec2.tags import TagSpecification
from launcher.services.api.ec2.xml import Done, Moment
from launcher.tagging import Tagged, Target

KINDS = {"ssh-rsa": "rsa", "ssh-ed25519": "ed25519"}
"""What EC2 has; other ones were imported by other ways."""
KeyName = Annotated[str, Field(min_length=1, max_length=255)]


class CreateKeyPair(Request):
    """Make a key pair; its private half is told this once."""

    key_name: KeyName
    key_type: Literal["rsa", "ed25519"] = "rsa"
    key_format: Literal["pem"] = "pem"
    tag_specification: tuple[TagSpecification, ...] = ()


class ImportKeyPair(Request):
    """Take a public key of one's own."""

    key_name: KeyName
    public_key_material: Annotated[str, Field(description="base64 of a line in OpenSSH's format, RSA or ed25519")]
    tag_specification: tuple[TagSpecification, ...] = ()


class DescribeKeyPairs(Described):
    """Key pairs by name."""

    key_name: tuple[str, ...] = ()
    key_pair_id: tuple[str, ...] = ()
    include_public_key: bool = False


class DeleteKeyPair(Request):
    """Delete a key pair. None of that name is success."""

    key_name: str | None = None
    key_pair_id: str | None = None


class Made(NamedTuple):
    key_name: str
    key_fingerprint: str
    key_material: str | None
    key_pair_id: str
    tag_set: TagSet


class Imported(NamedTuple):
    key_name: str
    key_fingerprint: str
    key_pair_id: str
    tag_set: TagSet


class Key(NamedTuple):
    key_pair_id: str
    key_name: str
    key_fingerprint: str
    key_type: str
    create_time: Moment
    public_key: str | None
    tag_set: TagSet


class Keys(NamedTuple):
    key_set: tuple[Key, ...]


async def create_key_pair(ask: Ask, request: CreateKeyPair) -> Made:
    made, noted = await _make(ask, request, public_key=None, kind=request.key_type)
    pair = made.key_pair
    return Made(pair.name, pair.ec2_fingerprint, made.private_key, _id(ask, pair), tag_set(noted))


async def import_key_pair(ask: Ask, request: ImportKeyPair) -> Imported:
    try:
        line = base64.b64decode(request.public_key_material, validate=False).decode("ascii")
    except (binascii.Error, ValueError):
        line = ""
    if line.split(None, 1)[:1] not in ([kind] for kind in KINDS):
        raise Refusal("InvalidKeyPair.Format", "Key is not in valid OpenSSH public key format")
    made, noted = await _make(ask, request, public_key=line, kind="rsa")
    pair = made.key_pair
    return Imported(pair.name, pair.ec2_fingerprint, _id(ask, pair), tag_set(noted))


async def _make(
    ask: Ask, request: CreateKeyPair | ImportKeyPair, *, public_key: str | None, kind: Literal["rsa", "ed25519"]
) -> tuple[CreatedKeyPair, dict[str, str]]:
    if not finding.is_name(request.key_name):
        raise bad_value("KeyName", request.key_name, "Letters, digits, spaces and ._:@- are understood.")
    noted = tags.specified(request.tag_specification, "key-pair")
    made = await ask.change(messages.CreateKeyPair(name=request.key_name, public_key=public_key, type=kind))
    if noted:
        await ask.change(SetTags(targets=(_target(made.key_pair),), tags=noted))
    return made, noted


async def find_key_pairs(ask: Ask, request: Any) -> Sequence[Key]:
    noted = await tags.of(ask, Tagged.KEY_PAIR)
    found = [
        Key(
            key_pair_id=_id(ask, pair),
            key_name=pair.name,
            key_fingerprint=pair.ec2_fingerprint,
            key_type=KINDS.get(pair.type, pair.type),
            create_time=moment(pair.created_ms),
            public_key=pair.public_key if request.include_public_key else None,
            tag_set=tag_set(noted.get(key_target(pair), {})),
        )
        for pair in await ask.look(messages.ListKeyPairs())
    ]
    for wanted, field, what in (
        (request.key_name, "key_name", "pair"),
        (request.key_pair_id, "key_pair_id", "pair ID"),
    ):
        unknown = [each for each in wanted if each not in {getattr(key, field) for key in found}]
        if unknown:
            raise Refusal("InvalidKeyPair.NotFound", f"The key {what} '{unknown[0]}' does not exist")
    named = {*request.key_name, *request.key_pair_id}
    return [key for key in found if not named or key.key_name in named or key.key_pair_id in named]


async def delete_key_pair(ask: Ask, request: DeleteKeyPair) -> Done:
    if (request.key_name is None) == (request.key_pair_id is None):
        raise Refusal("MissingParameter", "The request must contain either KeyName or KeyPairId")
    known = await ask.look(messages.ListKeyPairs())
    for pair in known:
        if request.key_name == pair.name or request.key_pair_id == _id(ask, pair):
            await ask.change(messages.DeleteKeyPair(name=pair.name))
            await ask.change(RemoveTags(targets=(_target(pair),)))
    return Done()


def _id(ask: Ask, pair: KeyPair) -> str:
    return ids.of_key(ask.ctx.project_id, pair.name, pair.created_ms)


def _target(pair: KeyPair) -> Target:
    return Target(kind=Tagged.KEY_PAIR, id=key_target(pair))


NAMES: Names = {
    Conflict: "InvalidKeyPair.Duplicate",
    QuotaExceeded: "KeyPairLimitExceeded",
    (BadRequest, "public_key"): "InvalidKeyPair.Format",
    (QuotaExceeded, "tags"): "TagLimitExceeded",
}
OPERATIONS = (
    Operation(CreateKeyPair, Made, create_key_pair, NAMES),
    Operation(ImportKeyPair, Imported, import_key_pair, NAMES),
    Listing(
        DescribeKeyPairs,
        Keys,
        find_key_pairs,
        {**plain(["key_name", "key_pair_id"]), "fingerprint": "key_fingerprint", **TAG_FILTERS},
        ("key_name",),
    ).operation(),
    Operation(DeleteKeyPair, Done, delete_key_pair, {NotFound: "InvalidKeyPair.NotFound"}),
)
