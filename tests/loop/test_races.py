"""Rules with `pick = "race"`: which way wins, what becomes of the others, and that none goes around a rule."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from helpers.hostile import NeverReached
from helpers.name_service import NameService
from helpers.routing import ANYTHING, NAMES, Where, routing, upstream, url
from helpers.serving import Running, serving
from helpers.socks import ask5, connect5, echoes, greet5, read_all, read_reply5, request5, reset
from helpers.targets import target
from helpers.udp import Association, refused
from helpers.waiting import until
from tabi.config.settings import LogSettings, RaceSettings

AT_ONCE = '[race]\nhead_start = "10 ms"\n'  # before anybody who answers can have won, perhaps
ALONE = '[race]\nhead_start = "1 min"\n'  # as long as it does not fail
RACING = ANYTHING + 'via = {via}\npick = "race"\n'


def racing(*via: str, more: str = "") -> str:
    return RACING.format(via=[*via]) + more


@pytest.fixture
def office() -> Iterator[Running]:
    """Run an upstream that knows names of its own."""
    with serving() as running:
        NameService({**NAMES, "far.example": ["127.0.0.1"], "split.example": ["127.0.0.3"]}).serve(running)
        yield running


class Silent:
    """A proxy that takes connections and says nothing; it counts those whose end it has seen."""

    def __init__(self) -> None:
        self.came = 0
        self.ended = 0
        self._lock = threading.Lock()

    def serve(self, sock: socket.socket) -> None:
        with self._lock:
            self.came += 1
        try:
            read_all(sock)
        except ConnectionResetError:  # what was sent has not been read: the other side closed at once
            pass
        with self._lock:
            self.ended += 1


@pytest.mark.usefixtures("nothing_left")
def test_silent_way_loses_and_its_connection_is_closed(office: Running, echo: Where) -> None:
    silent = Silent()
    with target(silent.serve) as where:
        upstreams = upstream("silent", url(where)) + upstream("office", url(office.address))
        with routing(AT_ONCE, upstreams, racing("silent", "office")) as here:
            with connect5(here.address, *echo) as sock:
                assert echoes(sock)
                until(lambda: silent.ended == 1, "the end of what was asked in vain")
            line = here.server.only_line()
            assert (line["via"], line["lost"], line["reply"]) == ("office", "silent (slower)", 0)
            assert line["to"] == f"127.0.0.1:{echo[1]}"
        assert silent.came == 1
    assert office.only_line()["reply"] == 0


def test_races_go_on_by_the_settings_of_a_reload(office: Running, echo: Where) -> None:
    upstreams = upstream("office", url(office.address))
    with target(Silent().serve) as where:
        upstreams += upstream("silent", url(where))
        with routing(ALONE, upstreams, racing("silent", "office")) as here:
            server = here.server.server
            changed = replace(server.settings, race=RaceSettings(head_start=0.01), log=LogSettings(format="json"))
            terms = {"policy": server.policy, "access": server.options_for, "upstreams": server.upstreams.table}
            none = {"user_limits": {}, "rule_limits": {}, "since": "now"}
            here.server.call_sync(lambda: server.reconfigure(changed, **terms, **none))
            with connect5(here.address, *echo) as sock:
                assert echoes(sock)


def test_way_that_is_fast_enough_is_alone(office: Running, echo: Where) -> None:
    with routing(ALONE, upstream("office", url(office.address)), racing("direct", "office")) as here:
        for _ in range(2):  # also once the express lane knows the client
            with connect5(here.address, *echo) as sock:
                assert echoes(sock)
        here.server.idle()
        assert [line["via"] for line in here.server.lines] == ["direct"] * 2
        assert not [line for line in here.server.lines if "lost" in line or "resolve_by" in line]
        assert office.lines == []


def test_way_that_fails_leads_to_the_next_which_is_asked_for_the_name(office: Running) -> None:
    rule = racing("direct", "office", more='resolve = "upstream"\negress = "127.0.0.77"\n')
    names = {"far.example": ["127.0.0.9"]}  # on which nobody listens
    with target() as (_, port), routing(ALONE, upstream("office", url(office.address)), rule, names=names) as here:
        with connect5(here.address, b"far.example", port) as sock:
            assert echoes(sock)
        line = here.server.only_line()
        assert (line["via"], line["lost"]) == ("office", "direct (connect: connection refused)")
        assert (line["to"], line["resolve_by"]) == (f"far.example:{port}", "upstream")
        line = office.only_line()
        assert line["target"] == f"far.example:{port}"
        assert line["client"].startswith("127.0.0.77:")


def test_direct_way_does_not_go_around_a_rule_about_addresses(office: Running) -> None:
    refuse = '[[rule]]\nname = "no"\nrefuse = "not-allowed"\nto = "127.0.0.1"\n'
    rule = racing("direct", "office", more='resolve = "upstream"\n')
    names = {"split.example": ["127.0.0.1"]}
    with NeverReached() as never, target(host="127.0.0.3", port=never.port):
        with routing(ALONE, upstream("office", url(office.address)), refuse, rule, names=names) as here:
            with connect5(here.address, b"split.example", never.port) as sock:
                assert echoes(sock)
            line = here.server.only_line()
            assert (line["rule"], line["verdict"]) == ("all", "allow")
            assert (line["via"], line["lost"]) == ("office", "direct (policy: not allowed)")


def test_direct_way_does_not_take_addresses_of_rules_that_go_another_way(office: Running) -> None:
    through = '[[rule]]\nname = "through"\nallow = true\nto = "127.0.0.1"\nvia = "office"\n'
    rule = racing("direct", "office", more='resolve = "upstream"\n')
    names = {"split.example": ["127.0.0.1"]}
    with NeverReached() as never, target(host="127.0.0.3", port=never.port):
        with routing(ALONE, upstream("office", url(office.address)), through, rule, names=names) as here:
            with connect5(here.address, b"split.example", never.port) as sock:
                assert echoes(sock)
            assert here.server.only_line()["via"] == "office"


def test_upstream_is_asked_for_addresses_that_are_judged_here(office: Running) -> None:
    refuse = '[[rule]]\nname = "no"\nrefuse = "not-allowed"\nto = "127.0.0.2"\n'
    with target() as (_, port), routing(
        ALONE, upstream("office", url(office.address)), refuse, racing("office", "direct")
    ) as here:
        with connect5(here.address, b"both.example", port) as sock:
            assert echoes(sock)
        line = here.server.only_line()
        assert (line["via"], line["to"]) == ("office", f"127.0.0.1:{port}")
        assert here.reply_to(b"inside.example", port) == 2
    assert office.only_line()["target"] == f"127.0.0.1:{port}"


def test_all_that_failed_are_told(nobody: Where) -> None:
    with routing(ALONE, upstream("gone", url(nobody)), racing("gone", "direct")) as here:
        assert here.reply_to(*nobody) == 5
        line = here.server.only_line()
        assert (line["why"], line["verdict"]) == ("failed", "allow")
        assert f'upstream "gone": proxy {url(nobody)} cannot be reached: ' in line["note"]
        assert "; direct: " in line["note"]


def test_upstream_that_has_lost_its_race_by_failing_rests(
    office: Running, echo: Where, dead: tuple[Where, list[None]]
) -> None:
    (where, came), spare = dead, upstream("office", url(office.address))
    with routing(ALONE, upstream("dead", url(where)), spare, racing("dead", "office")) as here:
        for _ in range(3):
            with connect5(here.address, *echo) as sock:
                assert echoes(sock)
        here.server.idle()
        assert [line["via"] for line in here.server.lines] == ["office"] * 3
    assert len(came) == 1


def test_way_that_failed_for_a_destination_is_not_tried_first_there_again(office: Running) -> None:
    rule = racing("direct", "office", more='resolve = "upstream"\n')
    names = {"far.example": ["127.0.0.9"], "v4.example": ["127.0.0.1"]}
    with target() as (_, port), routing(ALONE, upstream("office", url(office.address)), rule, names=names) as here:
        for name in (b"far.example", b"far.example", b"v4.example"):
            with connect5(here.address, name, port) as sock:
                assert echoes(sock)
            here.server.idle()
        assert [(line["via"], "lost" in line) for line in here.server.lines] == [
            ("office", True), ("office", False), ("direct", False)
        ]  # fmt: skip


def test_way_that_brings_no_data_is_not_tried_first_again(office: Running) -> None:
    def mute(sock: socket.socket) -> None:
        assert sock.recv(1)

    rule = racing("direct", "office", more='resolve = "upstream"\n')
    names = {"split.example": ["127.0.0.1"]}
    with target(mute) as (_, port), target(host="127.0.0.3", port=port):
        with routing(ALONE, upstream("office", url(office.address)), rule, names=names) as here:
            with connect5(here.address, b"split.example", port) as sock:
                sock.sendall(b"?")
                assert sock.recv(1) == b""
            here.server.idle()  # and what its end has taught is known
            with connect5(here.address, b"split.example", port) as sock:
                assert echoes(sock)
            here.server.idle()
            assert [line["via"] for line in here.server.lines] == ["direct", "office"]


def test_upstream_is_not_asked_for_ports_that_it_is_not_trusted_with(office: Running, echo: Where) -> None:
    with NeverReached() as never:
        free = upstream("free", url(("127.0.0.1", never.port)), more='trust = "encrypted"\n')
        both = free + upstream("office", url(office.address))
        for rule in (racing("free", "office"), ANYTHING + 'via = ["free", "office"]\n'):
            with routing(ALONE, both, rule) as here:
                with connect5(here.address, *echo) as sock:
                    assert echoes(sock)
                assert here.server.only_line()["via"] == "office"
        with routing(free, ANYTHING, 'via = "free"\n') as here:
            assert here.reply_to(*echo) == 2
            line = here.server.only_line()
            assert (line["why"], line["note"]) == (
                "policy", f"policy: no upstream of the rule is trusted with port {echo[1]}: free"
            )  # fmt: skip
            assert refused(here.address) == 2


@pytest.mark.usefixtures("nothing_left")
def test_client_that_leaves_ends_all_that_runs() -> None:
    silent = Silent()
    with target(silent.serve) as where:
        upstreams = upstream("one", url(where)) + upstream("two", url(where))
        with routing(AT_ONCE, upstreams, racing("one", "two")) as here:
            sock = greet5(here.address)
            sock.sendall(request5(1, "127.0.0.1", 9))
            until(lambda: silent.came == 2, "both to be asked")
            reset(sock)
            until(lambda: silent.ended == 2, "the end of both")
            assert here.server.only_line()["by"] == "client"


@pytest.mark.parametrize(("via", "way"), [(("direct", "office"), None), (("office", "direct"), "office")])
def test_datagrams_do_not_race(office: Running, there: socket.socket, via: tuple[str, str], way: str | None) -> None:
    with routing(AT_ONCE, upstream("office", url(office.address)), racing(*via)) as here:
        with Association(here.address) as association:
            association.talk(there)
        assert here.server.only_line().get("via") == way


@pytest.mark.parametrize(("via", "way"), [(("direct", "office"), None), (("office", "direct"), "office")])
def test_bind_does_not_race(office: Running, via: tuple[str, str], way: str | None) -> None:
    with routing(AT_ONCE, upstream("office", url(office.address)), racing(*via)) as here:
        sock, reply, host, port = ask5(here.address, 2, "127.0.0.1", 0)
        assert reply == 0
        with sock, socket.create_connection((host, port)) as peer:
            assert read_reply5(sock) == (0, *peer.getsockname())
        assert here.server.only_line().get("via") == way
