"""A careful client of SOCKS5 on a blocking socket: one message at a time, no byte too many is read (RFC 1928, 1929)."""

import socket

__all__ = ["connect", "greet"]

_ADDRESS_AND_PORT = {1: 4 + 2, 4: 16 + 2}


def greet(sock: socket.socket, login: tuple[str, str] | None = None) -> None:
    """Agree on a method, and log in where there is a login.

    Raises:
        EOFError: it was refused, or the proxy closed.
    """
    method = b"\x02" if login else b"\x00"
    sock.sendall(b"\x05\x01" + method)
    if _exactly(sock, 2) != b"\x05" + method:
        raise EOFError("the greeting was refused")
    if login:
        user, password = (word.encode() for word in login)
        sock.sendall(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
        if _exactly(sock, 2)[1] != 0:
            raise EOFError("the login was refused")


def connect(sock: socket.socket, there: tuple[str, int]) -> None:
    """Have an IPv4 address connected to.

    Raises:
        EOFError: it was refused, or the proxy closed.
    """
    sock.sendall(b"\x05\x01\x00\x01" + socket.inet_aton(there[0]) + there[1].to_bytes(2))
    head = _exactly(sock, 4)
    if head[1] != 0:
        raise EOFError(f"reply {head[1]}")
    _exactly(sock, _ADDRESS_AND_PORT[head[3]])


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise EOFError("closed in the handshake")
        data += part
    return data
