"""Hostile logins against the running server: who is let in, and that nothing secret or forged shows in the log.

Comments such as A15 are rows of the project's catalogue of adversarial inputs.
"""

import asyncio
import logging

import pytest

from helpers.clocks import HeldClock
from helpers.hostile import NO_AUTH, REJECTED4, SECRET, USERPASS, NeverReached, converse, failure5, login
from helpers.serving import Running, serving
from helpers.socks import (
    dial,
    read_all,
    read_exactly,
    read_reply5,
    request4,
    request5,
)
from helpers.targets import target
from helpers.waiting import until
from tabi.addr import Endpoint
from tabi.config.settings import Caps
from tabi.net.tasks import pending
from tabi.server import Passwords
from tabi.testing.dribble import send_dribbled

pytestmark = pytest.mark.usefixtures("nothing_left")



# A10 to A15: logins


def test_a_login_before_the_greeting_is_no_socks(guarded: Running) -> None:
    assert converse(guarded, login(b"user", SECRET)) == b""
    assert guarded.only_line()["why"] == "protocol"


def test_a_login_that_nobody_asked_for_is_no_request(running: Running) -> None:
    with NeverReached() as trap:
        says = NO_AUTH + login(b"user", SECRET) + request5(1, "127.0.0.1", trap.port)
        assert converse(running, says) == b"\x05\x00"
        assert running.only_line()["why"] == "protocol"


@pytest.mark.parametrize("version", [0, 2, 4, 5, 255])
def test_a_login_of_another_version_is_refused(guarded: Running, version: int) -> None:
    with NeverReached() as trap:
        says = USERPASS + bytes((version,)) + login(b"user", SECRET)[1:] + request5(1, "127.0.0.1", trap.port)
        assert converse(guarded, says) == b"\x05\x02\x01\x01"
        assert guarded.only_line()["why"] == "auth"


def test_a_request_instead_of_the_login_is_never_carried_out(guarded: Running) -> None:
    with NeverReached() as trap:
        assert converse(guarded, USERPASS + request5(1, "127.0.0.1", trap.port)) == b"\x05\x02\x01\x01"
        assert guarded.only_line()["why"] == "auth"


def test_a_request_behind_a_refused_login_is_never_carried_out(guarded: Running) -> None:
    with NeverReached() as trap:
        says = USERPASS + login(b"user", b"wrong") + request5(1, "127.0.0.1", trap.port)
        assert converse(guarded, says) == b"\x05\x02\x01\x01"
    line = guarded.only_line()
    assert (line["why"], line["user"]) == ("auth", "user")
    assert "target" not in line


@pytest.mark.parametrize(("user", "password"), [(b"", SECRET), (b"user", b""), (b"", b"")])
def test_an_empty_name_or_password_is_refused(guarded: Running, user: bytes, password: bytes) -> None:
    assert converse(guarded, USERPASS + login(user, password)) == b"\x05\x02\x01\x01"
    assert guarded.only_line()["why"] == "auth"


def test_a_name_and_a_password_of_255_bytes_work(guarded: Running) -> None:
    with target() as there:
        with dial(guarded.address) as sock:
            sock.sendall(USERPASS)
            assert read_exactly(sock, 2) == b"\x05\x02"
            send_dribbled(sock, login(b"u" * 255, b"p" * 255))
            assert read_exactly(sock, 2) == b"\x01\x00"
            sock.sendall(request5(1, *there))
            assert read_reply5(sock)[0] == 0
        assert guarded.line(by="client")["user"] == "u" * 255


@pytest.mark.parametrize(
    ("user", "password"),
    [
        (b"user\0x", SECRET),
        (b"user\0", SECRET),
        (b"\0user", SECRET),
        (b"user", SECRET + b"\0"),
        (b"user", SECRET + b"\0x"),
        (b"user", SECRET[:-1]),
        (b"user", SECRET + b"x"),
        (b"use", SECRET),
        (b"USER", SECRET),
        (b"user ", SECRET),
        (b"user\r\n", SECRET),
        (b"user\x7f", SECRET),
        (b"no such user", b"no such user"),
        (b"nobody", b"no such user"),
        (b"u" * 255, b"p" * 254),
    ],
)
def test_names_and_passwords_are_compared_whole(guarded: Running, user: bytes, password: bytes) -> None:
    assert converse(guarded, USERPASS + login(user, password)) == b"\x05\x02\x01\x01"
    assert guarded.only_line()["why"] == "auth"


class Hesitant:
    """An authenticator that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.is_stubborn = False

    async def verify(self, username: bytes, password: bytes, client: Endpoint) -> bool:
        """Accept everybody, late."""
        self.asked.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            if not self.is_stubborn:
                raise
        return True


@pytest.mark.parametrize("is_stubborn", [False, True])
def test_a_login_that_is_judged_after_the_deadline_lets_nobody_in(
    is_stubborn: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = HeldClock(monkeypatch)
    judge = Hesitant()
    judge.is_stubborn = is_stubborn
    with NeverReached() as trap, serving(authenticator=judge, cap=Caps(handshakes_per_client=2)) as server:
        with dial(server.address) as sock:
            sock.sendall(USERPASS)
            assert read_exactly(sock, 2) == b"\x05\x02"
            sock.sendall(login(b"user", SECRET) + request5(1, "127.0.0.1", trap.port))
            server.call(judge.asked.wait())
            clock.advance(server, 9.9)
            with dial(server.address), dial(server.address):
                server.line(why="cap:handshakes_per_client")
                clock.advance(server, 0.2)
                assert read_all(sock) == b""
                server.line(why="limit:handshake", user="user")
                until(lambda: not server.call_sync(pending), "the end of the judgement")
                with dial(server.address), dial(server.address) as over_the_cap:  # nothing was counted twice
                    assert read_all(over_the_cap) == b""
        server.idle()
        assert [line for line in server.lines if "target" in line] == []
    assert not caplog.records  # nor did the server stumble over its own dead session


def test_a_client_that_leaves_while_its_login_is_judged_is_let_go() -> None:
    judge = Hesitant()
    with serving(authenticator=judge) as server:
        with dial(server.address) as sock:
            sock.sendall(USERPASS)
            assert read_exactly(sock, 2) == b"\x05\x02"
            sock.sendall(login(b"user", SECRET))
            server.call(judge.asked.wait())
        server.call_sync(judge.go_on.set)
        line = server.only_line()
        assert (line["user"], line["by"], line["why"]) == ("user", "client", "fin")


# A14 to A16: nothing of the client's shows as it came, and passwords not at all


class Broken:
    """An authenticator with a bug."""

    async def verify(self, username: bytes, password: bytes, client: Endpoint) -> bool:
        """Fail."""
        return {b"nobody": True}[username]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_passwords_appear_nowhere(log_format: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with target() as there, serving(authenticator=Passwords({b"user": SECRET}), log_format=log_format) as server:
        server.call_sync(lambda: server.loop.set_debug(enabled=True))
        request = request5(1, *there)
        assert converse(server, USERPASS + login(b"user", SECRET) + request, fin=True)[:4] == b"\x05\x02\x01\x00"
        for says in (
            login(b"user", SECRET + b"x"),
            login(b"nobody", SECRET),
            login(b"bad\r", SECRET),
            b"\x02" + login(b"user", SECRET)[1:],
            login(b"user", SECRET)[:-1],
        ):
            converse(server, USERPASS + says, fin=True)
        converse(server, login(b"user", SECRET))
        server.idle()
        said = "\n".join([*server.raw, caplog.text, repr(server.server), repr(server.server.__dict__)])
    assert len(server.raw) == 7
    assert SECRET.decode() not in said
    assert SECRET.hex() not in said


def test_an_authenticator_that_breaks_lets_nobody_in_and_tells_no_password(caplog: pytest.LogCaptureFixture) -> None:
    with serving(authenticator=Broken()) as server:
        assert converse(server, USERPASS + login(b"user", SECRET)) == b"\x05\x02\x01\x01"
        assert server.only_line()["why"] == "auth"
    assert "KeyError" in caplog.text
    assert SECRET.decode() not in caplog.text


NASTY = b'me\r\n2026-01-01T00:00:00Z session=1 verdict=allow "quote\\ \x1b[2J\x85\xe2\x80\xa8\xff'


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_wire_text_cannot_forge_a_log_line(log_format: str) -> None:
    user = bytes(byte for byte in NASTY if byte >= 0x20)
    with target() as there, serving(log_format=log_format) as server:
        assert converse(server, request4(1, *there, userid=NASTY), fin=True)[:2] == b"\x00\x5a"
        assert converse(server, NO_AUTH + request5(1, NASTY, there[1]))[2:] == failure5(4)
        assert converse(server, request4(1, "0.0.0.1", there[1], b"me", NASTY)) == REJECTED4
        server.idle()
        lines = list(server.raw)
    with serving(log_format=log_format, authenticator=Passwords({b"user": SECRET})) as server:
        assert converse(server, USERPASS + login(user, b"password")) == b"\x05\x02\x01\x01"
        server.idle()
        lines += server.raw
    assert len(lines) == 4
    for line in lines:
        assert line.isprintable(), line
        assert len(line.splitlines()) == 1
        assert "2026-01-01T00:00:00Z" in line
        assert not line.startswith("2026-01-01T00:00:00Z")
        quoted = line.replace("\\\\", "").replace('\\"', "")  # every quote left over is a delimiter
        assert quoted.count('"') % 2 == 0
        if log_format == "text":
            outside = "".join(quoted.split('"')[::2])
            assert "verdict=allow" not in outside or "reply=0" in outside
