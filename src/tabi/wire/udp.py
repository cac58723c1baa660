"""The UDP request header (RFC 1928 section 7): ``RSV RSV FRAG ATYP DST.ADDR DST.PORT DATA``."""

from dataclasses import dataclass
from typing import Self

from tabi.errors import ProtocolError, Stage
from tabi.wire.address import Buffer, WireHost, decode_address, encode_address

__all__ = ["LAST_FRAGMENT", "MAX_PAYLOAD_IPV4", "Datagram", "encode_header"]

LAST_FRAGMENT = 0x80  # RFC 1928 section 7: high bit of FRAG marks the last one
MAX_PAYLOAD_IPV4 = 65_507  # 65,535 less the headers of IPv4 (20) and UDP (8)


@dataclass(frozen=True, slots=True)
class Datagram:
    """One datagram between client and relay. FRAG 0 stands alone, 1 to 127 is the position in a sequence."""

    host: WireHost
    port: int
    data: bytes
    frag: int = 0

    @classmethod
    def decode(cls, buf: Buffer) -> Self:
        """Read a datagram; empty data is legal.

        Raises:
            ProtocolError: too short, RSV not zero, or an unknown ATYP: to be dropped, nothing more.
        """
        if len(buf) < 4:
            text = f"datagram of {len(buf)} bytes is shorter than its header"
            raise ProtocolError(text, stage=Stage.ASSOCIATE)
        if buf[0] or buf[1]:
            raise ProtocolError("datagram whose RSV is not zero", stage=Stage.ASSOCIATE)
        host, port, end = decode_address(buf, 3)
        return cls(host, port, bytes(buf[end:]), buf[2])

    def encode(self) -> bytes:
        """Write it."""
        return bytes((0, 0, self.frag)) + encode_address(self.host, self.port) + self.data


def encode_header(host: WireHost, port: int) -> bytes:
    """Write the header alone, FRAG 0: what goes before data from `host`."""
    return b"\0\0\0" + encode_address(host, port)
