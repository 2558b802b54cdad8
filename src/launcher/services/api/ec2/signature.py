"""What a request was signed for: the string that the controller verifies, and when it was signed.

Version 4 signs method, path, query, headers and body; version 2 the parameters, the host and the path. Both are AWS's,
as its General Reference describes them. The secret is not here: the controller has it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import quote, unquote

from launcher.services.api.ec2.refusals import Refusal, missing

SKEW = 300.0
"""Seconds that a client's clock may be wrong, and so for how long a signed request is good."""
LONGEST = 7 * 24 * 3600.0
"""Seconds that a request may be signed in advance for."""
ALGORITHM = "AWS4-HMAC-SHA256"
SCOPE = re.compile(r"[\x21-\x2e\x30-\x7e]{1,128}/[0-9]{8}/[A-Za-z0-9._-]{1,64}/([A-Za-z0-9._-]{1,64})/aws4_request")
HEADER = re.compile(rf"{ALGORITHM}\s+Credential=([^,\s]+),\s*SignedHeaders=([^,\s]+),\s*Signature=([0-9a-f]{{64}})")
UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|\+00:00)?")
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Received:
    """A request as it came. `path` and `query` are as the client wrote them, header names in lower case."""

    method: str
    path: str
    query: str
    headers: Pairs
    body: bytes

    def header(self, name: str) -> str | None:
        """Several of one name are joined, as they are signed."""
        found = [" ".join(value.split()) for key, value in self.headers if key == name]
        return ",".join(found) if found else None

    def without_port(self) -> Received:
        """As clients sign it that know one port for each scheme."""
        headers = [(key, value.partition(":")[0] if key == "host" else value) for key, value in self.headers]
        return replace(self, headers=headers)


@dataclass(frozen=True)
class Signed:
    """What is to be verified: either string. It is good from `begins` to `ends`, in seconds since the epoch."""

    version: Literal[2, 4]
    access_key: str
    string_to_sign: str
    signature: str
    begins: float
    ends: float
    or_string: str | None = None
    service: str = "ec2"

    def check_time(self, now: float) -> None:
        if not self.begins - SKEW <= now <= self.ends:
            raise Refusal(
                "RequestExpired",
                f"Request has expired. It is good from {_written(self.begins)} to {_written(self.ends)}, "
                f"and it is {_written(now)} here.",
            )


def read(received: Received, parameters: Pairs) -> Signed:
    """`parameters` are the operation's, with what version 2 puts among them. Raises Refusal."""
    signed = _read(received, parameters)
    if ":" not in (received.header("host") or ""):
        return signed
    return replace(signed, or_string=_read(received.without_port(), parameters).string_to_sign)


def _read(received: Received, parameters: Pairs) -> Signed:
    named = dict(parameters)
    if (header := received.header("authorization")) is not None:
        return _version_4(received, header)
    if "X-Amz-Signature" in named:
        return _version_4_in_query(received, named)
    if "Signature" in named or "AWSAccessKeyId" in named:
        return _version_2(received, parameters, named)
    raise Refusal("MissingAuthenticationToken", "Request is missing Authentication Token")


# --- version 4 -------------------------------------------------------------------------------------


def _version_4(received: Received, header: str) -> Signed:
    match = HEADER.fullmatch(header.strip())
    if match is None or not _is_for_ec2(received, match[1]):
        raise Refusal("IncompleteSignature", f"Authorization is no {ALGORITHM} header with a scope of ec2")
    credential, signed_headers, signature = match.groups()
    stamp = received.header("x-amz-date")
    date = received.header("date")
    if stamp is None and date is None:
        raise Refusal("IncompleteSignature", "Authorization needs an X-Amz-Date header")
    moment = _basic(stamp) if stamp is not None else _http_date(date or "")
    needed = {"host", "date" if stamp is None else "x-amz-date"}
    text = canonical(received, signed_headers, needed=needed, query=received.query)
    return _signed(credential, moment, text, signature, ends=moment.timestamp() + SKEW)


def _version_4_in_query(received: Received, named: Mapping[str, str]) -> Signed:
    algorithm, credential = named.get("X-Amz-Algorithm"), named.get("X-Amz-Credential", "")
    if algorithm != ALGORITHM or not _is_for_ec2(received, credential):
        raise Refusal("IncompleteSignature", f"X-Amz-Credential is no {ALGORITHM} credential with a scope of ec2")
    seconds = named.get("X-Amz-Expires", "")
    if not re.fullmatch(r"[0-9]{1,6}", seconds) or not 0 < int(seconds) <= LONGEST:
        raise Refusal("IncompleteSignature", f"X-Amz-Expires is a number of seconds up to {LONGEST:.0f}")
    moment = _basic(named.get("X-Amz-Date", ""))
    unsigned = "&".join(part for part in received.query.split("&") if not part.startswith("X-Amz-Signature="))
    text = canonical(received, named.get("X-Amz-SignedHeaders", ""), needed={"host"}, query=unsigned)
    ends = moment.timestamp() + int(seconds)
    return _signed(credential, moment, text, named["X-Amz-Signature"], ends=ends)


def _is_for_ec2(received: Received, credential: str) -> bool:
    """boto 2, and so euca2ools, has service and region from the host's name: those of 127.0.0.1 are `127` and `0`."""
    scope = SCOPE.fullmatch(credential)
    host = (received.header("host") or "").partition(":")[0]
    return scope is not None and scope[1] in ("ec2", host.partition(".")[0])


def canonical(received: Received, signed_headers: str, *, needed: set[str], query: str) -> str:
    """The canonical request. What changes a request's meaning must be among its signed headers."""
    names = signed_headers.split(";")
    if not needed <= set(names) or names != sorted(set(names)):
        raise Refusal("IncompleteSignature", f"SignedHeaders must be sorted and have {' and '.join(sorted(needed))}")
    values = [(name, received.header(name)) for name in names]
    if absent := [name for name, value in values if value is None]:
        raise Refusal("IncompleteSignature", f"the request has no header {', '.join(absent)}")
    lines = "".join(f"{name}:{value}\n" for name, value in values)
    path = quote(normal_path(received.path), safe="/~")
    payload = hashlib.sha256(received.body).hexdigest()
    return "\n".join((received.method, path, canonical_query(query), lines, signed_headers, payload))


def canonical_query(query: str) -> str:
    """Sorted by name, then by value, of the escaped text."""
    pairs = [part.partition("=")[::2] for part in query.split("&") if part]
    return "&".join("=".join(pair) for pair in sorted((escaped(unquote(n)), escaped(unquote(v))) for n, v in pairs))


def normal_path(path: str) -> str:
    """RFC 3986, section 5.2.4, without empty segments."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    slash = "/" if kept and path.endswith("/") else ""
    return f"/{'/'.join(kept)}{slash}"


def escaped(text: str) -> str:
    return quote(text, safe="-_.~")


def _signed(credential: str, moment: datetime, text: str, signature: str, *, ends: float) -> Signed:
    access_key, scope = credential.split("/", 1)
    stamp = moment.strftime("%Y%m%dT%H%M%SZ")
    if not stamp.startswith(scope[:8]):
        raise Refusal("IncompleteSignature", "the scope is of another day than the date")
    digest = hashlib.sha256(text.encode()).hexdigest()
    begins = moment.timestamp()
    text_to_sign, service = "\n".join((ALGORITHM, stamp, scope, digest)), scope.split("/")[2]
    return Signed(4, access_key, text_to_sign, signature, begins, ends, service=service)


# --- version 2 -------------------------------------------------------------------------------------


def _version_2(received: Received, parameters: Pairs, named: Mapping[str, str]) -> Signed:
    for name in ("AWSAccessKeyId", "Signature", "SignatureVersion", "SignatureMethod"):
        if not named.get(name):
            raise missing(name)
    if (named["SignatureVersion"], named["SignatureMethod"]) != ("2", "HmacSHA256"):
        raise Refusal("InvalidParameterValue", "SignatureVersion 2 with SignatureMethod HmacSHA256 is understood")
    if ("Timestamp" in named) == ("Expires" in named):
        raise Refusal("InvalidParameterCombination", "A request has either Timestamp or Expires")
    moment = _extended(named.get("Timestamp") or named["Expires"])
    begins, ends = moment.timestamp(), moment.timestamp() + SKEW
    if "Expires" in named:
        begins, ends = begins - LONGEST, begins
    host = (received.header("host") or "").lower()
    query = "&".join(f"{escaped(name)}={escaped(value)}" for name, value in sorted(parameters) if name != "Signature")
    text = "\n".join((received.method, host, received.path or "/", query))
    return Signed(2, named["AWSAccessKeyId"], text, named["Signature"], begins, ends)


# --- times -----------------------------------------------------------------------------------------


def _basic(text: str) -> datetime:
    try:
        if not re.fullmatch(r"\d{8}T\d{6}Z", text):
            raise ValueError(text)
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise Refusal("IncompleteSignature", "X-Amz-Date is written 20301231T235959Z") from None


def _extended(text: str) -> datetime:
    try:
        if not UTC_TIME.fullmatch(text):
            raise ValueError(text)
        return datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise Refusal("InvalidParameterValue", "Timestamp and Expires are written 2030-12-31T23:59:59Z") from None


def _http_date(text: str) -> datetime:
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        raise Refusal("IncompleteSignature", "Date is no date of HTTP") from None


def _written(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "out of time"
