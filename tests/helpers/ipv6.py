"""IPv6, which not every host has."""

import socket

__all__ = ["why_no_ipv6"]


def why_no_ipv6() -> str | None:
    """Say why there is no IPv6 in the network namespace of this thread, None where there is."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError as error:
        return f"no IPv6 here: {error}"
    return None
