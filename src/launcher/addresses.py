"""Addresses as users write them: text of one exact form each, which the API's description can state.

`ipaddress` alone takes 5 and true for addresses, too. Bits of a network beyond its prefix are cleared, as EC2 does.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_ADDRESS = rf"{_OCTET}(\.{_OCTET}){{3}}"


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else str(value)


def _masked(value: Any) -> str:
    return str(IPv4Network(_text(value), strict=False))


def _described(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "examples": list(examples)})


AddressText = Annotated[IPv4Address, BeforeValidator(_text), _described(_ADDRESS, "10.0.0.1")]
CidrText = Annotated[
    IPv4Network, BeforeValidator(_masked), _described(rf"{_ADDRESS}(/(3[0-2]|[12]?[0-9]))?", "10.0.0.0/8")
]
PrefixText = Annotated[
    IPv6Network,
    BeforeValidator(_text),
    _described(r"[1-9a-f][0-9a-f]{0,3}(:[1-9a-f][0-9a-f]{0,3}){3}::/64", "fd00:1:2:3::/64"),
]
"""A /64."""
