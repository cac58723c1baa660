"""Two network namespaces as `tabi run` has them, for datagrams, and a proxy that relays them as its test says.

::

    this process                    gate                              program
    proxy on 127.0.0.1              e1 198.18.0.1, fd00:5ec::1 ------ e0 198.18.0.2, fd00:5ec::2
                                    every address is local            everything goes to e1

Nothing leaves this machine: the gate has no other link, and behind the scripted proxy there is nothing.
"""

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from helpers.namespaces import Namespace
from helpers.programs import need

__all__ = ["DatagramGate", "Relay", "ScriptedRelays", "datagram_gate"]

_PORT = 10  # of the transparent sockets
_RULES = f"""
table inet datagrams {{
    chain take {{
        type filter hook prerouting priority mangle;
        iifname "e1" ip protocol udp tproxy ip to 127.0.0.1:{_PORT} accept
        iifname "e1" meta nfproto ipv6 meta l4proto udp tproxy ip6 to [::1]:{_PORT} accept
    }}
}}
"""
# linux/in.h, linux/in6.h: IP_TRANSPARENT, IP_RECVORIGDSTADDR and their twins
_OPTIONS4 = ((socket.IPPROTO_IP, 19), (socket.IPPROTO_IP, 20))
_OPTIONS6 = ((socket.IPPROTO_IPV6, 75), (socket.IPPROTO_IPV6, 74), (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


class DatagramGate:
    """The gate's sockets (`tabi.wrap.datagrams.Sockets`), and the host of the program."""

    def __init__(self, gate: Namespace, program: Namespace) -> None:
        self._program = program
        self.udp4 = gate.call(_transparent, socket.AF_INET, "0.0.0.0", _OPTIONS4)
        self.udp6 = gate.call(_transparent, socket.AF_INET6, "::", _OPTIONS6)
        self.raw4 = gate.call(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.raw6 = gate.call(socket.socket, socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
        for sock in (self.raw4, self.raw6):
            sock.setblocking(False)

    def close(self) -> None:
        """Close the gate's sockets."""
        for sock in (self.udp4, self.udp6, self.raw4, self.raw6):
            sock.close()

    def socket(self, version: int = 4) -> socket.socket:
        """Make a socket of the program."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        return self._program.call(socket.socket, family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


@contextmanager
def datagram_gate() -> Iterator[tuple[Namespace, Namespace]]:
    """Make the two hosts."""
    nft = need("nft")
    with Namespace("gate") as gate, Namespace("program") as program:
        ours, theirs = (("address", f"02:00:00:00:00:0{last}", "mtu", "65535") for last in (1, 2))
        gate.ip("link", "add", "e1", *ours, "type", "veth", "peer", "name", "e0", *theirs, "netns", program.name)
        for host, link, last in ((gate, "e1", 1), (program, "e0", 2)):
            host.ip("link", "set", link, "up")
            host.address(link, f"198.18.0.{last}/30", f"fd00:5ec::{last}/64")
            for other in (f"198.18.0.{3 - last}", f"fd00:5ec::{3 - last}"):
                host.ip("neighbour", "add", other, "lladdr", f"02:00:00:00:00:0{3 - last}", "dev", link)
        program.ip("route", "add", "default", "via", "198.18.0.1")
        program.ip("-6", "route", "add", "default", "via", "fd00:5ec::1")
        for family in ("-4", "-6"):
            gate.ip(family, "route", "add", "local", "default", "dev", "lo", "table", "main")
        done = subprocess.run(gate.command(nft, "-f", "-"), check=False, input=_RULES, text=True, capture_output=True)
        if done.returncode != 0:
            pytest.skip(f"no datagram can be led to a transparent socket here: {done.stderr.strip()}")
        yield gate, program


class Relay(asyncio.DatagramProtocol):
    """The relay of one association.

    Attributes:
        received: datagrams as they came, with their headers.
        is_over: whether the client has ended the control connection.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.received: list[bytes] = []
        self.is_over = False
        self.address: tuple[str, int] = ("", 0)
        self._writer = writer
        self._client: tuple[str, int] = ("", 0)
        self._transport: asyncio.DatagramTransport

    @property
    def client(self) -> tuple[str, int]:
        """Where the client's datagrams come from."""
        return self._client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport  # type: ignore[assignment]  # asyncio's own is none by its class
        self.address = transport.get_extra_info("sockname")[:2]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """See asyncio."""
        self._client = addr
        self.received.append(data)

    def send(self, raw: bytes) -> None:
        """Send to the client, as it is."""
        self._transport.sendto(raw, self._client)

    def end(self) -> None:
        """End the association."""
        self._writer.close()

    def close(self) -> None:
        """Close the socket."""
        self._transport.close()


class ScriptedRelays:
    """A SOCKS5 proxy (RFC 1928) that grants associations, or does not.

    Attributes:
        reply: REP.
        asked: requests that have come.
        relays: of the associations that were granted.
        may_answer: cleared, requests wait.
    """

    def __init__(self) -> None:
        self.reply = 0
        self.asked = 0
        self.relays: list[Relay] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.url = ""
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()
        self._others: set[asyncio.Task[object]] = set()

    async def __aenter__(self) -> "ScriptedRelays":
        self._others = asyncio.all_tasks()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"socks5h://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.may_answer.set()
        while asyncio.all_tasks() - self._others:  # of connections, those included that are just being accepted
            for writer in self._writers:
                writer.close()
            await asyncio.sleep(0)
        await self._server.wait_closed()
        for relay in self.relays:
            relay.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):  # the client has left meanwhile
            pass
        finally:
            writer.close()
            self._writers.discard(writer)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly((await reader.readexactly(2))[1])
        writer.write(b"\x05\x00")
        head = await reader.readexactly(4)
        assert head[:2] == b"\x05\x03", "UDP ASSOCIATE"
        await reader.readexactly({1: 6, 4: 18}[head[3]])
        self.asked += 1
        await self.may_answer.wait()
        if self.reply:
            writer.write(bytes((5, self.reply, 0, 1)) + bytes(6))
        else:
            relay = Relay(writer)
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: relay, ("127.0.0.1", 0))
            host, port = relay.address
            writer.write(b"\x05\x00\x00\x01" + ip_address(host).packed + port.to_bytes(2, "big"))
            self.relays.append(relay)
            try:
                await reader.read()
            finally:
                relay.is_over = True


def _transparent(family: int, host: str, options: tuple[tuple[int, int], ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    for level, option in options:
        sock.setsockopt(level, option, 1)
    sock.bind((host, _PORT))
    return sock
