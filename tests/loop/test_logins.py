"""Logging in over real sockets: guessing, slow hashes, and what strangers learn from it.

Comments such as E2 are rows of the project's catalogue of adversarial inputs.
"""

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from helpers.accounts import Comparisons, table
from helpers.clocks import HeldClock
from helpers.name_service import NameService
from helpers.serving import Running, serving
from helpers.socks import dial, read_all, read_exactly, read_reply5, request4, request5
from helpers.targets import target
from helpers.waiting import PATIENCE, until
from tabi.config.settings import TimeLimits
from tabi.policy.verdict import Context, Request, Verdict
from tabi.server.accounts import BUSY, Accounts
from tabi.server.auth import WRONG
from tabi.server.hashing import HashQueue
from tabi.server.lockouts import LockoutRules, Lockouts

pytestmark = pytest.mark.usefixtures("nothing_left")

USERPASS = b"\x05\x01\x02"  # RFC 1928 section 3
CHOSEN = b"\x05\x02"
GOOD, BAD = b"\x01\x00", b"\x01\x01"  # RFC 1929 section 2
SECRET = b"correct horse"
USERS: dict[bytes, bytes | str] = {b"alice": SECRET, b"bob": b"battery", b"carol": "plain:staple"}


def login(user: bytes, password: bytes) -> bytes:
    """RFC 1929 section 2."""
    return bytes((1, len(user))) + user + bytes((len(password),)) + password


class Guarded:
    """A server with accounts, and what it hashes."""

    def __init__(self, running: Running, accounts: Accounts, compared: Comparisons) -> None:
        self.running, self.accounts, self.compared = running, accounts, compared

    def log_in(self, user: bytes, password: bytes) -> socket.socket:
        """Send all of a login; the answer to it is not waited for."""
        sock = dial(self.running.address)
        sock.sendall(USERPASS)
        assert read_exactly(sock, 2) == CHOSEN
        sock.sendall(login(user, password))
        return sock

    def answer(self, user: bytes, password: bytes) -> bytes:
        """Log in, close, and give the answer to the login."""
        with self.log_in(user, password) as sock:
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    def tunnel(self, user: bytes, password: bytes, there: tuple[str, int]) -> socket.socket:
        """Log in and connect."""
        sock = self.log_in(user, password)
        assert read_exactly(sock, 2) == GOOD
        sock.sendall(request5(1, *there))
        assert read_reply5(sock)[0] == 0
        return sock


@contextmanager
def guarded(
    users: dict[bytes, bytes | str] | None = None,
    *,
    rules: LockoutRules | None = None,
    queue: HashQueue | None = None,
    **serving_options: Any,
) -> Iterator[Guarded]:
    """Run a server that wants a login."""
    compared = Comparisons()
    accounts = Accounts(table(users or USERS), lockouts=Lockouts(rules), queue=queue, compare=compared)
    try:
        with serving(authenticator=accounts, **serving_options) as running:
            yield Guarded(running, accounts, compared)
            compared.go_on.set()
    finally:
        compared.go_on.set()
        accounts.close()


# one login


@pytest.mark.parametrize("user", [b"alice", b"carol"])
def test_a_user_logs_in_and_is_served(user: bytes) -> None:
    password = {b"alice": SECRET, b"carol": b"staple"}[user]
    with target() as there, guarded() as server:
        for _ in range(3):
            with server.tunnel(user, password, there) as sock:
                sock.sendall(b"to and fro")
                assert read_exactly(sock, 10) == b"to and fro"
        server.running.idle()
        assert len(server.compared) == (1 if user == b"alice" else 0)
        for line in server.running.lines:
            assert (line["user"], line["method"], line["reply"]) == (user.decode(), "password", 0)


def test_everything_may_come_at_once() -> None:
    with target() as there, guarded() as server, dial(server.running.address) as sock:
        sock.sendall(USERPASS + login(b"alice", SECRET) + request5(1, *there) + b"early")
        sock.shutdown(socket.SHUT_WR)
        answer = read_all(sock)
    assert answer[:8] == CHOSEN + GOOD + b"\x05\x00\x00\x01"
    assert answer[14:] == b"early"


# E1, E5: what a failure tells


@pytest.mark.parametrize("user", [b"alice", b"carol", b"nobody"])
def test_a_wrong_login_is_status_1_and_one_hash_whoever_is_asked_for(user: bytes) -> None:
    with guarded() as server:
        assert server.answer(user, b"wrong") == BAD
        line = server.running.only_line()
        assert (line["user"], line["by"], line["why"], line["note"]) == (user.decode(), "tabi", "auth", WRONG)
        assert "reply" not in line
        assert [costs for costs, _ in server.compared.seen] == [(8, 1, 1)]


def test_a_nul_behind_a_good_name_or_password_is_no_login() -> None:
    with guarded() as server:
        assert server.answer(b"alice", SECRET) == GOOD
        for user, password in ((b"alice\0x", SECRET), (b"alice", SECRET + b"\0"), (b"alice", SECRET + b"\n")):
            assert server.answer(user, password) == BAD
        assert len(server.compared) == 1


# guessing; row E2


def test_parallel_guesses_get_no_more_answers_than_the_delays_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HeldClock(monkeypatch)
    rules = LockoutRules(delays=(3600.0,))
    with guarded(rules=rules) as server, ExitStack() as stack:
        assert server.answer(b"alice", SECRET) == GOOD
        guesses = [b"%d" % number for number in range(60)] + [SECRET]
        sockets = [stack.enter_context(server.log_in(b"alice", guess)) for guess in guesses]
        assert read_all(sockets[0]) == BAD
        sockets.pop(0).close()
        until(lambda: len(server.running.server) == 60, "only the others to be left")
        clock.advance(server.running, 10.1)
        assert {read_all(sock) for sock in sockets} == {b""}, "the right one waits like the others"
        assert [password for _, password in server.compared.seen] == [SECRET, b"0"]
        assert [line["why"] for line in server.running.lines].count("auth") == 1
        assert server.running.line(why="limit:handshake")["user"] == "alice"


def test_guessing_closes_the_pair_and_the_log_says_until_when() -> None:
    rules = LockoutRules(delays=(0.01, 0.02), failures=5)
    with guarded(rules=rules) as server:
        with ExitStack() as stack:
            sockets = [stack.enter_context(server.log_in(b"alice", b"%d" % number)) for number in range(30)]
            assert {read_all(sock) for sock in sockets} == {BAD}
        assert len(server.compared) == 5
        assert server.answer(b"alice", SECRET) == BAD
        assert len(server.compared) == 5
        assert server.answer(b"bob", b"battery") == GOOD
        server.running.idle()
        notes = [line.get("note", "") for line in server.running.lines if line["why"] == "auth"]
        assert notes[:5] == [WRONG] * 5
        assert notes[5].startswith("locked until 2")
        assert "5 failed logins of this user from this address" in notes[5]
        entries = server.running.call_sync(lambda: server.accounts.lockouts.entries(server.running.loop.time()))
        assert [(entry.client, entry.user, entry.closed) for entry in entries] == [("127.0.0.1", b"alice", True)]
        server.running.call_sync(lambda: server.accounts.lockouts.lift(server.running.loop.time()))
        assert server.answer(b"alice", SECRET) == GOOD


def test_other_logins_and_requests_go_on_while_one_is_delayed() -> None:
    rules = LockoutRules(delays=(3600.0,))
    with target() as there, guarded(rules=rules, time=TimeLimits(handshake=600)) as server:
        assert server.answer(b"alice", b"wrong") == BAD
        with server.log_in(b"alice", SECRET) as waiting:
            for _ in range(3):
                server.tunnel(b"bob", b"battery", there).close()
            waiting.setblocking(False)
            with pytest.raises(BlockingIOError):
                waiting.recv(1)


# the queue


def test_the_sixty_fifth_login_that_would_wait_is_refused_without_a_hash() -> None:
    with guarded(queue=HashQueue(1)) as server, ExitStack() as stack:
        server.compared.go_on.clear()
        waiting = [stack.enter_context(server.log_in(b"user%d" % number, b"x")) for number in range(65)]
        until(lambda: server.running.call_sync(lambda: len(server.accounts._queue)) == 64, "64 to wait")
        assert server.answer(b"bob", b"battery") == BAD
        assert server.running.line(user="bob")["note"] == BUSY
        server.compared.go_on.set()
        assert {read_all(sock) for sock in waiting} == {BAD}
        assert len(server.compared) == 65
        assert server.answer(b"bob", b"battery") == GOOD


def test_a_slow_hash_delays_no_other_session() -> None:
    with target() as there, guarded(queue=HashQueue(1)) as server:
        with server.tunnel(b"alice", SECRET, there) as tunnel:
            server.compared.go_on.clear()
            with server.log_in(b"bob", b"battery") as slow:
                until(lambda: len(server.compared) == 2, "the slow hash to begin")
                for number in range(20):
                    tunnel.sendall(b"%02d" % number)
                    assert read_exactly(tunnel, 2) == b"%02d" % number
                    server.tunnel(b"alice", SECRET, there).close()
                    server.tunnel(b"carol", b"staple", there).close()
                slow.setblocking(False)
                with pytest.raises(BlockingIOError):
                    slow.recv(1)
                slow.settimeout(PATIENCE)
                server.compared.go_on.set()
                assert read_exactly(slow, 2) == GOOD


def test_a_login_that_outlasts_the_handshake_is_closed_and_its_hash_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HeldClock(monkeypatch)
    with guarded(queue=HashQueue(1)) as server:
        server.compared.go_on.clear()
        with server.log_in(b"alice", SECRET) as sock:
            until(lambda: len(server.compared) == 1, "the hash to begin")
            clock.advance(server.running, 10.1)
            assert read_all(sock) == b""
        assert server.running.only_line()["why"] == "limit:handshake"
        server.compared.go_on.set()
        entries = server.running.call_sync(lambda: server.accounts.lockouts.entries(server.running.loop.time()))
        assert [entry.user for entry in entries] == [b"alice"]


# reload


def test_a_removed_user_is_out_at_once_and_a_new_one_in() -> None:
    with guarded() as server:
        assert server.answer(b"alice", SECRET) == GOOD
        server.running.call_sync(lambda: server.accounts.swap(table({b"dave": b"new"}, generation=2)))
        assert server.answer(b"alice", SECRET) == BAD
        assert server.answer(b"dave", b"new") == GOOD


# E3, E4, D5: a login is for its connection, and nothing happens without it


def test_a_login_is_for_its_own_connection_only() -> None:
    with target() as there, guarded() as server, server.tunnel(b"alice", SECRET, there):
        with dial(server.running.address) as sock:
            sock.sendall(b"\x05\x01\x00" + request5(1, *there))
            assert read_all(sock) == b"\x05\xff"
        with dial(server.running.address) as sock:
            sock.sendall(request4(1, *there, userid=b"alice"))
            assert read_all(sock) == b"\x00\x5b" + bytes(6)


@pytest.mark.parametrize("methods", [b"\x00\x02", b"\x02\x00", b"\x00\x01\x02\x80", bytes(range(255))])
def test_no_authentication_is_never_chosen(methods: bytes) -> None:
    with guarded() as server, dial(server.running.address) as sock:
        sock.sendall(bytes((5, len(methods))) + methods)
        assert read_exactly(sock, 2) == b"\x05\x02"


def test_no_name_is_looked_up_before_the_login() -> None:
    with guarded() as server:
        names = NameService({"known.example": ["127.0.0.1"]}).serve(server.running)
        for user, password in ((b"alice", b"wrong"), (b"nobody", b"x")):
            with dial(server.running.address) as sock:
                sock.sendall(USERPASS + login(user, password) + request5(1, b"known.example", 80))
                assert read_all(sock) == CHOSEN + BAD
        assert names.asked == []


def test_rules_see_the_user_as_authenticated_and_its_groups() -> None:
    seen: list[Context] = []

    def policy(_request: Request, context: Context) -> Verdict:
        seen.append(context)
        return Verdict(allow=False, rule="all")

    with guarded(policy=policy) as server:
        groups = frozenset({"staff"})
        server.running.call_sync(lambda: server.accounts.swap(table(USERS, groups=groups)))
        with server.log_in(b"alice", SECRET) as sock:
            sock.sendall(request5(1, "127.0.0.1", 9))
            assert read_all(sock)[:4] == GOOD + b"\x05\x02"
    assert [(context.user, context.groups) for context in seen] == [(b"alice", groups)]


# H1: passwords are nowhere


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_passwords_appear_nowhere(log_format: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with guarded(log_format=log_format) as server:
        server.running.call_sync(lambda: server.running.loop.set_debug(enabled=True))
        assert server.answer(b"alice", SECRET) == GOOD
        assert server.answer(b"carol", b"staple") == GOOD
        for user, password in ((b"alice", SECRET + b"!"), (b"nobody", SECRET), (b"alice", SECRET + b"\0")):
            assert server.answer(user, password) == BAD
        server.running.idle()
        one = server.running.server
        said = "\n".join(
            [*server.running.raw, caplog.text, repr(one), repr(one.__dict__), repr(server.accounts.__dict__)]
        )
    for secret in (SECRET.decode(), SECRET.hex(), "staple", "argon2id"):
        assert secret not in said


def test_a_hash_that_cannot_be_made_is_no_login_and_tells_no_password(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_stored: object, _password: bytes) -> bool:
        raise MemoryError("not enough memory for a hash")

    accounts = Accounts(table(USERS), compare=broken)
    with serving(authenticator=accounts) as running:
        server = Guarded(running, accounts, Comparisons())
        assert server.answer(b"alice", SECRET) == BAD
        assert server.answer(b"carol", b"staple") == GOOD
        assert running.line(user="alice")["note"] == "the authenticator failed"
    accounts.close()
    assert "MemoryError" in caplog.text
    assert SECRET.decode() not in caplog.text
