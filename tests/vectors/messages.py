"""Messages typed field by field from the standards, never captured from our own output.

Each row is the bytes of one field and, two spaces on, its name there.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tabi.errors import Reply
from tabi.wire import socks4, socks5, udp, userpass
from tabi.wire.socks5 import Command, Method

__all__ = ["CODECS", "DATAGRAMS", "STREAM", "Vector", "typed"]


def typed(rows: str) -> bytes:
    """Read rows of hexadecimal bytes, each with the name of its field behind two spaces."""
    return b"".join(bytes.fromhex(row.strip().partition("  ")[0]) for row in rows.strip().splitlines())


@dataclass(frozen=True)
class Vector:
    """One message: its bytes, where they are specified, and what they mean."""

    name: str
    source: str
    wire: bytes
    message: object

    def __str__(self) -> str:
        return f"{self.source}: {self.name}"


STREAM = [
    Vector(
        "greeting that offers two methods",
        "RFC 1928 section 3",
        typed("""
            05     VER
            02     NMETHODS
            00 02  METHODS: NO AUTHENTICATION REQUIRED, USERNAME/PASSWORD
        """),
        socks5.Greeting((Method.NONE, Method.USERPASS)),
    ),
    Vector(
        "greeting with GSSAPI, an IANA-assigned and a private method",
        "RFC 1928 section 3",
        typed("""
            05        VER
            03        NMETHODS
            01 03 80  METHODS: GSSAPI, X'03' (IANA ASSIGNED), X'80' (PRIVATE)
        """),
        socks5.Greeting((Method.GSSAPI, Method(0x03), Method(0x80))),
    ),
    Vector(
        "method selection",
        "RFC 1928 section 3",
        typed("""
            05  VER
            02  METHOD: USERNAME/PASSWORD
        """),
        socks5.MethodSelection(Method.USERPASS),
    ),
    Vector(
        "no acceptable methods",
        "RFC 1928 section 3",
        typed("""
            05  VER
            ff  METHOD: NO ACCEPTABLE METHODS
        """),
        socks5.MethodSelection(Method.NO_ACCEPTABLE),
    ),
    Vector(
        "CONNECT to an IPv4 address",
        "RFC 1928 section 4",
        typed("""
            05           VER
            01           CMD: CONNECT
            00           RSV
            01           ATYP: IP V4 address
            c0 00 02 01  DST.ADDR: 192.0.2.1
            00 50        DST.PORT in network octet order: 80
        """),
        socks5.Request(Command.CONNECT, IPv4Address("192.0.2.1"), 80),
    ),
    Vector(
        "CONNECT to a name",
        "RFC 1928 sections 4 and 5",
        typed("""
            05                                VER
            01                                CMD: CONNECT
            00                                RSV
            03                                ATYP: DOMAINNAME
            0b                                number of octets of name that follow
            65 78 61 6d 70 6c 65 2e 63 6f 6d  example.com, no terminating NUL
            01 bb                             DST.PORT: 443
        """),
        socks5.Request(Command.CONNECT, b"example.com", 443),
    ),
    Vector(
        "BIND for an IPv6 address",
        "RFC 1928 sections 4 and 5",
        typed("""
            05                                               VER
            02                                               CMD: BIND
            00                                               RSV
            04                                               ATYP: IP V6 address
            20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01  DST.ADDR: 2001:db8::1
            ff ff                                            DST.PORT: 65535
        """),
        socks5.Request(Command.BIND, IPv6Address("2001:db8::1"), 65535),
    ),
    Vector(
        "UDP ASSOCIATE by a client that does not know its address",
        "RFC 1928 sections 4 and 6",
        typed("""
            05           VER
            03           CMD: UDP ASSOCIATE
            00           RSV
            01           ATYP: IP V4 address
            00 00 00 00  DST.ADDR: all zeros
            00 00        DST.PORT: all zeros
        """),
        socks5.Request(Command.UDP_ASSOCIATE, IPv4Address(0), 0),
    ),
    Vector(
        "RESOLVE, from a client that sets RSV",
        "Tor's socks-extensions.txt section 2",
        typed("""
            05     VER
            f0     CMD: RESOLVE
            07     RSV
            03     ATYP: DOMAINNAME
            01     length
            61     a
            00 2a  port, of no meaning
        """),
        socks5.Request(Command.RESOLVE, b"a", 42, rsv=7),
    ),
    Vector(
        "RESOLVE_PTR",
        "Tor's socks-extensions.txt section 2",
        typed("""
            05           VER
            f1           CMD: RESOLVE_PTR
            00           RSV
            01           ATYP: IP V4 address
            c6 33 64 07  198.51.100.7
            00 00        port, of no meaning
        """),
        socks5.Request(Command.RESOLVE_PTR, IPv4Address("198.51.100.7"), 0),
    ),
    Vector(
        "success with an IPv4 address",
        "RFC 1928 section 6",
        typed("""
            05           VER
            00           REP: succeeded
            00           RSV must be X'00'
            01           ATYP: IP V4 address
            cb 00 71 09  BND.ADDR: 203.0.113.9
            04 38        BND.PORT: 1080
        """),
        socks5.ReplyMessage(Reply.SUCCEEDED, IPv4Address("203.0.113.9"), 1080),
    ),
    Vector(
        "success with an IPv6 address",
        "RFC 1928 section 6",
        typed("""
            05                                               VER
            00                                               REP: succeeded
            00                                               RSV
            04                                               ATYP: IP V6 address
            00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01  BND.ADDR: ::1
            10 e1                                            BND.PORT: 4321
        """),
        socks5.ReplyMessage(Reply.SUCCEEDED, IPv6Address("::1"), 4321),
    ),
    Vector(
        "answer to RESOLVE_PTR",
        "RFC 1928 section 6; Tor's socks-extensions.txt section 2",
        typed("""
            05           VER
            00           REP: succeeded
            00           RSV
            03           ATYP: DOMAINNAME
            04           length
            68 6f 73 74  host
            00 00        BND.PORT
        """),
        socks5.ReplyMessage(Reply.SUCCEEDED, b"host", 0),
    ),
    *(
        Vector(
            f"failure: {text}",
            "RFC 1928 section 6",
            b"\x05" + bytes((code,)) + typed("""
                00           RSV
                01           ATYP: IP V4 address
                00 00 00 00  BND.ADDR
                00 00        BND.PORT
            """),
            socks5.ReplyMessage(Reply(code)),
        )
        for code, text in [
            (0x01, "general SOCKS server failure"),
            (0x02, "connection not allowed by ruleset"),
            (0x03, "Network unreachable"),
            (0x04, "Host unreachable"),
            (0x05, "Connection refused"),
            (0x06, "TTL expired"),
            (0x07, "Command not supported"),
            (0x08, "Address type not supported"),
            (0x09, "X'09' to X'FF' unassigned"),
            (0xFF, "X'09' to X'FF' unassigned"),
        ]
    ),
    Vector(
        "user name and password",
        "RFC 1929 section 2",
        typed("""
            01                 VER
            05                 ULEN
            61 6c 69 63 65     UNAME: alice
            06                 PLEN
            73 65 73 61 6d 65  PASSWD: sesame
        """),
        userpass.Credentials(b"alice", b"sesame"),
    ),
    Vector(
        "accepted",
        "RFC 1929 section 2",
        typed("""
            01  VER
            00  STATUS: success
        """),
        userpass.Status(0),
    ),
    Vector(
        "refused",
        "RFC 1929 section 2",
        typed("""
            01  VER
            01  STATUS: other than X'00'
        """),
        userpass.Status(1),
    ),
    Vector(
        "CONNECT",
        "SOCKS4.protocol, 1) CONNECT",
        typed("""
            04           VN
            01           CD: CONNECT
            00 50        DSTPORT: 80
            c0 00 02 01  DSTIP: 192.0.2.1
            62 6f 62     USERID: bob
            00           NULL
        """),
        socks4.Request(Command.CONNECT, IPv4Address("192.0.2.1"), 80, b"bob"),
    ),
    Vector(
        "BIND without USERID",
        "SOCKS4.protocol, 2) BIND",
        typed("""
            04           VN
            02           CD: BIND
            00 14        DSTPORT: 20
            c0 00 02 02  DSTIP: 192.0.2.2
            00           NULL
        """),
        socks4.Request(Command.BIND, IPv4Address("192.0.2.2"), 20),
    ),
    Vector(
        "CONNECT to a name",
        "SOCKS4a.protocol",
        typed("""
            04                                VN
            01                                CD: CONNECT
            01 bb                             DSTPORT: 443
            00 00 00 01                       DSTIP: 0.0.0.x with x nonzero
            62 6f 62                          USERID: bob
            00                                NULL
            65 78 61 6d 70 6c 65 2e 63 6f 6d  domain: example.com
            00                                NULL
        """),
        socks4.Request(Command.CONNECT, IPv4Address("0.0.0.1"), 443, b"bob", b"example.com"),
    ),
    Vector(
        "BIND for a name, x = 255",
        "SOCKS4a.protocol",
        typed("""
            04           VN
            02           CD: BIND
            00 15        DSTPORT: 21
            00 00 00 ff  DSTIP: 0.0.0.x with x nonzero
            00           NULL
            68           domain: h
            00           NULL
        """),
        socks4.Request(Command.BIND, IPv4Address("0.0.0.255"), 21, b"", b"h"),
    ),
    *(
        Vector(
            text,
            "SOCKS4.protocol, 1) CONNECT",
            b"\x00" + bytes((code,)) + typed("""
                10 e1        DSTPORT: 4321
                c0 00 02 09  DSTIP: 192.0.2.9
            """),
            socks4.ReplyMessage(socks4.Code(code), IPv4Address("192.0.2.9"), 4321),
        )
        for code, text in [
            (90, "request granted"),
            (91, "request rejected or failed"),
            (92, "cannot connect to identd on the client"),
            (93, "client program and identd report different user-ids"),
        ]
    ),
]

DATAGRAMS = [
    Vector(
        "standalone, to an IPv4 address",
        "RFC 1928 section 7",
        typed("""
            00 00        RSV
            00           FRAG: standalone
            01           ATYP: IP V4 address
            c0 00 02 01  DST.ADDR: 192.0.2.1
            00 35        DST.PORT: 53
            71 3f        DATA: q?
        """),
        udp.Datagram(IPv4Address("192.0.2.1"), 53, b"q?"),
    ),
    Vector(
        "last fragment, position 2, to a name",
        "RFC 1928 section 7",
        typed("""
            00 00  RSV
            82     FRAG: high-order bit, position 2
            03     ATYP: DOMAINNAME
            01     length
            68     h
            00 07  DST.PORT: 7
            2e     DATA
        """),
        udp.Datagram(b"h", 7, b".", 0x82),
    ),
    Vector(
        "without data, to an IPv6 address",
        "RFC 1928 section 7",
        typed("""
            00 00                                            RSV
            00                                               FRAG
            04                                               ATYP: IP V6 address
            00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01  DST.ADDR: ::1
            00 09                                            DST.PORT: 9
        """),
        udp.Datagram(IPv6Address("::1"), 9, b""),
    ),
]

CODECS = sorted({type(vector.message) for vector in STREAM}, key=lambda codec: codec.__qualname__)
