"""Which protocol a client speaks."""

from enum import Enum

__all__ = ["Version"]


class Version(Enum):
    """SOCKS4a is SOCKS4 with a domain behind the USERID."""

    SOCKS4 = "4"
    SOCKS4A = "4a"
    SOCKS5 = "5"
