"""Guessing passwords from other hosts (row E2): one address and many names, many addresses and one name, a whole /64.

The counting as such is tested without sockets; here it is the address that the kernel tells, in a server on another
host, with delays so short that ten of them pass at once.
"""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from helpers.accounts import Comparisons, table
from helpers.configured import JSON, configured, user
from helpers.hostile import USERPASS, login
from helpers.namespaces import Network
from helpers.serving import SERVE, Running, serving
from helpers.socks import dial, read_all, read_exactly
from tabi.addr import Endpoint
from tabi.server.accounts import Accounts
from tabi.server.lockouts import LockoutRules, Lockouts

PROXY, PROXY6 = "198.51.100.1", "2001:db8:1::1"
GOOD, BAD = b"\x05\x02\x01\x00", b"\x05\x02\x01\x01"
QUICK = LockoutRules(delays=(0.001,))
FAILURES, USERS = QUICK.failures, QUICK.users


class Guarded:
    """A server that wants a login, and what it hashes."""

    def __init__(self, world: Network, running: Running, accounts: Accounts, compared: Comparisons) -> None:
        self.world, self.running, self.accounts, self.compared = world, running, accounts, compared

    def attempt(self, source: str, name: bytes, password: bytes = b"guess") -> bytes:
        """Log in from an address, and give what the server said."""
        endpoint = self.running.addresses[":" in source]
        with self.world.client.call(dial, (str(endpoint.host), endpoint.port), (source, 0)) as sock:
            sock.sendall(USERPASS + login(name, password))
            sock.shutdown(socket.SHUT_WR)
            return read_exactly(sock, 4)

    def closed(self) -> set[tuple[str, bytes | None]]:
        """Say who is closed out."""
        entries = self.running.call_sync(lambda: self.accounts.lockouts.entries(self.running.loop.time()))
        return {(entry.client, entry.user) for entry in entries if entry.closed}


@pytest.fixture
def guarded(world: Network) -> Iterator[Guarded]:
    """Run one on the proxy host."""
    compared = Comparisons()
    users = {b"alice": b"secret", b"bob": b"secret", b"carol": b"secret"}
    accounts = Accounts(table(users), lockouts=Lockouts(QUICK), compare=compared)
    listen = (Endpoint.parse(f"{PROXY}:0"), Endpoint.parse(f"[{PROXY6}]:0"))
    try:
        with world.proxy.entering(serving(listen=listen, authenticator=accounts)) as running:
            yield Guarded(world, running, accounts, compared)
    finally:
        accounts.close()


def test_many_names_from_one_address_close_it_for_everybody(guarded: Guarded) -> None:
    for number in range(USERS):
        assert guarded.attempt("198.51.100.20", b"user%d" % number) == BAD
    assert guarded.closed() == {("198.51.100.20", None)}
    hashes = len(guarded.compared)
    assert guarded.attempt("198.51.100.20", b"alice", b"secret") == BAD
    assert len(guarded.compared) == hashes, "no hash for who is closed out"
    assert guarded.attempt("198.51.100.21", b"alice", b"secret") == GOOD
    assert guarded.attempt("2001:db8:1::2", b"alice", b"secret") == GOOD


def test_one_name_from_many_addresses_is_nobodys_lockout(guarded: Guarded) -> None:
    """Otherwise whoever knows a name could close it out."""
    for last in range(20, 80):
        assert guarded.attempt(f"198.51.100.{last}", b"alice") == BAD
    assert guarded.closed() == set()
    assert guarded.attempt("198.51.100.80", b"alice", b"secret") == GOOD


def test_each_of_many_addresses_has_but_few_guesses(guarded: Guarded) -> None:
    sources = [f"198.51.100.{last}" for last in range(20, 24)]
    for source in sources:
        for _ in range(FAILURES + 3):
            assert guarded.attempt(source, b"alice") == BAD
    assert guarded.closed() == {(source, b"alice") for source in sources}
    assert len(guarded.compared) == FAILURES * len(sources)
    assert guarded.attempt(sources[0], b"alice", b"secret") == BAD
    assert guarded.attempt(sources[0], b"bob", b"secret") == GOOD
    assert guarded.attempt("198.51.100.80", b"alice", b"secret") == GOOD


def test_all_addresses_of_a_64_are_one_client(guarded: Guarded) -> None:
    rotated = [f"2001:db8:1::{last}" for last in range(2, 42)]
    for source in rotated[: FAILURES + 3]:
        assert guarded.attempt(source, b"alice") == BAD
    assert guarded.closed() == {("2001:db8:1::/64", b"alice")}
    assert len(guarded.compared) == FAILURES
    assert guarded.attempt(rotated[-1], b"alice", b"secret") == BAD
    assert guarded.attempt("2001:db8:9::2", b"alice", b"secret") == GOOD, "another /64"


def test_many_names_from_a_64_close_all_of_it(guarded: Guarded) -> None:
    for number in range(USERS):
        assert guarded.attempt(f"2001:db8:1::{2 + number}", b"user%d" % number) == BAD
    assert guarded.closed() == {("2001:db8:1::/64", None)}
    assert guarded.attempt("2001:db8:1::41", b"alice", b"secret") == BAD
    assert guarded.attempt("2001:db8:9::2", b"alice", b"secret") == GOOD


def test_guessing_at_all_workers_at_once_gains_no_more_than_one_guess_for_each(world: Network, tmp_path: Path) -> None:
    """What waits for a delay, which is a second at least, is cut off by the limit of the handshake before."""
    text = f'listen = ["{PROXY}:1090"]\n{JSON}[time]\nhandshake = 1\n' + user("alice") + "[[rule]]\nallow = true\n"
    program = world.proxy.command(*SERVE)
    with configured(tmp_path, text, workers=4, program=program) as server, ExitStack() as stack:
        server.workers(4)
        socks = [
            stack.enter_context(world.client.call(dial, (PROXY, 1090), ("198.51.100.90", 0))) for _ in range(60)
        ]
        for number, sock in enumerate(socks):
            sock.sendall(USERPASS + login(b"alice", b"guess%d" % number))
        answers = Counter(map(read_all, socks))
        assert answers.keys() == {BAD, b""}
        assert answers[BAD] <= 4

        (count,) = [row["failures"] for row in server.rows("lockouts") if row["user"] == "alice"]
        assert max(1, answers[BAD]) <= count <= 4
