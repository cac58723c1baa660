"""The drop-in for PySocks: what PySocks documents, done by PySocks itself and by ours, and what only ours does."""

import errno
import os
import socket
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import socks as pysocks

from helpers.connect_proxy import connect_proxy
from helpers.name_service import NameService
from helpers.serving import Running, allow_all, command, serving
from helpers.targets import banner, closed_port, datagram_echo, target
from helpers.udp import address_of, datagrams, header
from helpers.waiting import PATIENCE
from tabi import compat, sync
from tabi.addr import Endpoint
from tabi.errors import ProxyAuthError, RefusedError, Stage
from tabi.server import Passwords
from tabi.testing import EvilPeer
from tabi.testing.evil import close_at, stall
from tabi.testing.parts import socks5_server

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture(params=[pysocks, compat], ids=["pysocks", "tabi"])
def module(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """PySocks, and what claims to be like it."""
    try:
        yield request.param
    finally:
        request.param.socksocket.default_proxy = None


@pytest.fixture
def server() -> Iterator[Running]:
    with serving(policy=allow_all) as running:
        NameService({"v4.example": ["127.0.0.1"]}).serve(running)
        yield running


def proxied(module: ModuleType, server: Running | tuple[str, int], kind: str = "SOCKS5", **options: Any) -> Any:
    address = server if isinstance(server, tuple) else server.address
    sock = module.socksocket()
    sock.settimeout(PATIENCE)
    sock.set_proxy(module.PROXY_TYPES[kind], *address, **options)
    return sock


def echoed(sock: Any) -> bool:
    sock.sendall(b"ping")
    return bool(sock.recv(99) == b"ping")


def test_every_documented_name_is_there() -> None:
    public = {name for name in vars(pysocks) if name.isupper() or name[:1].islower() or name.endswith("Error")}
    # what PySocks imports for its own use, and its internals
    foreign = {name for name in public if name.startswith("_") or isinstance(getattr(pysocks, name), ModuleType)}
    foreign |= {"b64encode", "EOPNOTSUPP", "EINVAL", "EAGAIN", "SEEK_CUR", "log", "set_self_blocking", "method", "name"}
    assert public - foreign <= set(vars(compat))
    assert {n for n in dir(pysocks.socksocket) if not n.startswith("_")} <= set(dir(compat.socksocket))


CONSTANTS = [
    "SOCKS4", "SOCKS5", "HTTP", "PROXY_TYPES", "PRINTABLE_PROXY_TYPES", "DEFAULT_PORTS", "SOCKS4_ERRORS",
    "SOCKS5_ERRORS", "PROXY_TYPE_SOCKS4", "PROXY_TYPE_SOCKS5", "PROXY_TYPE_HTTP",
]  # fmt: skip


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_are_the_same(name: str) -> None:
    assert getattr(compat, name) == getattr(pysocks, name)


@pytest.mark.parametrize("kind", ["SOCKS4", "SOCKS5"])
@pytest.mark.parametrize("host", ["127.0.0.1", "v4.example"])
def test_a_socket_connects_by_socks(module: ModuleType, server: Running, kind: str, host: str) -> None:
    with target() as (_, port), proxied(module, server, kind) as sock:
        sock.connect((host, port))
        assert echoed(sock)
        assert sock.getpeername()[1] == port  # PySocks says 0.0.0.1 for a name by SOCKS4
        assert sock.get_proxy_sockname()[1] > 0
        assert sock.gettimeout() == PATIENCE


def test_a_socket_connects_by_http(module: ModuleType) -> None:
    with connect_proxy() as where, target() as address, proxied(module, where, "HTTP") as sock:
        sock.connect(address)
        assert echoed(sock)


def test_a_login_is_said(module: ModuleType) -> None:
    with serving(authenticator=Passwords({b"alice": b"sesame"})) as running, target() as address:
        with proxied(module, running, username="alice", password="sesame") as sock:
            sock.connect(address)
            assert echoed(sock)
        for wrong in ({"username": "alice", "password": "barley"}, {}, {"username": "alice"}):
            with pytest.raises(module.ProxyError) as caught:
                proxied(module, running, **wrong).connect(address)
            assert kind_of(caught.value) is module.SOCKS5AuthError


def kind_of(error: Any) -> type[BaseException]:
    """PySocks means an error of its own kinds, and wraps it into GeneralProxyError by mistake, for all are OSErrors."""
    is_wrapped = type(error).__name__ == "GeneralProxyError" and type(error.socket_err).__module__ == "socks"
    return type(error.socket_err) if is_wrapped else type(error)


def test_a_refusal_has_the_words_of_pysocks(module: ModuleType, server: Running) -> None:
    refused = ("127.0.0.1", closed_port())
    with pytest.raises(module.ProxyError, match="0x05: Connection refused") as caught:
        proxied(module, server).connect(refused)
    assert kind_of(caught.value) is module.SOCKS5Error
    with pytest.raises(module.ProxyError) as caught:
        proxied(module, server, "SOCKS4").connect(refused)
    assert kind_of(caught.value) is module.SOCKS4Error
    with connect_proxy() as where, pytest.raises(module.ProxyError) as caught:
        proxied(module, where, "HTTP").connect(refused)
    assert kind_of(caught.value) is module.HTTPError
    assert issubclass(module.SOCKS5Error, module.ProxyError)
    assert issubclass(module.ProxyError, OSError)


def test_a_proxy_that_is_not_there_is_told(module: ModuleType) -> None:
    with pytest.raises(module.ProxyConnectionError) as caught:
        proxied(module, ("127.0.0.1", closed_port())).connect(("127.0.0.1", 9))
    assert isinstance(caught.value.socket_err, ConnectionRefusedError)
    with proxied(module, ("127.0.0.1", closed_port())) as sock:
        assert sock.connect_ex(("127.0.0.1", 9)) == errno.ECONNREFUSED


def test_a_proxy_that_closes_or_is_silent_is_a_general_error(module: ModuleType) -> None:
    part = socks5_server(Endpoint.parse("192.0.2.1:9"))
    with EvilPeer(part, close_at(2)).listening() as where, pytest.raises(module.GeneralProxyError):
        proxied(module, (str(where.host), where.port)).connect(("127.0.0.1", 9))
    with EvilPeer(part, stall(Stage.REQUEST)).listening() as where:
        sock = proxied(module, (str(where.host), where.port))
        sock.settimeout(1.5)
        with pytest.raises(module.GeneralProxyError) as caught:
            sock.connect(("127.0.0.1", 9))
        assert isinstance(caught.value.socket_err, TimeoutError)


def test_arguments_that_cannot_be_used_are_a_general_error(module: ModuleType, server: Running) -> None:
    with proxied(module, server) as sock, pytest.raises(module.GeneralProxyError):
        sock.connect(("127.0.0.1", "80"))


def test_a_default_proxy_is_that_of_all_new_sockets(module: ModuleType, server: Running) -> None:
    module.setdefaultproxy(proxytype=module.SOCKS5, addr="127.0.0.1", port=server.address[1])
    assert module.getdefaultproxy() == (module.SOCKS5, *server.address, True, None, None)
    with target() as address, module.socksocket() as sock:
        sock.connect(address)
        assert echoed(sock)
    assert server.line(command="connect")
    with module.socksocket() as sock:
        sock.setproxy(proxytype=None)
        assert sock.proxy[0] is None


def test_without_a_proxy_it_is_an_ordinary_socket(module: ModuleType) -> None:
    with target() as address, module.socksocket() as sock:
        sock.connect(address)
        assert echoed(sock)
        assert sock.getpeername() == address


def test_create_connection_takes_everything_at_once(module: ModuleType, server: Running) -> None:
    with target() as (_, port):
        sock = module.create_connection(
            ("v4.example", port),
            timeout=PATIENCE,
            proxy_type=module.SOCKS5,
            proxy_addr="127.0.0.1",
            proxy_port=server.address[1],
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        with sock:
            assert echoed(sock)
            assert sock.gettimeout() == PATIENCE
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_socket_that_does_not_block_connects_and_then_does_not(module: ModuleType, server: Running) -> None:
    with target() as address, proxied(module, server) as sock:
        sock.setblocking(False)
        sock.connect(address)
        assert sock.gettimeout() == 0
        with pytest.raises(BlockingIOError):
            sock.recv(1)


def test_files_can_be_made_of_it(module: ModuleType, server: Running) -> None:
    with target(banner(b"220 hello\r\nmore")) as address, proxied(module, server) as sock:
        sock.connect(address)
        with sock.makefile("rb") as stream:
            assert stream.readline() == b"220 hello\r\n"
            assert stream.read() == b"more"


def test_a_module_is_wrapped(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    importer = ModuleType("a module that says `import socket`")
    importer.socket = socket
    monkeypatch.setattr(socket, "socket", socket.socket)  # to be restored
    with pytest.raises(module.GeneralProxyError, match="No default proxy"):
        module.wrap_module(importer)
    with command() as elsewhere, target() as (_, port):  # a server in this process would have to go through itself
        module.set_default_proxy(module.SOCKS5, *elsewhere.address)
        module.wrapmodule(importer)
        with socket.socket() as sock:
            sock.settimeout(PATIENCE)
            sock.connect(("127.0.0.1", port))
            assert echoed(sock)
        monkeypatch.undo()
        assert elsewhere.line(f"command=connect target=127.0.0.1:{port} ")


def test_datagrams_go_through_the_proxy(module: ModuleType, server: Running) -> None:
    with datagram_echo() as echo, module.socksocket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.set_proxy(module.SOCKS5, *server.address)
        assert sock.sendto(b"ping", echo) == 4
        assert sock.recvfrom(99) == (b"ping", echo)
        sock.connect(echo)
        assert sock.send(b"again") == 5
        assert sock.recv(2) == b"ag"
    assert server.line(command="udp_associate")


def test_datagrams_need_socks5(module: ModuleType, server: Running) -> None:
    with module.socksocket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.set_proxy(module.SOCKS4, *server.address)
        with pytest.raises(OSError) as caught:
            sock.bind(("127.0.0.1", 0))
        assert caught.value.errno == errno.EOPNOTSUPP


# what only ours does


def test_errors_carry_what_tabi_knows(server: Running) -> None:
    with pytest.raises(compat.SOCKS5Error) as caught:
        proxied(compat, server).connect(("127.0.0.1", closed_port()))
    assert isinstance(caught.value.socket_err, RefusedError)
    with serving(authenticator=Passwords({})) as running, pytest.raises(compat.SOCKS5AuthError) as caught:
        proxied(compat, running, username="a", password="sesame").connect(("127.0.0.1", 9))
    assert isinstance(caught.value.socket_err, ProxyAuthError)
    assert "sesame" not in str(caught.value)


def test_a_login_for_http_is_said() -> None:
    with connect_proxy(b"alice:sesame") as where, target() as address:
        with proxied(compat, where, "HTTP", username="alice", password="sesame") as sock:
            sock.connect(address)
            assert echoed(sock)


def test_ipv6_is_reached_and_the_proxy_may_be_there(server: Running) -> None:
    where = server.addresses[1]
    with target(host="::1") as address:
        with compat.create_connection(
            address, proxy_type=compat.SOCKS5, proxy_addr="[::1]", proxy_port=where.port
        ) as sock:
            assert echoed(sock)
            assert sock.get_proxy_peername()[:2] == ("::1", where.port)
            assert sock.get_peername() == address


def test_a_default_proxy_is_enough_for_create_connection(server: Running) -> None:
    try:
        compat.set_default_proxy(compat.SOCKS5, *server.address)
        with target() as (_, port), compat.create_connection(("v4.example", port), PATIENCE) as sock:
            assert echoed(sock)
    finally:
        compat.socksocket.default_proxy = None
    with target() as address, compat.create_connection(address, PATIENCE) as sock:
        assert echoed(sock)


def test_names_are_resolved_here_without_rdns(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    import ipaddress

    monkeypatch.setattr(
        "tabi.client.blocking.addresses_of",
        lambda _name, family: tuple(a for a in [ipaddress.ip_address("127.0.0.1")] if a.version == family),
    )
    for kind in ("SOCKS4", "SOCKS5"):
        with target() as (_, port), proxied(compat, server, kind, rdns=False) as sock:
            sock.connect(("local.example", port))
            assert echoed(sock)
            assert sock.getpeername() == ("127.0.0.1", port)


def test_a_replaced_socket_class_leaves_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with command() as elsewhere, target() as address:
        where = elsewhere.address
        monkeypatch.setattr(compat.socksocket, "default_proxy", (compat.SOCKS5, *where, True, None, None))
        monkeypatch.setattr(socket, "socket", compat.socksocket)
        one, two = socket.socketpair()
        with one, two:
            one.sendall(b"x")
            assert two.recv(1) == b"x"
        with socket.socket(socket.AF_UNIX) as local, socket.socket(socket.AF_UNIX) as sock:
            local.bind("")  # a free abstract address (unix(7))
            local.listen()
            sock.connect(local.getsockname())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            with socket.create_connection(listener.getsockname(), PATIENCE) as sock:
                accepted, _ = listener.accept()
                with accepted:
                    assert accepted.getpeername()[0] == "127.0.0.1"
                    accepted.sendall(b"hi")
                    assert sock.recv(9) == b"hi"
        with sync.create_connection(address, PATIENCE, proxy=f"socks5h://127.0.0.1:{where[1]}") as sock:
            assert echoed(sock)
            assert type(sock) is not compat.socksocket
        monkeypatch.undo()


def test_strangers_fragments_and_buffers_of_datagrams(server: Running) -> None:
    with datagrams() as relay:
        told = Endpoint.from_sockaddr(relay.getsockname())
        with EvilPeer(socks5_server(told)).listening() as where:
            with compat.socksocket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(PATIENCE)
                sock.set_proxy(compat.SOCKS5, str(where.host), where.port)
                sock.bind(("127.0.0.1", 0))
                ours = address_of(sock)
                sock.connect(("192.0.2.9", 53))
                relay.sendto(header("192.0.2.8", 53) + b"not meant", ours)
                relay.sendto(header("192.0.2.9", 53, frag=1) + b"pi", ours)
                relay.sendto(header("192.0.2.9", 53, frag=0x82) + b"ng", ours)
                buffer = bytearray(9)
                assert sock.recvfrom_into(buffer) == (4, ("192.0.2.9", 53))
                assert buffer[:4] == b"ping"
                relay.sendto(header("192.0.2.9", 53) + b"x", ours)
                assert sock.recv_into(buffer) == 1
                sock.connect(("0.0.0.0", 0))
                with pytest.raises(OSError) as caught:
                    sock.send(b"to whom")
                assert caught.value.errno == errno.EDESTADDRREQ
    assert os.strerror(errno.EDESTADDRREQ) in str(caught.value)
