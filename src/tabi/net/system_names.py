"""The system's own look-ups, getaddrinfo and getnameinfo, with their errors as DialErrors. They block."""

import socket
from collections.abc import Iterable
from ipaddress import ip_address

from tabi.addr import Address, Name, parse_host
from tabi.dial.wishes import Family
from tabi.errors import AddressError, DialError, Reply, Stage

__all__ = ["addresses_of", "failed", "name_of", "no_such", "read_addresses", "read_name"]

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_NO_ADDRESS = frozenset({socket.EAI_NODATA, socket.EAI_ADDRFAMILY})


def addresses_of(name: Name, family: Family) -> tuple[Address, ...]:
    """Ask getaddrinfo for the addresses of one family; there may be none.

    Raises:
        DialError: stage RESOLVE; whether it is worth asking again, `retryable` says.
    """
    # As bytes: the name is in A-labels already, and for text Python would apply its idna codec once more. Flags
    # stay 0: AI_ADDRCONFIG would hide IPv6 answers on hosts whose only IPv6 address is ::1.
    try:
        found = socket.getaddrinfo(name.text.encode(), 0, family=_AF[family], type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NO_ADDRESS:
            return ()
        raise _from_gaierror(name, error) from None
    except OSError as error:  # EAI_SYSTEM comes as what errno says
        raise failed(name, str(error), Reply.GENERAL_FAILURE) from None
    return read_addresses(str(entry[4][0]) for entry in found)


def name_of(address: Address) -> Name:
    """Ask getnameinfo for the name of an address.

    Raises:
        DialError: it has none that can be used, or the look-up failed.
    """
    try:
        text, _ = socket.getnameinfo((str(address), 0), socket.NI_NAMEREQD)
    except socket.gaierror as error:
        raise _from_gaierror(address, error) from None
    except OSError as error:
        raise failed(address, str(error), Reply.GENERAL_FAILURE) from None
    return read_name(address, text)


def read_addresses(texts: Iterable[str]) -> tuple[Address, ...]:
    """Read what a look-up gave, each address once."""
    # A zone ("fe80::1%eth0") means an interface of this host and has no place in SOCKS.
    return tuple(dict.fromkeys(ip_address(text.partition("%")[0]) for text in texts))


def read_name(address: Address, text: str) -> Name:
    """Read the name that a look-up gave for an address.

    Raises:
        DialError: it is none.
    """
    try:
        name = parse_host(text)
    except AddressError as error:
        raise failed(address, f"its name cannot be used: {error}") from None
    if not isinstance(name, Name):
        raise failed(address, f"its name is an address, {name}")
    return name


def no_such(what: Name | Address) -> DialError:
    """Make the error of a name that does not exist, or of an address that has none."""
    text = f"{what}: there is no such name" if isinstance(what, Name) else f"{what}: it has no name"
    return DialError(text, stage=Stage.RESOLVE, reply=Reply.HOST_UNREACHABLE, retryable=False)


def failed(what: object, why: str, reply: Reply = Reply.HOST_UNREACHABLE) -> DialError:
    """Make the error of a look-up that may succeed later."""
    return DialError(f"{what}: the look-up failed: {why}", stage=Stage.RESOLVE, reply=reply)


def _from_gaierror(what: Name | Address, error: socket.gaierror) -> DialError:
    if error.errno == socket.EAI_NONAME:
        return no_such(what)
    if error.errno == socket.EAI_AGAIN:
        return failed(what, "the name servers do not answer or have a passing trouble")
    if error.errno == socket.EAI_FAIL:
        return failed(what, "the name server refuses or cannot answer")
    return failed(what, error.strerror or str(error), Reply.GENERAL_FAILURE)
