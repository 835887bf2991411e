"""https: ALPN decides between HTTP/2 and HTTP/1.1, certificates are checked."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from holdfast_runtime.adapters.http_endpoint import HttpEndpoint
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointRequest, HttpAddress, HttpVersion
from tests.adapters.h2_server import h2_server
from tests.adapters.loops import event_loop_policy  # noqa: F401
from tests.adapters.raw_server import Peer, raw_server
from tests.adapters.test_http2 import echo

REQUEST = EndpointRequest("POST", "/invoke/Demo/echo", {"content-type": "x/y"}, b"frames")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key; it is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return path


def server_tls(certificate: Path, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@pytest.fixture
async def endpoint(certificate: Path) -> AsyncIterator[HttpEndpoint]:
    endpoint = HttpEndpoint(tls=lambda: ssl.create_default_context(cafile=str(certificate)))
    yield endpoint
    await endpoint.close()


async def over_http1(peer: Peer) -> None:
    while True:
        _, body = await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body), body)


async def test_http2_where_the_server_has_it(endpoint: HttpEndpoint, certificate: Path) -> None:
    async with h2_server(echo, tls=server_tls(certificate, "h2", "http/1.1")) as server:
        address = HttpAddress(f"https://127.0.0.1:{server.port}")
        responses = await asyncio.gather(*(endpoint.request(address, REQUEST, timeout_s=60) for _ in range(20)))
        assert {response.body for response in responses} == {b"frames"}
        assert server.requests[0].headers[":scheme"] == "https"
        assert len(server.connections) == 1, "the first connection tells; the others wait for it"


@pytest.mark.parametrize("protocols", [("http/1.1",), ()], ids=["alpn", "no alpn"])
async def test_http1_where_the_server_has_nothing_else(endpoint: HttpEndpoint, certificate: Path, protocols: tuple[str, ...]) -> None:
    async with raw_server(over_http1, tls=server_tls(certificate, *protocols)) as server:
        address = HttpAddress(f"https://127.0.0.1:{server.port}")
        for _ in range(3):
            assert (await endpoint.request(address, REQUEST, timeout_s=60)).body == b"frames"
        assert server.connections == 1


async def test_http1_is_offered_alone_when_registered_so(endpoint: HttpEndpoint, certificate: Path) -> None:
    async with raw_server(over_http1, tls=server_tls(certificate, "h2", "http/1.1")) as server:
        address = HttpAddress(f"https://127.0.0.1:{server.port}", HttpVersion.HTTP_1_1)
        assert (await endpoint.request(address, REQUEST, timeout_s=60)).body == b"frames"


async def test_large_bodies(endpoint: HttpEndpoint, certificate: Path) -> None:
    big = EndpointRequest("POST", "/x", {}, bytes(range(256)) * 20_000)
    async with raw_server(over_http1, tls=server_tls(certificate)) as http1, h2_server(echo, tls=server_tls(certificate, "h2")) as http2:
        for port in (http1.port, http2.port):
            response = await endpoint.request(HttpAddress(f"https://127.0.0.1:{port}"), big, timeout_s=60)
            assert response.body == big.body


async def test_an_unknown_authority_is_refused(certificate: Path) -> None:
    endpoint = HttpEndpoint()
    async with raw_server(over_http1, tls=server_tls(certificate)) as server:
        with pytest.raises(EndpointFailure, match="certificate verify failed") as failure:
            await endpoint.request(HttpAddress(f"https://127.0.0.1:{server.port}"), REQUEST, timeout_s=60)
    assert failure.value.error_code == "RT0010"
    await endpoint.close()


async def test_https_to_a_plain_server_is_named(endpoint: HttpEndpoint) -> None:
    async def plain(peer: Peer) -> None:
        await peer.reader.read(10)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with raw_server(plain) as server:
        with pytest.raises(EndpointFailure, match="connect error"):
            await endpoint.request(HttpAddress(f"https://127.0.0.1:{server.port}"), REQUEST, timeout_s=60)
