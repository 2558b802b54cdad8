"""Messages that no role would send: spoilt ones, which no model accepts, and strange ones, which are well-formed.

Made from the messages' own schemas with a seeded source, so that a new message or field is spoilt, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from pydantic import ValidationError

from launcher.accounts import UserRole
from launcher.bus import decode
from launcher.errors import BadMessage
from launcher.messaging import Call, Context, Message

CTX = Context(
    request_id="req-1",
    project_id="p",
    user_id="u",
    role=UserRole.MEMBER,
    trace_id="0" * 31 + "1",
    span_id="0" * 15 + "2",
)
NASTY = (
    *("", " ", "-rf", "a\nb", "a,b", "a\x00b", "x" * 300, "../../etc/passwd", "ünï", "\u2028", "%s%n", "0.0.0.0/33"),
    *(
        "' OR 1=1 --",
        "$(reboot)",
        "\x1b[2J",
        "null",
        "nan",
        "\U0001f4a5",
        "web",
        "default",
        "node-1",
        "__init__",
        "1",
        "9" * 30,
        "9" * 5000,
    ),
)
FORMATS = {
    **{"ipv4": "10.0.0.77", "ipv4network": "10.0.0.0/8", "path": "/nowhere"},
    **{"ipv6": "fd00::77", "ipv6network": "fd00::/64"},
}
OTHERS: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**63, -(2**63) - 1, 10**40, 1e308, 0.5, float("nan"), float("inf")),
    *("", "x", "a\nb", "x" * 10_000, [], [[]], {}, {"": 0}, [1, "2", None], {"a": {"b": []}}),
)
LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Letter:
    """Bytes on their way to a topic's queue; `answered` ones want a reply."""

    method: str
    body: bytes
    answered: bool


class Forger:
    """Makes letters to a role out of the messages it answers."""

    def __init__(self, messages: Iterable[type[Message]], rng: Random) -> None:
        self.rng = rng
        self.messages = {message.method: message for message in messages}
        self.schemas = {method: message.model_json_schema() for method, message in self.messages.items()}

    def strange(self) -> Letter:
        """What the models accept and nobody means: unknown instances, odd names, numbers at their limits."""
        while True:
            method = self.rng.choice(list(self.messages))
            body = self._dumped(self._envelope(method))
            if self.readable(body):
                return Letter(method, body, issubclass(self.messages[method], Call))

    def spoilt(self) -> Letter:
        """What no model accepts."""
        while True:
            method = self.rng.choice(list(self.messages))
            body = self.rng.choice(self._spoilers)(method)
            if not self.readable(body):
                return Letter(method, body, self.rng.random() < 0.5)

    def readable(self, body: bytes) -> bool:
        """Whether a role might act on it, or drop it because its deadline has passed."""
        try:
            envelope = decode(body)
            if envelope.deadline_ms is not None:
                return True
            self.messages[envelope.method].model_validate(envelope.args)
        except (BadMessage, ValidationError, KeyError):
            return False
        return True

    @property
    def _spoilers(self) -> list[Callable[[str], bytes]]:
        return [self._noise, self._cut, self._flipped, self._changed, self._changed, self._changed, self._renamed]

    def _noise(self, method: str) -> bytes:
        return self.rng.randbytes(self.rng.choice((0, 1, 10, 300)))

    def _cut(self, method: str) -> bytes:
        whole = self._dumped(self._envelope(method))
        return whole[: self.rng.randrange(len(whole))]

    def _flipped(self, method: str) -> bytes:
        whole = bytearray(self._dumped(self._envelope(method)))
        for _ in range(self.rng.choice((1, 5))):
            whole[self.rng.randrange(len(whole))] ^= 1 << self.rng.randrange(8)
        return bytes(whole)

    def _renamed(self, method: str) -> bytes:
        return self._dumped(self._envelope(method) | {"method": self.rng.choice(NASTY)})

    def _changed(self, method: str) -> bytes:
        """One part somewhere is replaced, missing, or one too many."""
        envelope = self._envelope(method)
        place: Any = envelope
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = self.rng.choice(keys)
            if not (isinstance(place[key], dict | list) and place[key]) or self.rng.random() < 0.3:
                break
            place = place[key]
        match self.rng.randrange(4):
            case 0 if isinstance(place, dict):
                del place[key]
            case 1 if isinstance(place, dict):
                place[self.rng.choice(NASTY)] = place[key]
            case _:
                place[key] = self.rng.choice(OTHERS)
        return self._dumped(envelope)

    def _envelope(self, method: str) -> dict[str, Any]:
        schema = self.schemas[method]
        args = self._sample(schema, schema.get("$defs", {}))
        return {"method": method, "args": args, "context": CTX.model_dump(), "sent_ms": 0.0, "deadline_ms": None}

    @staticmethod
    def _dumped(envelope: object) -> bytes:
        return json.dumps(envelope).encode()

    # --- a value for a schema -------------------------------------------------------------------------

    def _sample(self, schema: dict[str, Any], defs: dict[str, Any]) -> Any:
        if "$ref" in schema:
            return self._sample(defs[schema["$ref"].rpartition("/")[2]], defs)
        if "anyOf" in schema:
            return self._sample(self.rng.choice(schema["anyOf"]), defs)
        if "enum" in schema or "const" in schema:
            return self.rng.choice(schema.get("enum") or [schema["const"]])
        kinds: dict[str, Callable[[], Any]] = {
            "object": lambda: self._object(schema, defs),
            "array": lambda: self._array(schema, defs),
            "string": lambda: self._string(schema),
            "integer": lambda: self._integer(schema),
            "number": lambda: self.rng.choice((0.0, -1.5, 1e308, 1e13)),
            "boolean": lambda: self.rng.random() < 0.5,
            "null": lambda: None,
        }
        return kinds[schema["type"]]()

    def _integer(self, schema: dict[str, Any]) -> int:
        """Where nothing else is said, also one that no column of a database holds."""
        low, high = int(schema.get("minimum", -LARGEST - 1)), int(schema.get("maximum", 10**30))
        return self.rng.choice((low, high, min(max(low, self.rng.randrange(100)), high)))

    def _array(self, schema: dict[str, Any], defs: dict[str, Any]) -> list[Any]:
        places = schema.get("prefixItems") or [schema["items"]] * self.rng.choice((0, 1, 1, 3))
        return [self._sample(place, defs) for place in places]

    def _object(self, schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
        if "properties" not in schema:
            values = schema.get("additionalProperties")
            return {self.rng.choice(NASTY): self._sample(values, defs)} if isinstance(values, dict) else {}
        needed = schema.get("required", ())
        return {
            name: self._sample(each, defs)
            for name, each in schema["properties"].items()
            if name in needed or self.rng.random() < 0.5
        }

    def _string(self, schema: dict[str, Any]) -> str:
        if schema.get("format") in FORMATS:
            return FORMATS[schema["format"]]
        pattern = schema.get("pattern")
        if pattern is None:
            return self.rng.choice(NASTY)
        digits = f"{self.rng.getrandbits(256):064x}"
        uuid = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"
        mac = ":".join(digits[at : at + 2] for at in range(0, 12, 2))
        known = (uuid, mac, digits, "web", "vdb", "br100", "novalocal", "10.0.0.0/8", "10.0.0.1", "fd00:1:2:3::/64")
        more = (f"sha256:{digits}", "/etc/motd", f"$6${digits}")
        return next(text for text in (*known, *more) if re.search(pattern, text))
