"""EC2's real clients, pointed at a house or at a server."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import boto3
from botocore.auth import SigV2Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

REGION = "RegionOne"
MODERN = "2016-11-15"


def client(url: str, access_key: str, secret_key: str, service: str = "ec2") -> Any:
    """boto3's, which asks once: a test that needs a retry hides something."""
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(retries={"total_max_attempts": 1}),
    )


def code(ask: Any, **parameters: Any) -> str:
    """What a refused request is refused with."""
    try:
        answered = ask(**parameters)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    raise AssertionError(f"{parameters} was not refused: {answered}")


def signed(
    url: str,
    credentials: tuple[str, str],
    parameters: dict[str, str],
    *,
    version: int = 4,
    method: str = "POST",
) -> AWSRequest:
    """Any request at all, as a client would sign it, prepared to be sent."""
    keys = Credentials(*credentials)
    everything = {"Version": MODERN, **parameters}
    if version == 2:
        target = {"params": everything} if method == "GET" else {"data": everything}
        request = AWSRequest(method=method, url=url, **target)
        SigV2Auth(keys).add_auth(request)
        if method == "POST":
            request.data = urlencode(request.data)
            request.headers["Content-Type"] = "application/x-www-form-urlencoded"
        return request.prepare()
    if method == "GET":
        request = AWSRequest(method=method, url=f"{url}?{urlencode(everything)}")
    else:
        request = AWSRequest(method=method, url=url, data=urlencode(everything))
        request.headers["Content-Type"] = "application/x-www-form-urlencoded"
    SigV4Auth(keys, "ec2", "127.0").add_auth(request)
    return request.prepare()


MASKS = (
    (re.compile(r"(?<=<requestId>)[^<]+"), "REQUEST"),
    (re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ"), "2030-12-31T23:59:59.000Z"),
    (re.compile(r"\br-[a-z0-9]{8}\b"), "r-reserved"),
    (re.compile(r"\b02:16:3e(:[0-9a-f]{2}){3}"), "02:16:3e:00:00:00"),
    (re.compile(r"\b(eni|eni-attach)-[0-9a-f]{17}"), r"\1-00000000000000000"),
    (re.compile(r"(?<=<imageId>)ami-(?!0000)[0-9a-f]{8}(?=<)"), "ami-ffffffff"),
    (re.compile(r"\bkey-[0-9a-f]{17}"), "key-00000000000000000"),
    (re.compile(r"(?<=<keyFingerprint>)([0-9a-f]{2}:){19}[0-9a-f]{2}(?=<)"), "SHA-1"),
    (re.compile(r"(?<=<keyMaterial>)[^<]+"), "PEM"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:8774"),
)
"""What is another one at every run."""


def masked(xml: str) -> str:
    """One element a line, without what changes from run to run."""
    for pattern, constant in MASKS:
        xml = pattern.sub(constant, xml)
    lines: list[str] = []
    depth = 0
    for leaf, tag in re.findall(r"(<(?:\w+)>[^<]*</\w+>)|(<[^>]+>)", xml.replace("\n", "")):
        depth -= tag.startswith("</")
        lines.append("  " * depth + (leaf or tag))
        depth += bool(tag) and not tag.startswith(("</", "<?")) and not tag.endswith("/>")
    return "\n".join(lines) + "\n"
