"""What was signed, as botocore signs it: its signature over our string, and ours over its request, are the same."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit

import pytest
from botocore.auth import SigV2Auth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.services.api.ec2 import query, signature
from launcher.services.api.ec2.refusals import Refusal
from launcher.services.api.ec2.signature import Received, Signed

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SIGNERS = {"header": SigV4Auth, "query": SigV4QueryAuth}
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)

PARAMETERS = st.dictionaries(TEXTS.map(lambda text: f"P{text}"), TEXTS, max_size=5)


def sent(request: AWSRequest) -> Received:
    """The request as the wire has it."""
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    headers = [
        (name.lower(), value if isinstance(value, str) else value.decode()) for name, value in prepared.headers.items()
    ]
    body = prepared.body or b""
    return Received(
        method=prepared.method,
        path=parts.path,
        query=parts.query,
        headers=[("host", parts.netloc), *((name, value) for name, value in headers if name != "host")],
        body=body if isinstance(body, bytes) else body.encode(),
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def read(received: Received) -> Signed:
    text = received.query or received.body.decode()
    return signature.read(received, query.pairs(text))


def sign_4(signed: Signed) -> str:
    """As the controller will."""
    key = f"AWS4{SECRET}".encode()
    _, _, scope, _ = signed.string_to_sign.split("\n")
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, signed.string_to_sign.encode(), hashlib.sha256).hexdigest()


def sign_2(signed: Signed) -> str:
    return b64encode(hmac.new(SECRET.encode(), signed.string_to_sign.encode(), hashlib.sha256).digest()).decode()


@given(
    st.dictionaries(TEXTS.map(lambda text: f"P{text}"), TEXTS, max_size=5),
    st.sampled_from(["/", "/services/Cloud", "/a//b/../c d/"]),
)
@pytest.mark.parametrize("how", list(SIGNERS))
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_version_4_is_read_as_botocore_writes_it(how: str, method: str, parameters: dict[str, str], path: str) -> None:
    url, form = f"http://127.0.0.1:8774{path.replace(' ', '%20')}", urlencode(parameters)
    if method == "GET" or how == "query":
        quoted = "&".join(f"{signature.escaped(name)}={signature.escaped(value)}" for name, value in parameters.items())
        request = AWSRequest(method=method, url=f"{url}?{quoted}" if quoted else url)
    else:
        request = AWSRequest(
            method=method, url=url, data=form, headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
    SIGNERS[how](Credentials(KEY, SECRET), "ec2", "127.0").add_auth(request)
    signed = read(sent(request))
    assert (signed.version, signed.access_key, signed.signature) == (4, KEY, sign_4(signed))
    signed.check_time(datetime.now(UTC).timestamp())


@settings(max_examples=25)
@given(PARAMETERS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_version_2_is_read_as_botocore_writes_it(method: str, parameters: dict[str, str]) -> None:
    target = {"params": parameters} if method == "GET" else {"data": parameters}
    request = AWSRequest(method=method, url="http://127.0.0.1:8774/services/Cloud", **target)
    SigV2Auth(Credentials(KEY, SECRET)).add_auth(request)
    signed = read(sent(request))
    assert (signed.version, signed.access_key, signed.signature) == (2, KEY, sign_2(signed))
    signed.check_time(datetime.now(UTC).timestamp())


def authorized(**changes: str) -> Received:
    """A request signed at 2026-01-02T03:04:05Z, in parts that a test may change."""
    said = {
        "Credential": f"{KEY}/20260102/us-east-1/ec2/aws4_request",
        "SignedHeaders": "host;x-amz-date",
        "Signature": "0" * 64,
        "date": "20260102T030405Z",
        **changes,
    }
    header = ", ".join(f"{name}={said[name]}" for name in ("Credential", "SignedHeaders", "Signature"))
    headers = [("host", "box"), ("x-amz-date", said["date"]), ("authorization", f"AWS4-HMAC-SHA256 {header}")]
    return Received("POST", "/", "", headers, b"Action=DescribeRegions")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"SignedHeaders": "x-amz-date"}, "IncompleteSignature"),
        ({"SignedHeaders": "host"}, "IncompleteSignature"),
        ({"SignedHeaders": "x-amz-date;host"}, "IncompleteSignature"),
        ({"SignedHeaders": "accept;host;x-amz-date"}, "IncompleteSignature"),
        ({"Credential": KEY}, "IncompleteSignature"),
        ({"Credential": f"{KEY}/20260102/us-east-1/s3/aws4_request"}, "IncompleteSignature"),
        ({"Credential": f"{KEY}/20260103/us-east-1/ec2/aws4_request"}, "IncompleteSignature"),
        ({"date": "20260102T256199Z"}, "IncompleteSignature"),
        ({"Signature": "0"}, "IncompleteSignature"),
    ],
)
def test_what_is_no_signature_of_version_4_is_refused(changes: dict[str, str], code: str) -> None:
    with pytest.raises(Refusal) as refused:
        read(authorized(**changes))
    assert refused.value.code == code


def test_boto_2_takes_the_service_from_the_hosts_name() -> None:
    assert read(authorized(Credential=f"{KEY}/20260102/box/box/aws4_request")).service == "box"


def test_a_signature_is_good_for_five_minutes() -> None:
    signed, moment = read(authorized()), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    for seconds in (-300, 0, 300):
        signed.check_time(moment + seconds)
    for seconds in (-301, 301):
        with pytest.raises(Refusal, match="RequestExpired"):
            signed.check_time(moment + seconds)


def test_what_is_no_signature_of_version_2_is_refused() -> None:
    good = {
        "AWSAccessKeyId": KEY,
        "Signature": "x",
        "SignatureVersion": "2",
        "SignatureMethod": "HmacSHA256",
        "Timestamp": "2026-01-02T03:04:05.000Z",
    }

    def code(**changes: str | None) -> str:
        form = {name: value for name, value in {**good, **changes}.items() if value is not None}
        with pytest.raises(Refusal) as refused:
            read(Received("POST", "/", "", [("host", "box")], urlencode(form).encode()))
        return refused.value.code

    assert read(Received("POST", "/", "", [("host", "box")], urlencode(good).encode())).begins == 1767323045
    assert code(SignatureMethod="HmacSHA1") == code(SignatureVersion="1") == "InvalidParameterValue"
    assert code(Timestamp="yesterday") == "InvalidParameterValue"
    assert code(Timestamp=None) == code(Expires="2026-01-02T03:04:05Z") == "InvalidParameterCombination"
    assert code(AWSAccessKeyId=None) == code(Signature="") == "MissingParameter"
    assert code(AWSAccessKeyId=None, Signature=None) == "MissingAuthenticationToken"
