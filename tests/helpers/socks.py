"""Bytes of SOCKS handshakes over blocking sockets, typed from the documents and not from our codecs."""

import socket
import struct
from ipaddress import ip_address

from helpers.waiting import PATIENCE

LINGER_ZERO = struct.pack("ii", 1, 0)


def address5(host: str | bytes) -> bytes:
    """ATYP and address (RFC 1928 section 5): text that is an address goes as one, bytes and other text as a domain."""
    if isinstance(host, str):
        try:
            packed = ip_address(host).packed
        except ValueError:
            host = host.encode()
        else:
            return (b"\x01" if len(packed) == 4 else b"\x04") + packed
    return bytes((3, len(host))) + host


def request5(command: int, host: str | bytes, port: int) -> bytes:
    """RFC 1928 section 4."""
    return bytes((5, command, 0)) + address5(host) + port.to_bytes(2, "big")


def request4(command: int, address: str, port: int, userid: bytes = b"", domain: bytes | None = None) -> bytes:
    """SOCKS4.protocol, SOCKS4a.protocol."""
    head = bytes((4, command)) + port.to_bytes(2, "big") + ip_address(address).packed + userid + b"\0"
    return head if domain is None else head + domain + b"\0"


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end of the stream."""
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def heard_before_the_end(sock: socket.socket) -> bytes:
    """Read to the end, be it a reset: of who was cut off, or gone before it knew that it was connected."""
    data = b""
    try:
        while more := sock.recv(65536):
            data += more
    except ConnectionResetError:
        pass
    return data


def read_all(sock: socket.socket) -> bytes:
    """Read to the end of the stream."""
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


def read_reply5(sock: socket.socket) -> tuple[int, str, int]:
    """Read a SOCKS5 reply; gives REP, BND.ADDR as text and BND.PORT."""
    head = read_exactly(sock, 4)
    assert len(head) == 4, head
    assert (head[0], head[2]) == (5, 0), head
    size = {1: 4, 4: 16}.get(head[3]) or read_exactly(sock, 1)[0]
    raw = read_exactly(sock, size)
    port = int.from_bytes(read_exactly(sock, 2), "big")
    return head[1], raw.decode() if head[3] == 3 else str(ip_address(raw)), port


def dial(proxy: tuple[str, int], source: tuple[str, int] | None = None) -> socket.socket:
    """Connect to the proxy, every wait bounded."""
    sock = socket.create_connection(proxy, PATIENCE, source_address=source)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def greet5(proxy: tuple[str, int], source: tuple[str, int] | None = None) -> socket.socket:
    """Connect and negotiate no authentication."""
    sock = dial(proxy, source)
    sock.sendall(b"\x05\x01\x00")
    assert read_exactly(sock, 2) == b"\x05\x00"
    return sock


def ask5(proxy: tuple[str, int], command: int, host: str | bytes, port: int) -> tuple[socket.socket, int, str, int]:
    """Negotiate and ask; gives the socket, REP, BND.ADDR and BND.PORT."""
    sock = greet5(proxy)
    sock.sendall(request5(command, host, port))
    return (sock, *read_reply5(sock))


def connect5(proxy: tuple[str, int], host: str | bytes, port: int) -> socket.socket:
    """CONNECT that must succeed."""
    sock, reply, _, _ = ask5(proxy, 1, host, port)
    assert reply == 0, reply
    return sock


def echoes(sock: socket.socket, data: bytes = b"ping") -> bool:
    """Say whether a tunnel to a target that echoes brings this back."""
    sock.sendall(data)
    return read_exactly(sock, len(data)) == data


def reset(sock: socket.socket) -> None:
    """Close by a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    sock.close()
