"""The one table of the gate's packet filter, written for nf_tables by ourselves (linux/netfilter/nf_tables.h).

As nft(8) would say it::

    table inet tabi {
        chain arriving {                                    # before anything else looks at a packet
            type filter hook prerouting priority raw; policy drop;
            iifname != "e1" accept                          # the gate's own: the SYNs that are let through
            ip daddr 198.18.0.1 tcp dport 53 accept         # names
            ip6 daddr fd00:5ec::1 tcp dport 53 accept
            tcp flags & (fin | syn | rst | ack) == syn drop # a packet socket has seen it; it is held
            meta l4proto tcp accept
            meta l4proto udp accept
        }                                                   # what is neither TCP nor UDP goes nowhere
        chain catching {                                    # not without tproxy
            type filter hook prerouting priority mangle; policy accept;
            iifname "lo" tcp flags & (fin | syn | rst | ack) == syn tproxy to :PORT
            iifname "e1" ip daddr 198.18.0.1 udp dport 53 accept
            iifname "e1" ip6 daddr fd00:5ec::1 udp dport 53 accept
            iifname "e1" meta l4proto udp tproxy to :PORT
        }
    }
"""

import struct
from ipaddress import IPv4Address
from typing import Final

from tabi.addr import Address
from tabi.wrap.netlink import CREATE, HEADER, Netlink, Request, attribute, nested

__all__ = ["NETFILTER", "batch", "install"]

NETFILTER: Final = 12  # NETLINK_NETFILTER
_SUBSYSTEM: Final = 10  # NFNL_SUBSYS_NFTABLES
_BEGIN, _END = 0x10, 0x11  # NFNL_MSG_BATCH_BEGIN, _END
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 3, 6
_APPEND: Final = 0x800  # NLM_F_APPEND
_GENERIC: Final = struct.Struct(">BBH")  # nfgenmsg: family, version, resource
_INET: Final = 1  # NFPROTO_INET
_UNSPEC: Final = 0
_PREROUTING: Final = 0
_RAW, _MANGLE = -300, -150
_DROP, _ACCEPT = 0, 1
_TABLE, _ARRIVING, _CATCHING = "tabi", "arriving", "catching"

_REGISTER: Final = 1  # NFT_REG_1
_VERDICT: Final = 0  # NFT_REG_VERDICT
_IIFNAME, _NFPROTO, _L4PROTO = 6, 15, 16  # of enum nft_meta_keys
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_EQUAL, _NOT_EQUAL = 0, 1
_NAME_SIZE: Final = 16  # IFNAMSIZ
_V4, _V6 = b"\2", b"\x0a"
_TCP, _UDP = b"\x06", b"\x11"
_FLAGS, _SYN = b"\x17", b"\x02"  # RFC 9293 section 3.1: FIN, SYN, RST, ACK


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(1, data))  # NFTA_DATA_VALUE


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, _text(1, name), nested(2, *attributes))  # NFTA_LIST_ELEM, NFTA_EXPR_NAME, NFTA_EXPR_DATA


def _compare(data: bytes, operation: int = _EQUAL) -> bytes:
    return _expression("cmp", _number(1, _REGISTER), _number(2, operation), _value(3, data))


def _meta(key: int) -> bytes:
    return _expression("meta", _number(2, key), _number(1, _REGISTER))


def _load(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", _number(1, _REGISTER), _number(2, base), _number(3, offset), _number(4, length))


def _verdict(code: int) -> bytes:
    return _expression("immediate", _number(1, _VERDICT), nested(2, nested(2, _number(1, code))))


def _from(link: str, operation: int = _EQUAL) -> bytes:
    return _meta(_IIFNAME) + _compare(link.encode().ljust(_NAME_SIZE, b"\0"), operation)


def _protocol(number: bytes) -> bytes:
    return _meta(_L4PROTO) + _compare(number)


def _is_syn() -> bytes:
    masked = _expression(
        "bitwise", _number(1, _REGISTER), _number(2, _REGISTER), _number(3, 1), _value(4, _FLAGS), _value(5, b"\0")
    )
    return _protocol(_TCP) + _load(_TRANSPORT_HEADER, 13, 1) + masked + _compare(_SYN)


def _to(host: Address, protocol: bytes, port: int) -> bytes:
    family, offset = (_V4, 16) if isinstance(host, IPv4Address) else (_V6, 24)
    where = _load(_NETWORK_HEADER, offset, len(host.packed)) + _compare(host.packed)
    service = _load(_TRANSPORT_HEADER, 2, 2) + _compare(port.to_bytes(2, "big"))
    return _meta(_NFPROTO) + _compare(family) + where + _protocol(protocol) + service


def _catch(port: int) -> bytes:
    """To whoever listens on all addresses at a port, with the packet's own destination kept."""
    load = _expression("immediate", _number(1, _REGISTER), _value(2, port.to_bytes(2, "big")))
    return load + _expression("tproxy", _number(1, _UNSPEC), _number(3, _REGISTER)) + _verdict(_ACCEPT)


def _arriving(link: str, responders: tuple[Address, ...], names_port: int) -> list[bytes]:
    return [
        _from(link, _NOT_EQUAL) + _verdict(_ACCEPT),
        *(_to(one, _TCP, names_port) + _verdict(_ACCEPT) for one in responders),
        _is_syn() + _verdict(_DROP),
        _protocol(_TCP) + _verdict(_ACCEPT),
        _protocol(_UDP) + _verdict(_ACCEPT),
    ]


def _catching(link: str, responders: tuple[Address, ...], names_port: int, port: int) -> list[bytes]:
    return [
        _from("lo") + _is_syn() + _catch(port),
        *(_from(link) + _to(one, _UDP, names_port) + _verdict(_ACCEPT) for one in responders),
        _from(link) + _protocol(_UDP) + _catch(port),
    ]


def _request(kind: int, flags: int, *attributes: bytes) -> Request:
    body = _GENERIC.pack(_INET, 0, 0) + b"".join(attributes)
    return Request(_SUBSYSTEM << 8 | kind, flags, body, "setting the packet filter")


def _chain(name: str, priority: int, policy: int, rules: list[bytes]) -> list[Request]:
    hook = nested(4, _number(1, _PREROUTING), attribute(2, struct.pack(">i", priority)))
    head = _request(_NEW_CHAIN, CREATE, _text(1, _TABLE), _text(3, name), hook, _number(5, policy), _text(7, "filter"))
    return [
        head,
        *(_request(_NEW_RULE, CREATE | _APPEND, _text(1, _TABLE), _text(2, name), nested(4, one)) for one in rules),
    ]


def batch(link: str, responders: tuple[Address, ...], names_port: int, catch: int | None) -> tuple[bytes, int]:
    """Write all of the table as one transaction.

    Args:
        link: where the program's packets arrive.
        responders: where its names are answered.
        names_port: the port of that.
        catch: the port of the sockets that take re-injected SYNs and all datagrams; None: without tproxy.

    Returns:
        the messages, and the number of the last one that is answered.
    """
    requests = [_request(_NEW_TABLE, CREATE, _text(1, _TABLE))]
    requests += _chain(_ARRIVING, _RAW, _DROP, _arriving(link, responders, names_port))
    if catch is not None:
        requests += _chain(_CATCHING, _MANGLE, _ACCEPT, _catching(link, responders, names_port, catch))
    last = len(requests) + 1
    parts = [_bound(_BEGIN, 1), *(one.encode(number) for number, one in enumerate(requests, 2)), _bound(_END, last + 1)]
    return b"".join(parts), last


def _bound(kind: int, sequence: int) -> bytes:
    """Write the begin or the end of a transaction, which nobody answers."""
    body = _GENERIC.pack(_UNSPEC, 0, _SUBSYSTEM)
    return HEADER.pack(HEADER.size + len(body), kind, 1, sequence, 0) + body


def install(link: str, responders: tuple[Address, ...], names_port: int, catch: int | None) -> None:
    """Give the network namespace of this process the table.

    Raises:
        OSError: the kernel does not take it, and nothing has changed: no nf_tables, or none of its tproxy.
    """
    data, last = batch(link, responders, names_port, catch)
    with Netlink(NETFILTER) as netlink:
        netlink.send(data, last, "setting the packet filter")
