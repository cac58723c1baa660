"""A small SOCKS5 proxy in threads that is right, but for the faults that it is told to have."""

import contextlib
import errno
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from helpers.socks import LINGER_ZERO, address5, read_exactly
from helpers.targets import target
from helpers.waiting import PATIENCE

__all__ = ["LOGIN", "sick"]

LOGIN = (b"alice", b"sesame")
_REPLIES = {errno.ECONNREFUSED: 5}
_NAMES = {b"localhost": ("::1", "127.0.0.1"), b"two.example": ("127.0.0.1", "127.0.0.2")}


def _read(sock: socket.socket, size: int) -> bytes:
    """Read `size` bytes; a client that ends before is gone, which is for the target's helper to pass over."""
    data = read_exactly(sock, size)
    if len(data) < size:
        raise ConnectionResetError
    return data


class Sick:
    """One proxy; see `sick`."""

    def __init__(self, faults: frozenset[str], *, login: bool) -> None:
        self.faults = faults
        self.login = login
        self.listener = ("", 0)
        self.let_in = False
        self.asked: set[str] = set()
        self.over = threading.Event()

    @property
    def url(self) -> str:
        """Where it is, with the login that it wants."""
        return f"socks5h://{'alice:sesame@' if self.login else ''}{self.listener[0]}:{self.listener[1]}"

    def serve(self, sock: socket.socket) -> None:
        """Serve one connection; leaving it closes."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._greet(sock):
            return
        if "one-recv" in self.faults:
            head = sock.recv(600)
        elif "drops-early" in self.faults:
            head = sock.recv(600)[:10]
        else:
            head = self._request(sock)
        if len(head) < 5:
            return
        self._command(sock, head)

    # --- greeting and login

    def _greet(self, sock: socket.socket) -> bool:
        if "one-recv" in self.faults:
            greeting = sock.recv(600)
            methods = greeting[2:]
        else:
            head = _read(sock, 2)
            if head[0] != 5:
                if "any-version" in self.faults:
                    _read(sock, 1)  # what is left unread makes a reset of the end, which takes the answer along
                    sock.sendall(b"\x05\xff")
                return False
            methods = _read(sock, head[1])
        if "few-methods" in self.faults:
            methods = methods[:10]
        if "any-method" in self.faults:
            methods = b"\0\2"
        wanted = 2 if self.login and not (self.let_in and "login-remembered" in self.faults) else 0
        if wanted not in methods:
            sock.sendall(b"\x05\xff" + (bytes(8) if "long-refusal" in self.faults else b""))
            return False
        sock.sendall(bytes((5, wanted)))
        return not wanted or self._log_in(sock)

    def _log_in(self, sock: socket.socket) -> bool:
        version, size = _read(sock, 2)
        if version != 1:
            if "login-skipped" in self.faults:
                self._command(sock, bytes((version, size)) + _read(sock, 8))
            else:
                sock.sendall(b"\1\1")
            return False
        user = _read(sock, size)
        password = _read(sock, _read(sock, 1)[0])
        if "login-c-string" in self.faults:
            user = user.partition(b"\0")[0]
        self.let_in = (user, password) == LOGIN or "login-any" in self.faults
        if self.let_in or "login-closes" not in self.faults:
            sock.sendall(b"\1\0" if self.let_in else b"\1\1")
        return self.let_in

    # --- requests

    def _request(self, sock: socket.socket) -> bytes:
        head = _read(sock, 4)
        size = {1: 4, 4: 16}.get(head[3])
        if size is None and head[3] == 3:
            head += _read(sock, 1)
            size = head[4]
        if size is None:
            _read(sock, 6)
            if "closes-unknown" not in self.faults:
                sock.sendall(b"\x05\x08\0\1" + bytes(6))
            return b""
        return head + _read(sock, size + 2)

    def _command(self, sock: socket.socket, head: bytes) -> None:
        hosts, port = self._target(head)
        command = head[1]
        if command == 0xF0 and "resolve-connects" in self.faults:
            command = 1
        if command == 9 and "any-command" in self.faults:
            command = 1
        serve = {1: self._connect, 2: self._bind, 3: self._associate}.get(command)
        if serve is not None:
            serve(sock, hosts, port)
        elif "closes-unknown" not in self.faults:
            sock.sendall(b"\x05\x07\0\1" + bytes(6))

    def _target(self, head: bytes) -> tuple[tuple[str, ...], int]:
        port = int.from_bytes(head[-2:], "big")
        if head[3] != 3:
            self.asked.add(host := str(ip_address(head[4:-2])))
            return (host,), port
        name = head[5:-2]
        self.asked.add(name.decode())
        if "c-strings" in self.faults:
            name = name.partition(b"\0")[0]
            with contextlib.suppress(ValueError):
                return (str(ip_address(name.decode())),), port
        found = _NAMES.get(name, ())
        return (found[:1] if "first-address" in self.faults else found), port

    def _connect(self, sock: socket.socket, hosts: tuple[str, ...], port: int) -> None:
        reply = 4
        for host in hosts:
            try:
                outbound = socket.create_connection((host, port), PATIENCE)
            except OSError as error:
                reply = _REPLIES.get(error.errno or 0, 1)
                continue
            with outbound:
                sock.sendall(b"\x05\0\0" + self._bound(outbound, host, port))
                self._relay(sock, outbound)
            return
        self._refuse(sock, reply)

    def _refuse(self, sock: socket.socket, reply: int) -> None:
        if "says-success" in self.faults:
            reply = 0
        if "says-1" in self.faults:
            reply = 1
        if "closes-refused" not in self.faults:
            sock.sendall(bytes((5, reply, 0, 1)) + bytes(6))

    def _bound(self, outbound: socket.socket, host: str, port: int) -> bytes:
        where: tuple[str, int] = outbound.getsockname()[:2]
        if "bnd-zero" in self.faults:
            where = ("0.0.0.0", 0)
        if "bnd-echo" in self.faults:
            where = (host, port)
        if "bnd-listener" in self.faults:
            where = self.listener
        return address5(where[0]) + where[1].to_bytes(2, "big")

    # --- tunnels

    def _relay(self, inbound: socket.socket, outbound: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(inbound, selectors.EVENT_READ, outbound)
            selector.register(outbound, selectors.EVENT_READ, inbound)
            while selector.get_map() and (ready := selector.select(PATIENCE)):
                if not all(self._move(selector, key.fileobj, key.data) for key, _ in ready):
                    return

    def _move(self, selector: selectors.BaseSelector, source: socket.socket, sink: socket.socket) -> bool:
        try:
            data = source.recv(65536)
            if data:
                sink.sendall(data[::-1] if "damages" in self.faults and len(data) > 100 else data)
                return True
        except OSError:
            if "hides-reset" not in self.faults:
                sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            sink.close()
            return False
        selector.unregister(source)
        if "no-half-close" in self.faults:
            return False
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        return True

    # --- BIND and UDP

    def _bind(self, sock: socket.socket, hosts: tuple[str, ...], _port: int) -> None:
        if "no-bind" in self.faults:
            sock.sendall(b"\x05\x07\0\1" + bytes(6))
            return
        with socket.create_server(("127.0.0.1", 0)) as waiting:
            told = self.listener if "bind-listener" in self.faults else waiting.getsockname()
            sock.sendall(b"\x05\0\0" + address5(told[0]) + told[1].to_bytes(2, "big"))
            with selectors.DefaultSelector() as selector:
                selector.register(sock, selectors.EVENT_READ)
                selector.register(waiting, selectors.EVENT_READ)
                if all(key.fileobj is sock for key, _ in selector.select(PATIENCE)):
                    return
            peer, source = waiting.accept()
        with peer:
            if source[0] not in hosts and "bind-anybody" not in self.faults:
                sock.sendall(b"\x05\2\0\1" + bytes(6))
                return
            told = ("127.0.0.1", 9) if "bind-wrong-peer" in self.faults else source
            sock.sendall(b"\x05\0\0" + address5(told[0]) + told[1].to_bytes(2, "big"))
            self._relay(sock, peer)

    def _associate(self, sock: socket.socket, _hosts: tuple[str, ...], _port: int) -> None:
        if "no-udp" in self.faults:
            sock.sendall(b"\x05\x07\0\1" + bytes(6))
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
            relay.bind(("127.0.0.1", 0))
            host = {"udp-zero": "0.0.0.0", "udp-elsewhere": "127.0.0.77"}
            told = (*(host[fault] for fault in host if fault in self.faults), "127.0.0.1")[0], relay.getsockname()[1]
            sock.sendall(b"\x05\0\0" + address5(told[0]) + told[1].to_bytes(2, "big"))
            Association(self, sock, relay).run()


class Association:
    """Datagrams between one client and any targets, through two sockets for each version of IP."""

    def __init__(self, proxy: Sick, control: socket.socket, relay: socket.socket) -> None:
        self.faults = proxy.faults
        self.over = proxy.over
        self.control = control
        self.relay = relay
        self.client: tuple[str, int] | None = None
        self.asked: set[tuple[str, int]] = set()

    def run(self) -> None:
        """Relay until the control connection ends."""
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            self.out = {4: stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))}
            self.out[4].bind(("127.0.0.1", 0))
            self.out[6] = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            self.out[6].bind(("::1", 0))
            for sock in (self.control, self.relay, *self.out.values()):
                selector.register(sock, selectors.EVENT_READ)
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end and not self.over.is_set():
                for key, _ in selector.select(0.05):
                    if key.fileobj is self.control:
                        if "udp-outlives" not in self.faults:
                            return
                        selector.unregister(self.control)
                    elif not self._carry(key.fileobj):
                        return

    def _carry(self, sock: socket.socket) -> bool:
        data, source = sock.recvfrom(65536)
        if sock is self.relay:
            return self._from_client(data, source) or "udp-dies" not in self.faults
        if source[:2] in self.asked or "udp-full-cone" in self.faults:
            self._to_client(data, source[:2])
        return True

    def _to_client(self, data: bytes, source: tuple[str, int]) -> None:
        if "udp-cuts" in self.faults:
            data = data[:1492]
        if "udp-wrong-source" in self.faults:
            source = ("127.0.0.1", 9)
        header = b"\0\0\0" + address5(source[0]) + source[1].to_bytes(2, "big")
        assert self.client is not None
        self.relay.sendto(header + data, self.client)

    def _from_client(self, data: bytes, source: tuple[str, int]) -> bool:
        """Send one on; says whether it was good."""
        if source[0] != "127.0.0.1" and not {"udp-anybody", "udp-first"} & self.faults:
            return True
        if self.client is not None and source != self.client and "udp-first" in self.faults:
            return True
        if len(data) < 10 or data[:2] != b"\0\0" or data[3] not in (1, 3, 4):
            return False
        if data[2] and "udp-fragments" not in self.faults:
            return True
        if "udp-anybody" not in self.faults or source[0] == "127.0.0.1":
            self.client = source
        size = {1: 4, 4: 16}.get(data[3])
        start = 4 if size else 5
        size = size or data[4]
        host, end = data[start : start + size], start + size + 2
        name = "127.0.0.1" if data[3] == 3 and host == b"localhost" and "udp-no-names" not in self.faults else ""
        where = str(ip_address(host)) if data[3] != 3 else name
        port = int.from_bytes(data[end - 2 : end], "big")
        sock = self.out.get(6 if ":" in where else 4)
        if not where or not port or sock is None:
            return False
        self.asked.add((where, port))
        sock.sendto(data[end:], (where, port))
        return True


@contextmanager
def sick(*faults: str, login: bool = False) -> Iterator[Sick]:
    """Run it on loopback.

    Args:
        faults: what is wrong with it; without any it is right.
        login: whether it wants `LOGIN`.
    """
    one = Sick(frozenset(faults), login=login)
    with target(one.serve) as where:
        one.listener = where
        try:
            yield one
        finally:
            one.over.set()
