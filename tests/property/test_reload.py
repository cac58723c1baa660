"""Reloads of random rule lists under load: a session that both lists allow loses nothing, all others end.

The lists are judged here by a reference of a few lines; the sessions are real, over a server with two workers.
"""

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from helpers.configured import JSON, LISTEN, Configured, configured, user
from helpers.socks import dial, read_exactly, read_reply5, request5
from helpers.targets import target
from helpers.waiting import PATIENCE, until

USERS = ("alice", "bob")
SOURCES = ("127.0.0.1", "127.0.0.2")
RELOADS = 8
CHUNK = bytes(range(256)) * 64


class Who(NamedTuple):
    """Somebody who asks for something; no user: without a password."""

    source: str
    user: str
    port: int


@dataclass(frozen=True)
class Rule:
    """A rule over whatever a session differs by; None: any."""

    allow: bool
    source: str | None
    user: str | None
    port: int | None
    auth: bool

    def matches(self, who: Who) -> bool:
        return self.source in (None, who.source) and self.user in (None, who.user) and self.port in (None, who.port)

    def text(self) -> str:
        lines = ["[[rule]]", 'allow = true\nto = "@private"' if self.allow else 'refuse = "not-allowed"']
        lines += [f'from = "{self.source}"'] if self.source else []
        lines += [f'user = "{self.user}"'] if self.user else []
        lines += [f"port = {self.port}"] if self.port else []
        lines += ['auth = "password"'] if self.auth else []
        return "\n".join((*lines, ""))


def allows(rules: list[Rule], who: Who) -> bool:
    """Judge: the first that matches decides, and an unmet `auth` is a refusal."""
    decisive = next((rule for rule in rules if rule.matches(who)), None)
    return decisive is not None and decisive.allow and not (decisive.auth and not who.user)


def a_list(dice: random.Random, ports: list[int]) -> list[Rule]:
    rules = [
        Rule(
            allow=dice.random() < 0.6,
            source=dice.choice((None, None, *SOURCES)),
            user=dice.choice((None, None, *USERS)),
            port=dice.choice((None, *ports)),
            auth=False,
        )
        for _ in range(dice.randrange(6))
    ]
    allow = dice.random() < 0.7
    return [*rules, Rule(allow, source=None, user=None, port=None, auth=allow and dice.random() < 0.4)]


def text(rules: list[Rule]) -> str:
    head = 'auth = "any"\n' + LISTEN + JSON + "".join(map(user, USERS))
    return head + "".join(rule.text() for rule in rules)


class Tunnel:
    """A session that carries data all the time, whole and in order."""

    def __init__(self, proxy: tuple[str, int], who: Who) -> None:
        self.who = who
        self.rounds = 0
        self.ended: BaseException | None = None
        self._over = threading.Event()
        self._sock = dial(proxy, (who.source, 0))
        name = who.user.encode()
        login = b"\x01" + bytes((len(name),)) + name + b"\x06secret" if name else b""
        self._sock.sendall(b"\x05\x01" + (b"\x02" if name else b"\x00") + login)
        assert read_exactly(self._sock, 4 if name else 2) == (b"\x05\x02\x01\x00" if name else b"\x05\x00")
        self._sock.sendall(request5(1, "127.0.0.1", who.port))
        self.reply = read_reply5(self._sock)[0]
        self._thread = threading.Thread(target=self._run)
        if self.reply == 0:
            self._thread.start()
        else:
            self._sock.close()

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self._sock.sendall(CHUNK)
                got = read_exactly(self._sock, len(CHUNK))
                if got != CHUNK:
                    raise ConnectionError(f"{len(got)} bytes came back")
                self.rounds += 1
        except OSError as error:
            self.ended = error
        finally:
            self._sock.close()

    def goes_on(self) -> bool:
        """Wait until it has carried more, or ended."""
        before = self.rounds
        until(lambda: self.ended or self.rounds > before + 1, f"{self.who} to go on")
        return self.ended is None

    def has_ended(self) -> None:
        """Wait until it was ended from outside."""
        until(lambda: self.ended, f"{self.who} to be ended")
        self._thread.join(PATIENCE)

    def end(self) -> None:
        self._over.set()
        if self.reply == 0:
            self._thread.join(PATIENCE)


@pytest.fixture
def ports() -> Iterator[list[int]]:
    with ExitStack() as stack:
        yield [stack.enter_context(target())[1] for _ in range(2)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Configured]:
    with configured(tmp_path, text([])) as running:
        running.ports()
        yield running


def reload_somehow(server: Configured, dice: random.Random, old: list[Rule], new: list[Rule]) -> list[Rule]:
    """Reload the new list, or one with an error in it, which leaves the old."""
    if dice.random() < 0.25:
        server.write(text(new) + "[[rule]]\nallow = 7\n")
        assert not server.ask("reload")["ok"]
        return old
    server.reload(text(new))
    return new


@pytest.mark.parametrize("seed", range(4))
def test_reloads_of_any_list_under_load_end_just_what_it_refuses(
    server: Configured, ports: list[int], seed: int
) -> None:
    dice = random.Random(seed)  # the same lists each time
    everybody = [Who(source, name, port) for source in SOURCES for name in ("", *USERS) for port in ports]
    tunnels: dict[Who, Tunnel] = {}
    rules: list[Rule] = []
    lost = kept = 0
    try:
        for _ in range(RELOADS):
            rules = reload_somehow(server, dice, rules, a_list(dice, ports))
            for who, tunnel in tuple(tunnels.items()):
                if allows(rules, who):
                    assert tunnel.goes_on(), (who, rules, tunnel.ended)
                    kept += 1
                else:
                    tunnels.pop(who).has_ended()
                    lost += 1
            for who in everybody:
                if who not in tunnels:
                    tunnel = Tunnel(server.address, who)
                    assert (tunnel.reply == 0) == allows(rules, who), (who, rules)
                    if tunnel.reply == 0:
                        tunnels[who] = tunnel
    finally:
        for tunnel in tunnels.values():
            tunnel.end()
    assert server.stop() == 0
    assert kept > RELOADS
    assert lost > RELOADS
    ended = [record for record in server.records if record["why"] == "policy" and record["reply"] == 0]
    assert len(ended) == lost
    assert all("since the reload" in record["note"] for record in ended)
