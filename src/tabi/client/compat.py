"""A drop-in for PySocks 1.7: its socket class and its functions, with tabi's handshakes behind them; see `tabi.compat`.

What differs: IPv6 works everywhere; a SOCKS4 proxy is spoken to by SOCKS4a where it is to resolve names; fragments of
datagrams are put together; a timeout covers the whole handshake; `get_proxy_peername` gives the proxy's address, as
PySocks documents and does not do. Sockets that are neither AF_INET nor AF_INET6 are left alone, so that replacing
``socket.socket`` harms no other user of it.
"""

import errno
import os
import socket
import time
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from tabi.addr import Endpoint, Name, parse_host
from tabi.client import plans
from tabi.client.blocking import drive
from tabi.client.compat_errors import (
    DEFAULT_PORTS,
    HTTP,
    SOCKS4,
    SOCKS5,
    GeneralProxyError,
    ProxyConnectionError,
    proxy_error,
)
from tabi.client.plain import PlainSocket
from tabi.client.plans import show_address
from tabi.dial import chain
from tabi.dial.wishes import Connection, Plan
from tabi.errors import TabiError, UsageError
from tabi.machine.datagrams import ClientDatagrams
from tabi.machine.hop import Hop, Scheme

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = [
    "create_connection", "get_default_proxy", "getdefaultproxy", "set_default_proxy", "setdefaultproxy", "socksocket",
    "wrap_module", "wrapmodule",
]  # fmt: skip

Proxy: TypeAlias = tuple[int | None, str | None, int | None, bool | None, bytes | None, bytes | None]
"""Type, address, port, whether the proxy resolves names, user name, password: as PySocks keeps it."""

_NO_PROXY: Proxy = (None, None, None, None, None, None)
_FOREVER = 1e9  # seconds: what a blocking socket waits
_LARGEST = 65_535


def set_default_proxy(
    proxy_type: int | None = None,
    addr: str | None = None,
    port: int | None = None,
    rdns: bool = True,
    username: str | None = None,
    password: str | None = None,
) -> None:
    """Set the proxy of every `socksocket` that is made from now on; the arguments are those of its `set_proxy`."""
    socksocket.default_proxy = _pack(proxy_type, addr, port, rdns, username, password)


def setdefaultproxy(*args: Any, **kwargs: Any) -> None:  # Any: PySocks' older spelling of the above
    """Set the default proxy, where `proxy_type` may be called `proxytype`."""
    set_default_proxy(*args, **_renamed(kwargs))


def get_default_proxy() -> Proxy | None:
    """Give what `set_default_proxy` has set."""
    return socksocket.default_proxy


def wrap_module(module: ModuleType) -> None:
    """Have a module that did ``import socket`` use `socksocket`; every other user of `socket` does so as well.

    Raises:
        GeneralProxyError: there is no default proxy.
    """
    if not socksocket.default_proxy:
        raise GeneralProxyError("No default proxy specified")
    module.socket.socket = socksocket


def create_connection(
    dest_pair: tuple[str, int],
    timeout: float | None = None,
    source_address: tuple[str, int] | None = None,
    proxy_type: int | None = None,
    proxy_addr: str | None = None,
    proxy_port: int | str | None = None,
    proxy_rdns: bool = True,
    proxy_username: str | None = None,
    proxy_password: str | None = None,
    socket_options: Iterable[tuple[Any, ...]] | None = None,  # Any: the arguments of setsockopt
) -> "socksocket":
    """Connect to `dest_pair` through a proxy; each address of the proxy is tried.

    Raises:
        ProxyError, OSError: as `socksocket.connect`.
    """
    default = socksocket.default_proxy or _NO_PROXY
    first = (proxy_addr, proxy_port) if proxy_type else (default[1] or dest_pair[0], default[2] or dest_pair[1])
    failure: OSError | None = None
    found = socket.getaddrinfo((first[0] or "").strip("[]"), first[1] or DEFAULT_PORTS.get(proxy_type or 0))
    for family in dict.fromkeys(entry[0] for entry in found):
        sock = socksocket(family, socket.SOCK_STREAM)
        try:
            for option in socket_options or ():
                sock.setsockopt(*option)
            if isinstance(timeout, int | float):
                sock.settimeout(timeout)
            if proxy_type:
                port = int(proxy_port) if proxy_port else None
                sock.set_proxy(proxy_type, proxy_addr, port, proxy_rdns, proxy_username, proxy_password)
            if source_address:
                sock.bind(source_address)
            sock.connect((dest_pair[0].strip("[]"), dest_pair[1]))
        except OSError as error:
            sock.close()
            failure = failure or error
        else:
            return sock
    raise failure or OSError("getaddrinfo gave no address")


class socksocket(PlainSocket):  # noqa: N801 - PySocks' name
    """A socket that connects through a proxy, and is an ordinary one where none is set.

    The proxy is that of `set_default_proxy` when it is made, or what `set_proxy` says. Connecting blocks, even where
    the socket does not: the handshake is a conversation.
    """

    default_proxy: Proxy | None = None

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:  # noqa: A002
        super().__init__(family, type, proto, fileno)
        self.proxy: Proxy = self.default_proxy or _NO_PROXY
        self.proxy_sockname: tuple[str, int] | None = None
        self.proxy_peername: tuple[str, int] | None = None
        self._control: PlainSocket | None = None
        self._datagrams = ClientDatagrams()

    def set_proxy(
        self,
        proxy_type: int | None = None,
        addr: str | None = None,
        port: int | None = None,
        rdns: bool = True,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        """Set the proxy of this socket.

        Args:
            proxy_type: `SOCKS4`, `SOCKS5` or `HTTP`; None for none.
            addr: its name or address.
            port: None: 1080, or 8080 for HTTP.
            rdns: whether it resolves names; HTTP proxies always do.
            username: with `password`; USERID for SOCKS4.
            password: see `username`.
        """
        self.proxy = _pack(proxy_type, addr, port, rdns, username, password)

    def setproxy(self, *args: Any, **kwargs: Any) -> None:  # Any: PySocks' older spelling of the above
        """Set the proxy, where `proxy_type` may be called `proxytype`."""
        self.set_proxy(*args, **_renamed(kwargs))

    # where it is connected to

    def get_proxy_sockname(self) -> tuple[str, int] | None:
        """Give the address at the proxy that the target sees, as the proxy tells it."""
        return self.proxy_sockname

    def get_proxy_peername(self) -> Any:  # Any: as socket.getpeername
        """Give the address of the proxy."""
        return super().getpeername()

    def get_peername(self) -> Any:  # Any: as socket.getpeername
        """Give the address of the target."""
        return super().getpeername() if self.proxy_peername is None else self.proxy_peername

    getproxysockname = get_proxy_sockname
    getproxypeername = get_proxy_peername
    getpeername = get_peername

    # connecting

    def connect(self, dest_pair: Any, catch_errors: bool | None = None) -> None:  # Any: an address of any family
        """Connect to `dest_pair` through the proxy; for datagrams, say whom `send` and `recv` mean.

        Args:
            dest_pair: ``(host, port)``.
            catch_errors: raise what sockets raise where the proxy cannot be reached, instead of ProxyConnectionError.

        Raises:
            ProxyError: of the kind that fits; the socket is closed.
            OSError: a socket without proxy.
        """
        hop = self._hop()
        if hop is None:
            super().connect(dest_pair)
        elif self._is(socket.SOCK_DGRAM):
            self._connect_datagrams(dest_pair)
        else:
            timeout = self.gettimeout()
            try:
                self._connect_stream(hop, self._target(dest_pair), timeout or _FOREVER, catch_errors=bool(catch_errors))
            except BaseException:
                self.close()
                raise
            self.settimeout(timeout)

    def connect_ex(self, dest_pair: Any) -> int:  # Any: an address of any family
        """Connect as `connect` does, and give the error's number where there is one."""
        if self._hop() is None:
            return super().connect_ex(dest_pair)
        try:
            self.connect(dest_pair, catch_errors=True)
        except OSError as error:
            if error.errno:
                return error.errno
            raise
        return 0

    def _connect_stream(self, hop: Hop, target: Endpoint, seconds: float, *, catch_errors: bool) -> None:
        end = time.monotonic() + seconds
        self.settimeout(seconds if seconds < _FOREVER else None)
        try:
            super().connect((str(hop.proxy.host), hop.proxy.port))
        except OSError as error:
            if catch_errors:
                raise
            raise ProxyConnectionError(f"Error connecting to {hop}", error) from error
        self.setblocking(False)
        remote = Endpoint.from_sockaddr(super().getpeername())
        connection = Connection(self, remote, Endpoint.from_sockaddr(super().getsockname()))
        try:
            target = self._resolved(hop, target)
            left = max(0.001, end - time.monotonic())
            made = drive(chain.connect([hop], target, reach=_given(connection), timeout=left))
        except UsageError as error:
            raise GeneralProxyError(str(error), error) from error
        except TabiError as error:
            raise proxy_error(error, hop) from error
        self.proxy_peername = show_address(target)
        self.proxy_sockname = show_address(made.local)

    # datagrams

    def bind(self, address: Any) -> None:  # Any: an address of any family
        """Bind; a datagram socket with a proxy is associated then.

        Raises:
            OSError: the proxy is no SOCKS5 proxy, or the socket is associated already; ProxyError: it refused.
        """
        super().bind(address)
        hop = self._hop()
        if hop is None or not self._is(socket.SOCK_DGRAM):
            return
        if self._control is not None:
            raise OSError(errno.EINVAL, "Socket already bound to an address")
        self._associate(hop)

    def _associate(self, hop: Hop) -> None:
        if hop.scheme not in (Scheme.SOCKS5, Scheme.SOCKS5H):
            raise OSError(errno.EOPNOTSUPP, "UDP only supported by SOCKS5 proxy type")
        try:
            bound = drive(plans.associate((hop,), self.gettimeout() or _FOREVER))
            assert isinstance(bound.handle, PlainSocket)
            self._control = bound.handle
            relay = plans.relay(bound, plans.nobody)
        except TabiError as error:
            raise proxy_error(error, hop) from error
        super().connect(show_address(relay))
        self.proxy_sockname = ("0.0.0.0", 0)  # PySocks' word for "not known"

    def _connect_datagrams(self, dest_pair: tuple[str, int]) -> None:
        self._ensure_association()
        target = self._target(dest_pair)
        host = socket.gethostbyname(str(target.host)) if isinstance(target.host, Name) else str(target.host)
        self.proxy_peername = None if host == "0.0.0.0" and not target.port else (host, target.port)

    def _ensure_association(self) -> None:
        if self._control is None:
            self.bind(("", 0))

    def sendto(self, data: "ReadableBuffer", *args: Any) -> int:  # Any: [flags,] address
        """Send a datagram to an address; without a proxy as sockets do."""
        if not self._relays():
            return super().sendto(data, *args)
        self._ensure_association()
        *flags, address = args
        raw = bytes(data)
        super().send(self._datagrams.wrap(raw, self._target(address)), *flags)
        return len(raw)

    def send(self, data: "ReadableBuffer", flags: int = 0) -> int:
        """Send to where the socket is connected to."""
        if not self._relays():
            return super().send(data, flags)
        if self.proxy_peername is None:
            raise OSError(errno.EDESTADDRREQ, os.strerror(errno.EDESTADDRREQ))
        return self.sendto(data, flags, self.proxy_peername)

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:  # Any: as socket.recvfrom
        """Receive a datagram, and the address of who sent it; of those only, to whom the socket is connected."""
        if not self._relays():
            return super().recvfrom(bufsize, flags)
        self._ensure_association()
        while True:
            received = self._datagrams.unwrap(super().recv(_LARGEST, flags), time.monotonic())
            if received is not None and self._is_meant(show_address(received.source)):
                return received.data[:bufsize], show_address(received.source)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive; of a datagram its data."""
        return self.recvfrom(bufsize, flags)[0] if self._relays() else super().recv(bufsize, flags)

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0) -> int:
        """Receive into a buffer."""
        if not self._relays():
            return super().recv_into(buffer, nbytes, flags)
        return self.recvfrom_into(buffer, nbytes, flags)[0]

    def recvfrom_into(
        self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0
    ) -> tuple[int, Any]:  # Any: as socket's
        """Receive into a buffer, and the address of who sent it."""
        if not self._relays():
            return super().recvfrom_into(buffer, nbytes, flags)
        view = memoryview(buffer).cast("B")
        data, source = self.recvfrom(nbytes or len(view), flags)
        view[: len(data)] = data
        return len(data), source

    def close(self) -> None:
        """Close, and end the association."""
        if self._control is not None:
            self._control.close()
        super().close()

    def _is_meant(self, source: tuple[str, int]) -> bool:
        return self.proxy_peername is None or (
            source[0] == self.proxy_peername[0] and self.proxy_peername[1] in (0, source[1])
        )

    def _relays(self) -> bool:
        return self._is(socket.SOCK_DGRAM) and self._hop() is not None

    def _is(self, kind: int) -> bool:
        return self.type == kind

    # the proxy

    def _hop(self) -> Hop | None:
        """Read the proxy that was set; none for sockets that are not of the internet.

        Raises:
            GeneralProxyError: it cannot be used.
        """
        proxy_type, addr, port, rdns, username, password = self.proxy
        if proxy_type is None or self.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        schemes = {
            SOCKS4: Scheme.SOCKS4A if rdns else Scheme.SOCKS4,
            SOCKS5: Scheme.SOCKS5H if rdns else Scheme.SOCKS5,
            HTTP: Scheme.HTTP,
        }
        if proxy_type not in schemes or not addr:
            raise GeneralProxyError("Invalid proxy type" if addr else "No proxy address")
        try:
            where = Endpoint(parse_host(addr), port or DEFAULT_PORTS[proxy_type])
            # As PySocks has it: SOCKS4 has no use for a password, and the others log in by both or not at all.
            if proxy_type == SOCKS4:
                return Hop(schemes[proxy_type], where, username or b"")
            login = (username, password) if username and password else (b"", b"")
            return Hop(schemes[proxy_type], where, *login)
        except UsageError as error:
            raise GeneralProxyError(str(error), error) from error

    def _target(self, dest_pair: Any) -> Endpoint:  # Any: what the caller gave
        if not isinstance(dest_pair, list | tuple) or len(dest_pair) < 2 or not isinstance(dest_pair[1], int):
            raise GeneralProxyError("Invalid destination-connection (host, port) pair")
        try:
            return plans.read_address((dest_pair[0], dest_pair[1]))
        except UsageError as error:
            raise GeneralProxyError(str(error), error) from error

    def _resolved(self, hop: Hop, target: Endpoint) -> Endpoint:
        """Look the target up here where the proxy is not to; one address, for there is one socket."""
        if hop.scheme.takes_names or not isinstance(target.host, Name):
            return target
        return Endpoint(drive(plans.look_up(target.host)), target.port)


def _given(connection: Connection) -> Callable[[Endpoint], Plan]:
    """Reach the proxy by a connection that stands."""

    def reach(_proxy: Endpoint) -> Plan:
        yield from ()
        return connection

    return reach


def _pack(
    proxy_type: int | None,
    addr: str | None,
    port: int | None,
    rdns: bool,
    username: str | None,
    password: str | None,
) -> Proxy:
    return (
        proxy_type, addr, port, rdns, username.encode() if username else None, password.encode() if password else None
    )  # fmt: skip


def _renamed(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"proxy_type" if name == "proxytype" else name: value for name, value in kwargs.items()}


getdefaultproxy = get_default_proxy
wrapmodule = wrap_module
