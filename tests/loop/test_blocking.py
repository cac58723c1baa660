"""The blocking driver of plans: what opens, how failures are told, and that nothing is left behind."""

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address

import pytest

from helpers.waiting import until
from tabi.addr import Address, Endpoint, Name
from tabi.client import blocking
from tabi.client.blocking import drive
from tabi.dial.direct import DirectOptions, direct
from tabi.dial.wishes import Cancel, Close, Connection, Done, Failed, Open, Peek, Plan, Read, Resolve, Send, Sleep
from tabi.errors import DialError, DialTimeoutError, Reply, Stage

V4 = IPv4Address("127.0.0.1")
V6 = IPv6Address("::1")
NAME = Name("target.example")

pytestmark = pytest.mark.usefixtures("nothing_left")


@contextmanager
def listening(address: Address = V4, backlog: int = 16) -> Iterator[tuple[socket.socket, int]]:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.create_server((str(address), 0), family=family, backlog=backlog) as listener:
        yield listener, listener.getsockname()[1]


def dial(host: Address | Name, port: int, **options: float) -> Connection:
    return drive(direct(Endpoint(host, port), permit=lambda _: True, options=DirectOptions(**options)))


def sock_of(connection: Connection) -> socket.socket:
    assert isinstance(connection.handle, socket.socket)
    return connection.handle


@pytest.mark.parametrize("address", [V4, V6])
def test_a_literal_is_connected_and_both_ends_are_told_truly(address: Address) -> None:
    with listening(address) as (listener, port):
        connection = dial(address, port)
        accepted, peer = listener.accept()
        with accepted, sock_of(connection) as sock:
            assert connection.remote == Endpoint(address, port)
            assert connection.local == Endpoint.from_sockaddr(peer)
            assert sock.getblocking() is False
            assert sock.get_inheritable() is False


@pytest.mark.parametrize("address", [V4, V6])
def test_a_port_without_listener_is_refused(address: Address) -> None:
    with listening(address) as (_, port):
        pass
    with pytest.raises(DialError) as caught:
        dial(address, port)
    assert caught.value.reply is Reply.CONNECTION_REFUSED


def test_a_target_that_answers_no_syn_is_given_up_at_the_time_limit() -> None:
    with listening(backlog=0) as (_, port), socket.socket() as first, socket.socket() as second:
        for sock in (first, second):  # fill the queue of connections (tcp(7))
            sock.setblocking(False)
            sock.connect_ex((str(V4), port))
        with pytest.raises(DialTimeoutError):
            dial(V4, port, timeout=0.1)


def test_names_are_looked_up_in_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    def addresses_of(name: Name, family: int) -> tuple[Address, ...]:
        assert name == NAME
        return (V4,) if family == 4 else ()

    monkeypatch.setattr(blocking, "addresses_of", addresses_of)
    with listening() as (_, port):
        sock_of(dial(NAME, port)).close()


def test_a_look_up_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def addresses_of(_name: Name, _family: int) -> tuple[Address, ...]:
        raise DialError("the name servers fail", stage=Stage.RESOLVE)

    monkeypatch.setattr(blocking, "addresses_of", addresses_of)
    with pytest.raises(DialError, match="name servers fail"):
        dial(NAME, 80)


def test_a_look_up_that_hangs_does_not_hold_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, ended = threading.Event(), threading.Semaphore(0)

    def addresses_of(_name: Name, _family: int) -> tuple[Address, ...]:
        go_on.wait()
        ended.release()
        return (V4,)

    monkeypatch.setattr(blocking, "addresses_of", addresses_of)
    with pytest.raises(DialTimeoutError) as caught:
        dial(NAME, 80, timeout=0.1)
    assert caught.value.stage is Stage.RESOLVE
    go_on.set()
    for _ in range(2):
        assert ended.acquire(timeout=20)


def test_a_look_up_that_dies_of_a_bug_is_no_endless_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    monkeypatch.setattr(blocking, "addresses_of", lambda _name, _family: 1 // 0)
    with pytest.raises(DialError, match="without an answer"):
        dial(NAME, 80)
    until(lambda: len(died) == 2, "both threads to have died")


def test_what_a_plan_opened_and_does_not_return_is_closed() -> None:
    def two(port: int, *, fail: bool) -> Plan:
        yield (Open(V4, port), Open(V4, port), Open(V4, port), Sleep(60))
        second = yield ()
        if fail:
            raise DialError("no luck")
        return second.value

    with listening() as (listener, port):
        connection = drive(two(port, fail=False))
        peers = [listener.accept()[0] for _ in range(3)]
        with sock_of(connection) as sock:
            ours = sock.getsockname()
            for peer in peers:
                with peer:
                    if peer.getpeername() != ours:
                        assert peer.recv(1) == b""
        with pytest.raises(DialError, match="no luck"):
            drive(two(port, fail=True))
        for peer in [listener.accept()[0] for _ in range(3)]:
            with peer:
                assert peer.recv(1) == b""


def test_an_interrupted_plan_leaves_nothing() -> None:
    def interrupted(port: int) -> Plan:
        yield (Open(V4, port),)
        raise KeyboardInterrupt

    with listening() as (listener, port):
        with pytest.raises(KeyboardInterrupt):
            drive(interrupted(port))
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(1) == b""


def test_wishes_run_side_by_side_and_a_cancelled_one_has_no_fact() -> None:
    long, short, none = Sleep(60), Sleep(0.01), Sleep(0)

    def sleeping(port: int) -> Plan:
        fact = yield (long, short, none, Cancel(none))
        assert fact.wish is short
        fact = yield (Cancel(long), Open(V4, port))
        return fact.value

    with listening() as (_, port):
        sock_of(drive(sleeping(port))).close()


def test_much_is_sent_and_no_more_is_read_than_asked_for() -> None:
    data = os.urandom(8 << 20)

    def converse(port: int) -> Plan:
        opened = yield (Open(V4, port),)
        connection = opened.value
        yield (Send(connection, data),)
        yield (Send(connection, b""),)
        peeked = yield (Peek(connection, 3),)
        read = yield (Read(connection, 3),)
        assert (peeked.value, read.value) == (b"tha", b"tha")
        return connection

    heard = bytearray()

    def hear(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            while len(heard) < len(data):
                heard.extend(peer.recv(65536))
            peer.sendall(b"thanks")

    with listening() as (listener, port):
        hearing = threading.Thread(target=hear, args=(listener,))
        hearing.start()
        with sock_of(drive(converse(port))) as sock:
            hearing.join(20)
            assert sock.recv(99) == b"nks"
    assert bytes(heard) == data


@pytest.mark.parametrize("wish", ["send", "read"])
def test_a_reset_while_talking_is_a_failure_of_the_negotiation(wish: str) -> None:
    def converse(port: int, listener: socket.socket) -> Plan:
        opened = yield (Open(V4, port),)
        connection = opened.value
        peer, _ = listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        fact = yield (Send(connection, bytes(8 << 20)) if wish == "send" else Read(connection, 1),)
        assert isinstance(fact, Failed)
        raise fact.error

    with listening() as (listener, port), pytest.raises(DialError) as caught:
        drive(converse(port, listener))
    assert caught.value.stage is Stage.NEGOTIATE


def test_a_connection_is_closed_at_the_plans_word() -> None:
    def converse(port: int, listener: socket.socket) -> Plan:
        first = yield (Open(V4, port),)
        peer, _ = listener.accept()
        yield (Close(first.value), Sleep(0))
        with peer:
            assert peer.recv(1) == b""
        second = yield (Open(V4, port),)
        assert isinstance(second, Done)
        return second.value

    with listening() as (listener, port):
        sock_of(drive(converse(port, listener))).close()


def test_connecting_to_oneself_counts_as_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as (_, port):
        pass

    class Same(socket.socket):
        def connect_ex(self, address: object) -> int:
            self.bind((str(V4), port))  # what the kernel does by chance with an ephemeral port
            return super().connect_ex(address)

    monkeypatch.setattr("tabi.client.blocking.PlainSocket", Same)
    with pytest.raises(DialError) as caught:
        dial(V4, port)
    assert caught.value.reply is Reply.CONNECTION_REFUSED


def test_our_own_shortage_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("tabi.client.blocking.PlainSocket", make)
    with pytest.raises(DialError, match="LimitNOFILE"):
        dial(V4, 80)


def test_resolving_can_be_cancelled_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(blocking, "addresses_of", lambda _name, _family: (go_on.wait(), (V4,))[1])

    def change_of_mind(port: int) -> Plan:
        asked = Resolve(NAME, 4)
        yield (asked, Sleep(0.01))
        fact = yield (Cancel(asked), Open(V4, port))
        return fact.value

    with listening() as (_, port):
        sock_of(drive(change_of_mind(port))).close()
    go_on.set()
