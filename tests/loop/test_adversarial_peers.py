"""Peers that vanish, say nothing or take nothing (rows F4, F5): both legs are watched, and limits end what is left."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.serving import Running, serving
from helpers.socks import connect5, dial, echoes, request5
from helpers.targets import accept, target
from helpers.udp import Association, datagrams
from helpers.waiting import PATIENCE, until
from tabi.policy.verdict import Context, Grants, Limits, Policy, Request, Verdict
from tabi.relay import options

pytestmark = pytest.mark.usefixtures("nothing_left")

KEEPALIVE = 2  # of timer_active in /proc/net/tcp (Documentation/networking/proc_net_tcp.rst)
TICKS = os.sysconf("SC_CLK_TCK")
_TCP_REPAIR = 19  # linux/tcp.h


def granting(port: int = 0, **grants: object) -> Policy:
    """A policy that allows everything, and to this port with these grants."""
    granted = Verdict(allow=True, rule="r", grants=Grants(**grants))  # type: ignore[arg-type]  # as the test says
    plain = Verdict(allow=True, rule="all")

    def judge(request: Request, _context: Context) -> Verdict:
        return granted if request.target is not None and request.target.port == port else plain

    return judge


def timers() -> dict[tuple[int, int], tuple[int, int]]:
    """Give of each TCP socket of this host, by its port and that of its peer, which timer runs, and its ticks."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, _, timer, *_ = line.split()
        kind, ticks = (int(part, 16) for part in timer.split(":"))
        found[int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)] = (kind, ticks)
    return found


def is_watched(near: int, far: int) -> bool:
    """Say whether the socket at port `near`, whose peer is at `far`, is to be probed when it has been silent."""
    kind, ticks = timers().get((near, far), (0, 0))
    return kind == KEEPALIVE and ticks <= options.KEEPALIVE_IDLE * TICKS


# F4: who vanishes


def test_the_kernel_probes_both_legs_of_a_tunnel(running: Running) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        connect5(running.address, *listener.getsockname()) as client,
        accept(listener) as outbound,
    ):
        there = listener.getsockname()
        until(lambda: is_watched(running.address[1], client.getsockname()[1]), "probes of the client")
        until(lambda: is_watched(outbound.getpeername()[1], there[1]), "probes of the target")


def test_the_kernel_probes_the_control_connection_of_an_association(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        client.talk(there)
        until(lambda: is_watched(running.address[1], client.control.getsockname()[1]), "probes of the client")


@contextmanager
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a server whose kernel probes silent peers after a second instead of a minute."""
    quick = {socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT}
    tcp = socket.IPPROTO_TCP
    changed = tuple((level, option, 1 if (level, option) in {(tcp, one) for one in quick} else value)
                    for level, option, value in options._OPTIONS)  # fmt: skip
    monkeypatch.setattr(options, "_OPTIONS", changed)
    with serving(policy=granting(), options={"lane": False}) as running:
        yield running


def vanish(sock: socket.socket) -> None:
    """Close a socket without a word to its peer, as a host does whose cable is cut (TCP_REPAIR)."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    except OSError as error:
        pytest.skip(f"no socket can be made to vanish here: {error.strerror}")
    sock.close()


def test_an_association_ends_whose_client_has_vanished(
    monkeypatch: pytest.MonkeyPatch, there: socket.socket
) -> None:
    with impatient(monkeypatch) as running, Association(running.address) as client:
        egress = client.talk(there)
        vanish(client.control)
        line = running.only_line()
        assert (line["command"], line["by"]) == ("udp_associate", "client")
        assert line["why"] in ("rst", "error:ETIMEDOUT")
        with datagrams(*egress):  # the port is free again
            pass


@pytest.mark.parametrize("who", ["client", "target"])
def test_a_tunnel_ends_one_of_whose_peers_has_vanished(monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    with (
        impatient(monkeypatch) as running,
        socket.create_server(("127.0.0.1", 0)) as listener,
        connect5(running.address, *listener.getsockname()) as client,
        accept(listener) as outbound,
    ):
        vanish(client if who == "client" else outbound)
        line = running.only_line()
        assert (line["by"], line["why"]) in ((who, "rst"), (who, "error:ETIMEDOUT"))


# F4: who says nothing


@pytest.mark.parametrize(
    ("grants", "why"),
    [({"idle": 0.2}, "limit:idle"), ({"limits": Limits(lifetime=0.2)}, "limit:rule-lifetime")],
    ids=["idle", "lifetime"],
)
def test_a_silent_tunnel_ends_by_the_limits_of_its_rule(
    grants: dict[str, object], why: str, echo: tuple[str, int]
) -> None:
    with serving(policy=granting(echo[1], **grants)) as running, dial(running.address) as sock:
        sock.sendall(b"\x05\x01\x00" + request5(1, *echo))  # on a busy machine it is over before a reply could be read
        line = running.only_line()
        assert (line["by"], line["why"]) == ("tabi", why)


# F5: who takes nothing

MOST = 256 << 20  # bytes that are offered: what a server would have to keep that takes all


class Flood:
    """Sends without end, up to `MOST` bytes, and counts what was taken; `is_stuck` when nothing more is."""

    def __init__(self, sock: socket.socket) -> None:
        self.taken = 0
        self.is_stuck = threading.Event()
        self._sock = sock
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._sock.settimeout(0.05)
        data = bytes(1 << 20)
        while self.taken < MOST:
            try:
                self.taken += self._sock.send(data)
            except TimeoutError:
                self.is_stuck.set()
            except OSError:  # it was reset
                break
        self.is_stuck.set()

    def ended(self) -> int:
        """Wait for its end, and give the bytes that were taken."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.taken


def most_of_kernel() -> int:
    """Give the bytes that the kernel keeps of one direction at most: two sockets of each leg, a pipe, and some."""
    buffers = (Path(f"/proc/sys/net/ipv4/tcp_{which}mem").read_text().split()[2] for which in "rw")
    return 2 * sum(map(int, buffers)) + (4 << 20)


@pytest.mark.parametrize("reader", ["client", "target"])
def test_who_reads_nothing_is_not_kept_for_and_ends_by_the_limits(reader: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        serving(policy=granting(listener.getsockname()[1], idle=1.0)) as running,
        connect5(running.address, *listener.getsockname()) as client,
        accept(listener) as outbound,
    ):
        flood = Flood(outbound if reader == "client" else client)
        assert flood.is_stuck.wait(PATIENCE)
        with target() as there, connect5(running.address, *there) as other:
            assert echoes(other)
        line = running.line(rule="r")
        assert (line["by"], line["why"]) == ("tabi", "limit:idle")
        assert flood.ended() <= most_of_kernel() < MOST
