"""Rules with `via`: through upstreams that are tabi itself, and say in their log what they were asked for."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.configured import JSON, LISTEN, configured
from helpers.connect_proxy import connect_proxy
from helpers.hostile import NeverReached
from helpers.name_service import NameService
from helpers.routing import ANYTHING, HERE, NAMES, Where, routing, upstream, url
from helpers.serving import Running, serving
from helpers.socks import ask5, connect5, echoes, read_all, read_reply5
from helpers.targets import target
from helpers.udp import Association, address_of, datagrams, drops, is_quiet, refused
from helpers.waiting import until
from tabi.config.upstreams import Upstream
from tabi.machine.url import parse_proxies
from tabi.policy.verdict import Context, Request, Verdict
from tabi.server import Passwords
from tabi.server.upstreams import Upstreams


@pytest.fixture
def office() -> Iterator[Running]:
    """Run an upstream that knows names of its own."""
    with serving() as running:
        NameService(NAMES).serve(running)
        yield running


# the way


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
def test_rule_sends_its_sessions_through_its_upstream(office: Running, echo: Where, scheme: str) -> None:
    with routing(upstream("office", url(office.address, scheme)), ANYTHING, 'via = "office"\n') as here:
        for _ in range(3):  # also once the express lane knows the client
            with connect5(here.address, *echo) as sock:
                assert echoes(sock)
        line = here.server.line(target=f"127.0.0.1:{echo[1]}")
        assert (line["via"], line["to"], line["reply"]) == ("office", f"127.0.0.1:{echo[1]}", 0)
        here.server.idle()
        assert [one["via"] for one in here.server.lines] == ["office"] * 3
    office.idle()
    assert [one["target"] for one in office.lines] == [f"127.0.0.1:{echo[1]}"] * 3


def test_upstreams_are_chained_over_several_kinds_of_proxies(office: Running, echo: Where) -> None:
    with serving(authenticator=Passwords({b"bob": b"secret"})) as second, connect_proxy(b"al:sesame") as http:
        first, inner = url(office.address, "socks4a"), url(second.address, login="bob:secret@")
        text = upstream("office", first, inner, url(http, "http", "al:sesame@"))
        with routing(text, ANYTHING, 'via = "office"\n') as here:
            with connect5(here.address, *echo) as sock:
                assert echoes(sock)
            here.server.line(via="office", reply=0)
        assert "sesame" not in "".join(here.server.raw)
        assert second.line(user="bob")["target"] == url(http, "http").removeprefix("http://")
        assert inner.endswith("@" + office.line(reply=0)["target"])


def test_other_rules_go_directly(office: Running, echo: Where) -> None:
    rules = HERE.format(name="near"), ANYTHING, 'via = "office"\n'
    with routing(upstream("office", url(office.address)), *rules) as here, connect5(here.address, *echo) as sock:
        assert echoes(sock)
        sock.close()
        assert "via" not in here.server.line(rule="near")
    assert office.lines == []


def test_egress_of_the_rule_is_where_the_upstream_is_reached_from(office: Running, echo: Where) -> None:
    grants = 'via = "office"\negress = "127.0.0.77"\n'
    with routing(upstream("office", url(office.address)), ANYTHING, grants) as here:
        connect5(here.address, *echo).close()
        assert office.line(reply=0)["client"].startswith("127.0.0.77:")


# who looks names up


def test_name_is_judged_here_and_its_address_is_asked_for_where_a_rule_could_refuse_it(office: Running) -> None:
    rules = HERE.format(name="here"), 'via = "office"\n'
    with target() as (_, port), routing(upstream("office", url(office.address)), *rules) as here:
        with connect5(here.address, b"v4.example", port) as sock:
            assert echoes(sock)
        line = here.server.line(target=f"v4.example:{port}")
        assert (line["to"], line["via"]) == (f"127.0.0.1:{port}", "office")
        assert "resolve_by" not in line
    assert office.line(reply=0)["target"] == f"127.0.0.1:{port}"


def test_name_goes_to_the_upstream_where_no_address_of_it_could_be_refused(office: Running) -> None:
    with target() as (_, port), routing(upstream("office", url(office.address)), ANYTHING, 'via = "office"\n') as here:
        with connect5(here.address, b"v4.example", port) as sock:
            assert echoes(sock)
        line = here.server.line(target=f"v4.example:{port}")
        assert (line["to"], line["resolve_by"]) == (f"v4.example:{port}", "upstream")
        assert here.names.asked == []
    assert office.line(reply=0)["target"] == f"v4.example:{port}"


def test_upstream_that_takes_addresses_only_is_given_one(office: Running) -> None:
    text = upstream("office", url(office.address, "socks5"))
    with target() as (_, port), routing(text, ANYTHING, 'via = "office"\n') as here:
        connect5(here.address, b"v4.example", port).close()
        assert office.line(reply=0)["target"] == f"127.0.0.1:{port}"


def test_address_that_a_rule_refuses_is_never_asked_for(office: Running) -> None:
    """Row D4."""
    rules = '[[rule]]\nname = "no"\nrefuse = "not-allowed"\nto = "127.0.0.2"\n', ANYTHING, 'via = "office"\n'
    with routing(upstream("office", url(office.address)), *rules) as here:
        assert here.reply_to(b"inside.example", 9) == 2
        assert here.server.only_line()["why"] == "policy"
    assert office.lines == []


def test_rule_that_trusts_the_upstream_gives_it_the_name_and_asks_nobody_here(office: Running) -> None:
    """Row D4: the explicit setting."""
    rules = (
        '[[rule]]\nname = "no"\nrefuse = "not-allowed"\nto = ["127.0.0.1", "ads.example"]\n',
        ANYTHING,
        'via = "office"\nresolve = "upstream"\n',
    )
    with target() as (_, port), routing(upstream("office", url(office.address)), *rules) as here:
        with connect5(here.address, b"v4.example", port) as sock:
            assert echoes(sock)
        assert here.server.line(target=f"v4.example:{port}")["resolve_by"] == "upstream"
        assert here.reply_to(b"ads.example", port) == 2
        assert here.reply_to("127.0.0.1", port) == 2
        assert here.names.asked == []
    office.idle()
    assert [line["target"] for line in office.lines] == [f"v4.example:{port}"]


def test_name_goes_the_way_of_its_first_address_that_is_allowed(office: Running) -> None:
    rules = '[[rule]]\nname = "far"\nallow = true\nto = "127.0.0.2"\nvia = "office"\n', HERE.format(name="near")
    with target() as (_, port), NeverReached() as never:
        with routing(upstream("office", url(office.address)), *rules) as here:
            connect5(here.address, b"v4.example", port).close()
            assert here.server.line(rule="near")["to"] == f"127.0.0.1:{port}"
            # 127.0.0.2 comes first, through the upstream; 127.0.0.1 would go another way
            assert here.reply_to(b"both.example", never.port) == 5
            assert here.server.line(target=f"both.example:{never.port}")["via"] == "office"
    office.idle()
    assert [line["target"] for line in office.lines] == [f"127.0.0.2:{never.port}"]


def test_next_address_of_a_name_is_asked_for_where_the_upstream_cannot_reach_the_first(office: Running) -> None:
    rules = HERE.format(name="here"), 'via = "office"\n'
    with target() as (_, port), routing(upstream("office", url(office.address)), *rules) as here:
        with connect5(here.address, b"both.example", port) as sock:
            assert echoes(sock)
        assert here.server.line(via="office")["to"] == f"127.0.0.1:{port}"


def test_question_for_a_name_is_not_answered_here_where_the_upstream_is_to(office: Running) -> None:
    grants = 'via = "office"\nresolve = "upstream"\n'
    with routing(upstream("office", url(office.address)), ANYTHING, grants) as here:
        sock, reply, _, _ = ask5(here.address, 0xF0, b"v4.example", 0)
        sock.close()
        assert reply == 7
        assert here.names.asked == []


# what fails


@pytest.mark.usefixtures("nothing_left")
def test_next_upstream_serves_where_the_first_has_failed_and_then_that_rests(
    office: Running, echo: Where, dead: tuple[Where, list[None]]
) -> None:
    (where, came), text = dead, upstream("spare", url(office.address))
    with routing(upstream("office", url(where)), text, ANYTHING, 'via = ["office", "spare"]\n') as here:
        for _ in range(3):
            with connect5(here.address, *echo) as sock:
                assert echoes(sock)
        here.server.idle()
        assert [line["via"] for line in here.server.lines] == ["spare"] * 3
    assert len(came) == 1


def test_upstreams_are_picked_by_their_weights_and_the_others_serve_where_one_has_failed(
    office: Running, echo: Where, nobody: Where
) -> None:
    spare = upstream("spare", url(office.address), more="weight = 0\n")
    rule = ANYTHING + 'via = ["spare", "office"]\npick = "weight"\n'
    for where, serves in ((office.address, "office"), (nobody, "spare")):
        with routing(spare, upstream("office", url(where)), rule) as here:
            for _ in range(2):
                with connect5(here.address, *echo) as sock:
                    assert echoes(sock)
            here.server.idle()
            assert [line["via"] for line in here.server.lines] == [serves] * 2


def test_what_rests_is_tried_all_the_same_where_nothing_else_serves(
    office: Running, echo: Where, nobody: Where, dead: tuple[Where, list[None]]
) -> None:
    (where, came), gone = dead, upstream("gone", url(nobody))
    with routing(upstream("office", url(where)), gone, ANYTHING, 'via = ["office", "gone"]\n') as here:
        for _ in range(2):
            assert here.reply_to(*echo) == 5
        here.server.idle()
        line = here.server.lines[-1]
        assert line["why"] == "upstream"
        assert 'upstream "office"' in line["note"]
        assert 'upstream "gone"' in line["note"]
    assert len(came) == 2


def test_what_an_upstream_says_of_the_target_is_the_answer(echo: Where) -> None:
    def refuse(_request: Request, _context: Context) -> Verdict:
        return Verdict(allow=False, rule="no")

    with serving(policy=refuse) as first, serving() as second:
        text = upstream("office", url(first.address)) + upstream("spare", url(second.address))
        with routing(text, ANYTHING, 'via = ["office", "spare"]\n') as here:
            for _ in range(2):  # and it does not rest for it
                assert here.reply_to(*echo) == 2
            here.server.idle()
            for line in here.server.lines:
                assert (line["why"], line["via"], line["verdict"]) == ("upstream", "office", "allow")
                assert f"proxy {url(first.address)}, asked for 127.0.0.1:{echo[1]}" in line["note"]
        assert second.lines == []


def test_target_that_refuses_is_told_as_such(office: Running, nobody: Where) -> None:
    with routing(upstream("office", url(office.address)), ANYTHING, 'via = "office"\n') as here:
        assert here.reply_to(*nobody) == 5
        line = here.server.only_line()
        assert (line["why"], line["via"]) == ("failed", "office")
        assert line["note"].startswith('request: upstream "office": proxy ')


def test_upstream_that_is_not_there_is_never_gone_around(nobody: Where) -> None:
    with NeverReached() as never, routing(upstream("office", url(nobody)), ANYTHING, 'via = "office"\n') as here:
        assert here.reply_to("127.0.0.1", never.port) == 5
        line = here.server.only_line()
        assert (line["why"], line["via"]) == ("upstream", "office")
        assert "cannot be reached" in line["note"]


def test_upstream_that_wants_another_password_is_told_without_ours(echo: Where) -> None:
    with serving(authenticator=Passwords({b"bob": b"secret"})) as office:
        text = upstream("office", url(office.address, login="bob:sesame@"))
        with routing(text, ANYTHING, 'via = "office"\n') as here:
            assert here.reply_to(*echo) == 2
            line = here.server.only_line()
            assert (line["why"], line["note"].partition(":")[0]) == ("upstream", "auth")
            assert "sesame" not in "".join(here.server.raw)


def test_server_does_not_go_through_itself(echo: Where) -> None:
    """Row D7: by a name nobody can tell before it is looked up."""
    with routing(upstream("loop", "socks5h://v4.example:9"), ANYTHING, 'via = "loop"\n') as here:
        own = (f"socks5h://v4.example:{here.address[1]}", f"http://127.0.0.1:{here.address[1]}")
        for number, one in enumerate(own):
            table = {"loop": Upstream("loop", parse_proxies(one))}
            here.server.call_sync(lambda table=table: setattr(here.server.server, "upstreams", Upstreams(table)))
            assert here.reply_to(*echo) == 1
            here.server.idle()
            assert len(here.server.lines) == number + 1
            assert "is this server itself" in here.server.lines[-1]["note"]


def test_upstream_that_a_reload_took_away_is_missed(office: Running, echo: Where) -> None:
    with routing(upstream("office", url(office.address)), ANYTHING, 'via = "office"\n') as here:
        other = {"other": Upstream("other", parse_proxies(url(office.address)))}
        here.server.call_sync(lambda: setattr(here.server.server, "upstreams", Upstreams(other)))
        assert here.reply_to(*echo) == 1
        assert "there is no upstream office any more" in here.server.only_line()["note"]


def test_workers_take_another_upstream_by_a_reload_and_leave_tunnels_alone(
    tmp_path: Path, office: Running, echo: Where
) -> None:
    """Its URL is in a file of its own, which is read anew."""
    text = LISTEN + JSON + upstream("office", "@office.url") + ANYTHING + 'via = "office"\n'
    (tmp_path / "office.url").write_text(url(office.address))
    with serving() as other, configured(tmp_path, text) as server, connect5(server.address, *echo) as before:
        assert echoes(before)
        (tmp_path / "office.url").write_text(url(other.address))
        server.reload(text)
        assert echoes(before)
        assert len(server.rows("sessions", via="office")) == 1
        with connect5(server.address, *echo) as after:
            assert echoes(after)
        assert other.line(reply=0)["target"] == f"127.0.0.1:{echo[1]}"
        assert server.record(via="office")["reply"] == 0
    assert office.line(reply=0)["target"] == f"127.0.0.1:{echo[1]}"


# the other commands


def test_upstream_listens_where_bind_has_one(office: Running) -> None:
    rules = HERE.format(name="here"), 'via = "office"\n'
    with routing(upstream("office", url(office.address)), *rules) as here:
        sock, reply, host, port = ask5(here.address, 2, b"v4.example", 0)
        assert reply == 0
        with sock, socket.create_connection((host, port)) as peer:
            assert read_reply5(sock) == (0, *peer.getsockname())
            peer.sendall(b"hello")
            peer.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"hello"
        assert here.server.line(command="bind")["via"] == "office"
    assert office.line(command="bind")["target"] == "127.0.0.1:0"


def test_bind_that_no_upstream_can_do_is_refused_as_such(echo: Where) -> None:
    with connect_proxy() as http, routing(upstream("web", url(http, "http")), ANYTHING, 'via = "web"\n') as here:
        sock, reply, _, _ = ask5(here.address, 2, "127.0.0.1", 0)
        sock.close()
        assert reply == 7


@pytest.mark.usefixtures("nothing_left")
def test_peer_that_the_upstream_should_not_have_taken_is_cut_off() -> None:
    def listen(sock: socket.socket) -> None:
        sock.sendall(b"\x05\x00" + b"\x05\x00\x00\x01\x7f\0\0\x01\x10\x00" + b"\x05\x00\x00\x01\x7f\0\0\x09\x10\x01")
        read_all(sock)

    with target(listen) as where, routing(upstream("odd", url(where)), ANYTHING, 'via = "odd"\n') as here:
        sock, reply, host, port = ask5(here.address, 2, "127.0.0.1", 0)
        assert (reply, host, port) == (0, "127.0.0.1", 0x1000)
        with sock:
            assert read_reply5(sock)[0] == 2
        assert "peer 127.0.0.9:4097 is not 127.0.0.1" in here.server.only_line()["note"]


def test_nobody_comes_to_the_upstream_in_time(office: Running) -> None:
    with routing(upstream("office", url(office.address)), ANYTHING, 'via = "office"\nlifetime = 1\n') as here:
        sock, reply, _, _ = ask5(here.address, 2, "127.0.0.1", 0)
        assert reply == 0
        with sock:
            assert read_reply5(sock)[0] == 6
        assert here.server.only_line()["why"] == "limit:rule-lifetime"


def test_datagrams_go_through_the_upstream_of_the_rule(office: Running, there: socket.socket) -> None:
    with routing(upstream("office", url(office.address)), ANYTHING, 'via = "office"\n') as here:
        with Association(here.address) as association:
            for _ in range(3):
                association.talk(there)
        line = here.server.line(command="udp_associate")
        assert (line["via"], line["up"], line["down"]) == ("office", 12, 12)
    assert office.line(command="udp_associate")["up"] == 12


@pytest.mark.usefixtures("nothing_left")
def test_datagrams_go_through_chains_and_never_around_a_proxy(office: Running, there: socket.socket) -> None:
    with serving(authenticator=Passwords({b"bob": b"secret"})) as second:
        text = upstream("office", url(office.address), url(second.address, login="bob:secret@"))
        with routing(text, ANYTHING, 'via = "office"\n') as here:
            with Association(here.address) as association:
                association.talk(there)
            assert here.server.line(command="udp_associate")["up"] == 4
        second.idle()
        assert {line["command"]: line["up"] for line in second.lines}["udp_associate"] == 4
    office.idle()
    # what the nearest carries has the header for the second before it: 10 bytes, RFC 1928 section 7
    assert {line["command"]: line["up"] for line in office.lines}["udp_associate"] == 14


def test_association_is_with_the_first_upstream_that_relays_datagrams(office: Running, there: socket.socket) -> None:
    with connect_proxy() as http:
        text = upstream("web", url(http, "http")), upstream("office", url(office.address)), ANYTHING
        with routing(*text, 'via = ["web", "office"]\n') as here, Association(here.address) as association:
            association.talk(there)
            association.close()
            assert here.server.line(command="udp_associate")["via"] == "office"
        with routing(*text, 'via = "web"\n') as here:
            assert refused(here.address) == 7


def test_datagrams_to_names_are_looked_up_and_judged_here(office: Running, there: socket.socket) -> None:
    rules = '[[rule]]\nname = "no"\nrefuse = "not-allowed"\nto = "127.0.0.2"\n', ANYTHING, 'via = "office"\n'
    with routing(upstream("office", url(office.address)), *rules) as here:
        with Association(here.address) as association:
            association.send(b"inside.example", address_of(there)[1], b"never")
            association.send(b"v4.example", address_of(there)[1], b"hello")
            assert there.recvfrom(100)[0] == b"hello"
            until(lambda: "inside.example" in here.names.asked, "the look-up")
            association.talk(there)
        assert "denied 1" in drops(here.server)


def test_datagrams_to_names_that_the_upstream_should_look_up_are_dropped(office: Running, there: socket.socket) -> None:
    grants = 'via = "office"\nresolve = "upstream"\n'
    with routing(upstream("office", url(office.address)), ANYTHING, grants) as here:
        with Association(here.address) as association:
            association.send(b"v4.example", address_of(there)[1], b"never")
            association.talk(there)
        assert here.names.asked == []
        assert "denied 1" in drops(here.server)


@pytest.mark.usefixtures("nothing_left")
def test_association_ends_with_that_of_the_upstream(there: socket.socket) -> None:
    with serving() as office, routing(upstream("office", url(office.address)), ANYTHING, 'via = "office"\n') as here:
        with Association(here.address) as association:
            association.talk(there)
            office.close()
            assert association.control.recv(1) == b""
        line = here.server.only_line()
        assert (line["by"], line["why"]) == ("tabi", "upstream")
        assert "has ended the association" in line["note"]


def test_association_at_an_upstream_that_is_not_there_is_refused(nobody: Where) -> None:
    with routing(upstream("office", url(nobody)), ANYTHING, 'via = "office"\n') as here:
        assert refused(here.address) == 5
        assert here.server.only_line()["why"] == "upstream"


@pytest.mark.usefixtures("nothing_left")
def test_upstream_that_tells_no_port_for_its_relay_is_blamed() -> None:
    def associate(sock: socket.socket) -> None:
        sock.sendall(b"\x05\x00" + b"\x05\x00\x00\x01\x7f\0\0\x01\x00\x00")
        read_all(sock)

    with target(associate) as where, routing(upstream("odd", url(where)), ANYTHING, 'via = "odd"\n') as here:
        assert refused(here.address) == 1
        assert "told port 0 for its relay" in here.server.only_line()["note"]


def test_datagrams_of_rules_that_go_directly_do_not_go_through_an_upstream(
    office: Running, there: socket.socket
) -> None:
    near = f'[[rule]]\nname = "near"\nallow = true\nport = {address_of(there)[1]}\n'
    with routing(upstream("office", url(office.address)), near, ANYTHING, 'via = "office"\n') as here:
        with Association(here.address) as association, datagrams() as other:
            association.send(*address_of(there), b"never")
            association.talk(other)
        assert is_quiet(there)
        assert "denied 1" in drops(here.server)


def test_association_that_goes_directly_takes_datagrams_of_every_rule_that_does(
    office: Running, there: socket.socket
) -> None:
    near = f'[[rule]]\nname = "near"\nallow = true\nport = {address_of(there)[1]}\n'
    racing = 'via = ["direct", "office"]\npick = "race"\n'
    opening = f'[[rule]]\nname = "first"\nallow = true\nport = 1\n{racing}'
    with routing(upstream("office", url(office.address)), opening, near) as here:
        with Association(here.address) as association:
            association.talk(there)


def test_datagrams_that_should_go_through_an_upstream_are_dropped(office: Running, there: socket.socket) -> None:
    _, port = address_of(there)
    far = f'[[rule]]\nname = "far"\nallow = true\nport = {port}\nvia = "office"\n'
    near = '[[rule]]\nname = "near"\nallow = true\ncommand = "associate"\n'
    opening = '[[rule]]\nname = "first"\nallow = true\nport = 1\n'
    with routing(upstream("office", url(office.address)), opening, far, near) as here:
        with Association(here.address) as association:
            association.send("127.0.0.1", port, b"never")
            with datagrams() as other:
                association.talk(other)
        assert is_quiet(there)
        assert "denied 1" in drops(here.server)
