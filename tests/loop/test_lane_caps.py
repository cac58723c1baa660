"""Caps and limits hold over workers, whoever of lane and control plane serves: never one too many, and all are used."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.configured import ALLOW, JSON, LISTEN, Configured, configured, logged_in, user
from helpers.socks import dial, read_exactly, read_reply5, request5
from helpers.targets import target
from helpers.waiting import until

WORKERS = 4
MOST = 5
HAMMERS = 8
ROUNDS = 25

HEAD = LISTEN + JSON
CASES = {
    "cap": HEAD + f"[cap]\nper_client = {MOST}\n" + ALLOW,
    "rule": HEAD + ALLOW + f"sessions = {MOST}\n",
    "user": HEAD + user("alice", b"secret", f"sessions = {MOST}") + ALLOW,
}


class Gate:
    """The target's view: how many tunnels there are at once, and how many there ever were."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = self.served = 0

    def __call__(self, sock: socket.socket) -> None:
        """Serve one tunnel: a byte when it is counted, the end when the client ends."""
        with self.lock:
            self.now += 1
            self.served += 1
            self.most = max(self.most, self.now)
        sock.sendall(b"!")
        while sock.recv(100):
            pass
        with self.lock:
            self.now -= 1


def tunnel(server: Configured, case: str, there: tuple[str, int]) -> socket.socket | None:
    """Open a tunnel to the gate, or be refused."""
    sock = dial(server.address) if case != "user" else logged_in(server.address, b"alice")
    try:
        if case != "user":
            sock.sendall(b"\x05\x01\x00")
            if read_exactly(sock, 2) != b"\x05\x00":
                sock.close()
                return None
        sock.sendall(request5(1, *there))
        if read_reply5(sock)[0] == 0 and read_exactly(sock, 1) == b"!":
            return sock
    except (ConnectionResetError, AssertionError):  # a cap resets, or ends before the method
        pass
    sock.close()
    return None


def hammer(open_one: Callable[[], socket.socket | None]) -> None:
    """Open tunnels, two at once, and close them again."""
    for _ in range(ROUNDS):
        for sock in [open_one(), open_one()]:
            if sock is not None:
                sock.close()


@pytest.mark.parametrize("lane", ["0", "1"], ids=["lane-off", "lane-on"], indirect=True)
@pytest.mark.parametrize("case", CASES)
def test_four_workers_let_in_as_many_as_may_be_and_not_one_more(tmp_path: Path, case: str) -> None:
    gate = Gate()
    with configured(tmp_path, CASES[case], workers=WORKERS) as server, target(gate) as there:
        threads = [
            threading.Thread(target=hammer, args=(lambda: tunnel(server, case, there),)) for _ in range(HAMMERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert gate.served > MOST
        assert gate.most <= MOST
        until(lambda: not server.rows("sessions"), "all to be counted out")
        held = [until(lambda: tunnel(server, case, there), "a place") for _ in range(MOST)]
        assert tunnel(server, case, there) is None
        for sock in held:
            assert sock is not None
            sock.close()
