"""Who gets another congestion control: bulk streams, on near legs, where the system's default paces."""

import socket
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi.relay import _congestion
from tabi.relay._congestion import choose, is_near

NEAR = [
    "127.0.0.1", "127.255.255.255", "10.0.0.1", "10.255.1.1", "172.16.0.1", "172.31.255.255", "192.168.0.1",
    "169.254.1.1", "::1", "fc00::1", "fdff::1", "fe80::1", "febf::1", "::ffff:10.1.2.3",
]  # fmt: skip
FAR = [
    "9.255.255.255", "11.0.0.0", "126.1.1.1", "128.0.0.1", "172.15.255.255", "172.32.0.0", "192.167.1.1",
    "192.169.0.0", "169.253.1.1", "8.8.8.8", "::", "::2", "fbff::1", "fec0::1", "fe7f::1", "2001:db8::1",
    "::ffff:8.8.8.8", "::10.1.2.3",
]  # fmt: skip


@pytest.mark.parametrize(("hosts", "expected"), [(NEAR, True), (FAR, False)])
def test_near_is_this_host_and_what_nobody_routes(hosts: list[str], expected: bool) -> None:
    assert {host for host in hosts if is_near(host) != expected} == set()


@pytest.mark.parametrize("host", NEAR + FAR)
def test_the_compiled_engine_thinks_the_same(host: str) -> None:
    engine = pytest.importorskip("tabi.relay._engine", reason="the compiled engine is not built here")
    assert engine.is_near(ip_address(host).packed) == is_near(host)


@given(st.ip_addresses())
def test_the_compiled_engine_thinks_the_same_of_any_address(address: object) -> None:
    engine = pytest.importorskip("tabi.relay._engine", reason="the compiled engine is not built here")
    assert engine.is_near(address.packed) == is_near(str(address))  # type: ignore[attr-defined]


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give the file that says what the system's default is."""
    monkeypatch.setattr(_congestion, "_DEFAULT", tmp_path / "default")
    return tmp_path / "default"


@pytest.mark.parametrize("name", ["cubic", "reno", "dctcp"])
def test_a_default_that_does_not_pace_stays(default: Path, name: str) -> None:
    default.write_text(name + "\n")
    assert choose() == b""


@pytest.mark.parametrize("name", ["bbr", "bbr2", "bbr3"])
def test_beside_a_default_that_paces_something_steady_is_had(default: Path, name: str) -> None:
    default.write_text(name + "\n")
    assert choose() in {b"cubic", b"reno"}


def test_reno_is_taken_where_cubic_is_not_allowed(default: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default.write_text("bbr\n")
    monkeypatch.setattr(_congestion, "_STEADY", ("no-such-control", "reno"))
    assert choose() == b"reno"
    monkeypatch.setattr(_congestion, "_STEADY", ("no-such-control",))
    assert choose() == b""


def test_a_name_is_taken_as_it_is() -> None:
    assert choose("reno") == b"reno"
    assert choose("") == b""


def test_a_socket_that_is_not_connected_any_more_is_left_alone() -> None:
    with socket.socket() as sock:
        before = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        _congestion.settle(sock, b"reno")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16) == before
