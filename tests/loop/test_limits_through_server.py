"""Time limits of tunnels reach the engine, and their names the log."""

import inspect
import socket
from dataclasses import replace

import pytest

from helpers.name_service import NameService
from helpers.serving import serving
from helpers.socks import ask5, connect5, read_all
from helpers.waiting import PATIENCE
from tabi.config.settings import LogSettings, TimeLimits
from tabi.errors import Reply
from tabi.net.resolver import Resolver
from tabi.server.review import RELOADED


def test_a_tunnel_without_a_byte_is_cut_and_logged_as_idle() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, serving(time=TimeLimits(idle=0.1)) as server:
        with connect5(server.address, *listener.getsockname()) as sock:
            assert server.line(why="limit:idle")["by"] == "tabi"
            with pytest.raises(ConnectionResetError):
                read_all(sock)


def test_a_half_open_tunnel_without_a_byte_is_cut_and_logged_as_half_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, serving(time=TimeLimits(half_open=0.1)) as server:
        with connect5(server.address, *listener.getsockname()) as sock:
            there, _ = listener.accept()
            with there:
                there.settimeout(PATIENCE)
                sock.shutdown(socket.SHUT_WR)
                assert there.recv(1) == b""
                assert server.line(why="limit:half_open")["by"] == "tabi"
                with pytest.raises(ConnectionResetError):
                    read_all(sock)


def test_a_look_up_that_takes_too_long_is_logged_as_resolve_and_answered_6() -> None:
    with serving(time=TimeLimits(resolve=0.1)) as server:
        NameService(slow=["slow.test"]).serve(server)
        sock, reply, _, _ = ask5(server.address, 1, b"slow.test", 80)
        sock.close()
        assert reply == Reply.TTL_EXPIRED
        line = server.line(why="limit:resolve")
        assert "0.1 s" in line["note"]


def test_the_time_of_look_ups_can_be_changed_by_a_reload() -> None:
    with serving(time=TimeLimits(resolve=60)) as running:
        NameService(slow=["slow.test"]).serve(running)
        server = running.server
        settings = replace(server.settings, time=TimeLimits(resolve=0.1), log=LogSettings(format="json"))
        terms = {"access": server.options_for, "upstreams": {}, "user_limits": {}, "rule_limits": {}, "since": RELOADED}
        running.call_sync(lambda: server.reconfigure(settings, policy=server.policy, **terms))
        sock, reply, _, _ = ask5(running.address, 1, b"slow.test", 80)
        sock.close()
        assert reply == Reply.TTL_EXPIRED
        assert "0.1 s" in running.line(why="limit:resolve")["note"]


def test_the_resolver_has_the_limits_that_are_documented() -> None:
    defaults = {name: one.default for name, one in inspect.signature(Resolver).parameters.items()}
    assert (defaults["query_timeout"], defaults["keep"], defaults["keep_failures"]) == (5.0, 30.0, 5.0)
    assert defaults["max_names"] == 10_000
