"""Errors in EC2's words: a code that clients ask for by name, a message, an HTTP status."""

from __future__ import annotations

from collections.abc import Mapping

from launcher.errors import (
    BadRequest,
    BusError,
    Conflict,
    Forbidden,
    InsufficientSpace,
    LauncherError,
    NoMoreFixedIps,
    NoMoreFloatingIps,
    NotFound,
    NoValidHost,
    QuotaExceeded,
    StoreUnavailable,
    Unauthorized,
)

STATUS = {
    "AuthFailure": 401,
    "UnauthorizedOperation": 403,
    "DryRunOperation": 412,
    "InternalError": 500,
    "InsufficientInstanceCapacity": 500,
    "Unavailable": 503,
}
"""Of the codes that are not answered with 400."""

USUAL: Mapping[type[LauncherError], str] = {
    Unauthorized: "AuthFailure",
    QuotaExceeded: "ResourceCountExceeded",
    Forbidden: "UnauthorizedOperation",
    BadRequest: "InvalidParameterValue",
    NotFound: "InvalidParameterValue",
    Conflict: "IncorrectState",
    NoValidHost: "InsufficientInstanceCapacity",
    NoMoreFixedIps: "InsufficientFreeAddressesInSubnet",
    NoMoreFloatingIps: "InsufficientAddressCapacity",
    InsufficientSpace: "InsufficientInstanceCapacity",
    StoreUnavailable: "Unavailable",
    BusError: "Unavailable",
}
"""What an error is called where an operation has no name of its own for it; the nearest class counts."""

Names = Mapping[type[LauncherError] | tuple[type[LauncherError], str], str]
"""EC2's code for an error, or for an error about one field."""


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message

    @property
    def status(self) -> int:
        return STATUS.get(self.code, 400)


def bad_value(name: str, value: object, why: str = "") -> Refusal:
    return Refusal("InvalidParameterValue", f"Invalid value '{value}' for {name}." + (f" {why}" if why else ""))


def missing(name: str) -> Refusal:
    return Refusal("MissingParameter", f"The request must contain the parameter {name}")


def translated(error: LauncherError, names: Names) -> Refusal:
    """By the operation's own names for the error and its field, then for the error, then by the usual ones."""
    code = next((found for kind in type(error).__mro__ if (found := _name(kind, error.field, names))), None)
    if code is None:
        return Refusal("InternalError", "An internal error has occurred")
    if code == "AuthFailure":
        return Refusal(code, "AWS was not able to validate the provided access credentials")
    return Refusal(code, f"{error.message}. {error.hint[:1].upper()}{error.hint[1:]}." if error.hint else error.message)


def _name(kind: type, field: str, names: Names) -> str | None:
    return names.get((kind, field)) or names.get(kind) or USUAL.get(kind)
