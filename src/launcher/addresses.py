"""Addresses as users write them: text of one exact form each, which the API's description can state.

`ipaddress` alone takes 5 and true for addresses, too. Bits of a network beyond its prefix are cleared, as EC2 does.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_ADDRESS = rf"{_OCTET}(\.{_OCTET}){{3}}"
_WORD = r"[0-9a-fA-F]{1,4}"
_ADDRESS6 = "|".join(
    [
        rf"({_WORD}:){{7}}{_WORD}",
        rf"({_WORD}:){{1,7}}:",
        *(rf"({_WORD}:){{1,{before}}}(:{_WORD}){{1,{7 - before}}}" for before in range(1, 7)),
        rf":((:{_WORD}){{1,7}}|:)",
    ]
)
_ANY_ADDRESS = rf"({_ADDRESS}|{_ADDRESS6})"
_ANY_CIDR = rf"({_ADDRESS}(/(3[0-2]|[12]?[0-9]))?|({_ADDRESS6})(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?)"


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else str(value)


def _masked(value: Any) -> str:
    return str(IPv4Network(_text(value), strict=False))


def _masked_of_any(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(_ANY_CIDR, text):
        raise ValueError("is no range of IPv4 or IPv6 addresses, as 10.0.0.0/8")
    return str(ip_network(text, strict=False))


def _of_any(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(_ANY_ADDRESS, text):
        raise ValueError("is no address of IPv4 or IPv6, as 10.0.0.1")
    return str(ip_address(text))


def _described(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "examples": list(examples)})


AddressText = Annotated[IPv4Address, BeforeValidator(_text), _described(_ADDRESS, "10.0.0.1")]
CidrText = Annotated[
    IPv4Network, BeforeValidator(_masked), _described(rf"{_ADDRESS}(/(3[0-2]|[12]?[0-9]))?", "10.0.0.0/8")
]
AnyAddressText = Annotated[
    IPv4Address | IPv6Address, BeforeValidator(_of_any), _described(_ANY_ADDRESS, "10.0.0.1", "fd00::1")
]
"""Of IPv4 or of IPv6."""
AnyCidrText = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(_masked_of_any),
    _described(_ANY_CIDR, "10.0.0.0/8", "fd00::/8"),
]
"""Of IPv4 or of IPv6."""
PrefixText = Annotated[
    IPv6Network,
    BeforeValidator(_text),
    _described(r"[1-9a-f][0-9a-f]{0,3}(:[1-9a-f][0-9a-f]{0,3}){3}::/64", "fd00:1:2:3::/64"),
]
"""A /64."""
