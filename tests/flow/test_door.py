"""Who may come in, how fast, over what: TLS, silent and greedy clients, rates."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from launcher.config import load
from launcher.errors import BadRequest
from launcher.services.api.door import DoorRules
from tests.flow.house import House
from tests.serving import Server


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "launcher")]),
    )
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = directory / "certificate.pem", directory / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate_path, key_path


async def test_the_command_line_speaks_tls_with_a_self_signed_certificate(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    settings = ["virt.driver=fake", f"api.tls_certificate={certificate}", f"api.tls_key={key}"]
    server = Server(tmp_path / "state", [*settings, f"api.tls_authority={certificate}"])
    async with server.running():
        assert server.admin["url"].startswith("https://127.0.0.1:")
        assert "m1.tiny" in await server.cli("flavor", "list")
        assert f"export OS_CACERT={certificate}" in await server.cli("env")
        port = int(server.admin["url"].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            assert b"HTTP/1.1 200" not in await reader.read()
        writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["api.listen=0.0.0.0:8774"], "not loopback"),
        (["api.listen=192.0.2.1:8774"], "plain_http"),
        (["api.listen=box.example:8774"], "not loopback"),
        (["api.tls_key=/key.pem"], "go together"),
        (["api.url=ftp://x"], "api.url"),
    ],
)
def test_secrets_do_not_cross_the_network_in_plain_words(settings: list[str], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        load(None, settings)


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        (["api.listen=127.0.0.2:80"], "http://127.0.0.2:80"),
        (["api.listen=0.0.0.0:80", "api.plain_http=true"], "http://127.0.0.1:80"),
        (["api.listen=0.0.0.0:80", "api.tls_certificate=c", "api.tls_key=k"], "https://127.0.0.1:80"),
        (["api.url=https://cloud.example"], "https://cloud.example"),
    ],
)
def test_clients_are_told_where_it_is(settings: list[str], url: str) -> None:
    api = load(None, settings).api
    host, _, port = api.listen.rpartition(":")
    assert api.url_at(host, int(port)) == url


async def test_a_key_that_is_not_the_certificates_is_named(tmp_path: Path) -> None:
    certificate, _ = self_signed(tmp_path)
    settings = ["virt.driver=fake", f"api.tls_certificate={certificate}", f"api.tls_key={certificate}"]
    server = Server(tmp_path / "state", settings)
    await server.spawn()
    assert server.process
    assert await server.process.wait() == 1
    assert "tls_key" in server.said


async def test_who_opens_a_connection_and_says_little_is_cut(tmp_path: Path) -> None:
    async with House(tmp_path, door=DoorRules(head=0.2)).open() as house:
        port = int(house.url.rpartition(":")[2])
        ends = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        ends[1][1].write(b"GET /healthz HTTP/1.1\r\nHos")
        ends[2][1].write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            for reader, _ in ends[:2]:
                assert await reader.read() == b""
            assert (await ends[2][0].readline()).startswith(b"HTTP/1.1 200")
        async with house.http.get("/healthz") as response:
            assert response.status == 200
        for _, writer in ends:
            writer.close()


async def test_one_connection_too_many_is_shut_at_once(tmp_path: Path) -> None:
    async with House(tmp_path, door=DoorRules(connections=2)).open() as house:
        port = int(house.url.rpartition(":")[2])
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        for each in (writer, *(writer for _, writer in held)):
            each.close()


async def test_a_credential_that_asks_too_often_waits_and_others_do_not(tmp_path: Path) -> None:
    async with House(tmp_path, rate_per_second=5.0).open() as house:
        other = (await house.ask("POST", "/credentials", {"kind": "token"}, status=201))["secret"]
        seen = []
        for _ in range(8):
            async with house.http.get("/flavors") as response:
                seen.append((response.status, response.headers.get("Retry-After")))
        assert (200, None) in seen
        assert seen[-1] == (429, "1")
        await house.ask("GET", "/flavors", status=200, headers={"Authorization": f"Bearer {other}"})
