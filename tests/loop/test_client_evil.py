"""The client library and proxies that misbehave, blocking and on asyncio alike (sections I and J of what is known)."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.fronts import Front, Sync
from helpers.programs import need, run
from helpers.serving import Running, serving
from helpers.targets import target
from helpers.waiting import PATIENCE
from tabi import sync
from tabi.addr import Endpoint
from tabi.errors import (
    DialTimeoutError,
    ProxyAuthError,
    ProxyProtocolError,
    RefusedError,
    Side,
    Stage,
)
from tabi.testing import EvilPeer
from tabi.testing.evil import Ending, Vice, close_at, dribble, garbage, huge, reset_at, stall, wrong_version
from tabi.testing.parts import Line, Part, http_proxy, socks4_server, socks5_server
from tabi.wire.socks5 import Method

BOUND = Endpoint.parse("192.0.2.1:4321")
TARGET = ("target.example", 80)
BANNER = b"220 hello\r\n"
SHORT = 1.5  # seconds: the time limit of tests that wait for it, long enough to come as far as they want
LOGIN = "alice:sesame@"
PARTS: dict[str, Part] = {
    "socks4a": socks4_server(BOUND),
    "socks5h": socks5_server(BOUND, method=Method.USERPASS),
    "http": http_proxy(),
}
STAGES = [
    ("socks4a", Stage.REQUEST),
    ("socks5h", Stage.GREETING),
    ("socks5h", Stage.AUTH),
    ("socks5h", Stage.REQUEST),
    ("http", Stage.REQUEST),
]


def glued(part: Part, more: bytes) -> Part:
    """Say `more` in the same segment as what is said last."""
    *lines, last = (line for line in part if line.says)
    return (*lines, Line(last.stage, last.says + more, last.hears))


@contextmanager
def posing(scheme: str, part: Part | None = None, vice: Vice | None = None) -> Iterator[tuple[str, EvilPeer]]:
    """Run a proxy with a vice; yields its URL."""
    peer = EvilPeer(PARTS[scheme] if part is None else part, vice, deadline=PATIENCE)
    with peer.listening() as where:
        login = "" if scheme == "socks4a" else LOGIN
        yield f"{scheme}://{login}{where}", peer


@pytest.mark.parametrize("scheme", PARTS)
def test_an_answer_byte_by_byte_is_the_same(front: Front, scheme: str) -> None:
    with posing(scheme, glued(PARTS[scheme], BANNER), dribble()) as (proxy, _):
        stream = front.connect(TARGET, proxy=proxy)
        assert stream.read(len(BANNER)) == BANNER
        stream.close()


@pytest.mark.parametrize("scheme", PARTS)
def test_a_banner_in_the_segment_of_the_reply_stays_in_the_socket(front: Front, scheme: str) -> None:
    with posing(scheme, glued(PARTS[scheme], BANNER)) as (proxy, peer):
        stream = front.connect(TARGET, proxy=proxy)
        if isinstance(front, Sync):
            assert stream.sock.recv(99) == BANNER  # all at once, from the kernel
        else:
            assert stream.read(len(BANNER)) == BANNER
        stream.close()
        assert peer.encounters()[0].ending is Ending.CLOSED


@pytest.mark.parametrize(("scheme", "stage"), [*STAGES, ("socks5h", Stage.CONNECT)])
def test_silence_at_any_stage_ends_at_the_time_limit(front: Front, scheme: str, stage: Stage) -> None:
    with posing(scheme, vice=stall(stage)) as (proxy, peer):
        with pytest.raises(DialTimeoutError) as caught:
            front.connect(TARGET, proxy=proxy, timeout=SHORT)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.stage is (Stage.GREETING if stage is Stage.CONNECT else stage)
        assert caught.value.limit == "connect"
        assert caught.value.hop is not None
        assert peer.encounters()[0].ending in (Ending.CLOSED, Ending.RESET)


# The version of an RFC 1929 status is not judged: servers send 01 and 05.
WRONG_VERSIONS = [(scheme, stage, wrong_version) for scheme, stage in STAGES if stage is not Stage.AUTH]


@pytest.mark.parametrize(("scheme", "stage", "vice"), [(*one, garbage) for one in STAGES] + WRONG_VERSIONS)
def test_nonsense_at_any_stage_is_told_as_the_proxys_fault(front: Front, scheme: str, stage: Stage, vice) -> None:
    with posing(scheme, vice=vice(stage)) as (proxy, _):
        kind = ProxyAuthError if stage is Stage.AUTH else ProxyProtocolError
        with pytest.raises(kind) as caught:
            front.connect(TARGET, proxy=proxy, timeout=PATIENCE)
        assert caught.value.side is Side.OUTBOUND
        assert "sesame" not in str(caught.value)


def test_a_bound_name_of_255_bytes_is_taken(front: Front) -> None:
    with posing("socks5h", vice=huge(Stage.REQUEST)) as (proxy, _):
        front.connect(TARGET, proxy=proxy).close()


def test_an_http_head_without_end_is_left(front: Front) -> None:
    with posing("http", http_proxy(answer=b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000)) as (proxy, _):
        with pytest.raises(ProxyProtocolError, match="16384"):
            front.connect(TARGET, proxy=proxy, timeout=PATIENCE)


@pytest.mark.parametrize("vice", [close_at, reset_at])
@pytest.mark.parametrize(("scheme", "length"), [("socks4a", 8), ("socks5h", 14), ("http", 39)])
def test_an_end_at_any_offset_is_told_as_the_proxys_fault(front: Front, scheme: str, length: int, vice) -> None:
    assert len(b"".join(line.says for line in PARTS[scheme])) == length
    # a reset before any byte may come before we see the connection: then the proxy cannot be reached
    for offset in range(1 if vice is reset_at else 0, length, 3):
        with posing(scheme, vice=vice(offset)) as (proxy, _):
            with pytest.raises(ProxyProtocolError) as caught:
                front.connect(TARGET, proxy=proxy, timeout=PATIENCE)
            assert caught.value.retryable
            assert isinstance(caught.value, ConnectionError)


@pytest.mark.parametrize("vice", [close_at(5), reset_at(5), Vice()], ids=["closes", "resets", "holds"])
def test_a_refusal_of_three_bytes_is_understood(front: Front, vice: Vice) -> None:
    greeting = socks5_server(BOUND)[0]
    part = (greeting, Line(Stage.REQUEST, b"\x05\x05\x00", socks5_server(BOUND)[1].hears))
    with posing("socks5h", part, vice) as (proxy, _):
        with pytest.raises(RefusedError):
            front.connect(TARGET, proxy=proxy, timeout=SHORT)


def test_a_refusal_of_all_methods_by_ten_bytes_is_understood(front: Front) -> None:
    part = (Line(Stage.GREETING, b"\x05\xff\x00\x01\0\0\0\0\0\0", socks5_server(BOUND)[0].hears),)
    with posing("socks5h", part, close_at(10)) as (proxy, _):
        with pytest.raises(ProxyAuthError):
            front.connect(TARGET, proxy=proxy, timeout=PATIENCE)


# TLS within


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a certificate for v4.example and its key."""
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    done = run(
        need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return certificate, key


@pytest.fixture
def server() -> Iterator[Running]:
    """Run tabi."""
    with serving() as running:
        yield running


def tls_server(certificate: tuple[Path, Path]):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def handle(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.sendall(BANNER)
            tls.sendall(tls.recv(99))
            tls.recv(1)

    return handle


def test_tls_runs_within_and_the_certificate_is_compared(
    front: Front, server: Running, certificate: tuple[Path, Path]
) -> None:
    trusting = ssl.create_default_context(cafile=certificate[0])
    proxy = f"socks5h://127.0.0.1:{server.address[1]}"
    with target(tls_server(certificate)) as (_, port):
        stream = front.connect(("localhost", port), proxy=proxy, ssl=trusting)
        assert stream.read(len(BANNER)) == BANNER
        stream.send(b"and back")
        assert stream.read(8) == b"and back"
        stream.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            front.connect(("127.0.0.1", port), proxy=proxy, ssl=trusting)


def test_a_banner_survives_the_start_of_tls(server: Running, certificate: tuple[Path, Path]) -> None:
    """As with STARTTLS: plain text first, then a handshake on the same socket."""
    serve = tls_server(certificate)

    def handle(sock: socket.socket) -> None:
        sock.sendall(BANNER)
        assert sock.recv(99) == b"STARTTLS\r\n"
        serve(sock)

    with target(handle) as (_, port):
        proxy = f"socks5h://127.0.0.1:{server.address[1]}"
        with sync.create_connection(("localhost", port), PATIENCE, proxy=proxy) as sock:
            assert sock.recv(len(BANNER)) == BANNER
            sock.sendall(b"STARTTLS\r\n")
            trusting = ssl.create_default_context(cafile=certificate[0])
            with trusting.wrap_socket(sock, server_hostname="localhost") as tls:
                assert tls.recv(99) == BANNER
