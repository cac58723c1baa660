"""What is easily forgotten on the second leg: keepalive, the family that SOCKS4 can name, the one deadline."""

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.name_service import NameService
from helpers.serving import serving
from helpers.socks import ask5, dial, read_exactly, read_reply5, request4, request5
from helpers.waiting import PATIENCE, until
from tabi.config.settings import TimeLimits
from tabi.server.associate import _open_leg
from tabi.server.outcome import CutShortError

KEEPALIVE = "02"  # proc(5), /proc/net/tcp: the timer that is active


def timers(port: int) -> list[str]:
    """Say which timer each established connection has whose local port this is."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[5][:2] for row in rows if int(row[1].partition(":")[2], 16) == port and row[3] == "01"]


def test_the_peer_of_a_bind_is_kept_alive_like_any_target() -> None:
    with serving() as server:
        sock, reply, host, port = ask5(server.address, 2, "127.0.0.1", 0)
        assert reply == 0
        with sock, socket.create_connection((host, port), PATIENCE):
            assert read_reply5(sock)[0] == 0
            until(lambda: timers(port) == [KEEPALIVE], "the timer, and no other")


@pytest.mark.parametrize("command", [2, 0xF0])
def test_socks4_is_told_no_ipv6_address_that_it_could_not_use(command: int) -> None:
    with serving(tor_resolve=True) as server:
        NameService({"six.example": ["::1"]}).serve(server)
        with dial(server.address) as sock:
            sock.sendall(request4(command, "0.0.0.1", 80, domain=b"six.example"))
            assert read_exactly(sock, 8) == b"\x00\x5b" + bytes(6)


def test_waiting_for_the_shared_port_ends_with_the_deadline_that_began_at_accept() -> None:
    async def never(_session: object, _declared: object) -> None:
        await asyncio.Event().wait()

    class Session:
        server = SimpleNamespace(settings=SimpleNamespace(time=TimeLimits(handshake=600)), open_leg=never)
        notes = SimpleNamespace(milliseconds=lambda: 600_000.0)  # the request came with the last of the deadline

        def watch(self, *, fin: bool) -> None:
            assert fin

    async def body() -> None:
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(CutShortError, match="limit:handshake"):
                await _open_leg(Session(), None)  # type: ignore[arg-type]

    asyncio.run(body())


def test_what_follows_the_request_of_an_association_is_kept_by_nobody() -> None:
    with serving() as server, dial(server.address) as sock:
        sock.sendall(b"\x05\x01\x00" + request5(3, "0.0.0.0", 0) + bytes(3000))
        assert read_exactly(sock, 2) == b"\x05\x00"
        assert read_reply5(sock)[0] == 0
        (session,) = server.call_sync(server.server.sessions)
        assert server.call_sync(session.machine.take_early) == b""
