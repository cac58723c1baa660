"""dig: the gate's name server as a resolver with an opinion of its own sees it."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from helpers.programs import need, run
from helpers.waiting import PATIENCE
from tabi.wrap.names import Names
from tabi.wrap.responder import Responder


@contextmanager
def responding() -> Iterator[dict[str, int]]:
    """Run a name server in a thread; gives its ports."""
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp.bind(("127.0.0.1", 0))
        for sock in (tcp, udp):
            sock.setblocking(False)
        ports = {"+tcp": tcp.getsockname()[1], "+notcp": udp.getsockname()[1]}
        loop = asyncio.new_event_loop()
        over = asyncio.Event()

        async def serve() -> None:
            responder = Responder(Names(), (udp,), (tcp,))
            await over.wait()
            responder.close()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        try:
            yield ports
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join(PATIENCE)
            loop.close()


def dig(ports: dict[str, int], transport: str, *arguments: str) -> str:
    done = run(need("dig"), "@127.0.0.1", "-p", str(ports[transport]), transport, "+tries=3", "+time=5", *arguments)
    assert done.returncode == 0, done.stdout
    text = done.stdout.decode()
    assert "WARNING" not in text, text
    return text


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_names_and_addresses(transport: str) -> None:
    with responding() as ports:
        for arguments, expected in (
            (("Secret.Example.test",), ["198.18.1.1"]),
            (("secret.example.test", "AAAA"), ["fd00:5ec:0:1::1"]),
            (("-x", "198.18.1.1"), ["secret.example.test."]),
            (("-x", "fd00:5ec:0:1::1"), ["secret.example.test."]),
            (("wiki",), ["198.18.1.2"]),
            (("secret.example.test", "HTTPS"), []),
            (("localhost",), ["127.0.0.1"]),
        ):
            assert dig(ports, transport, "+short", *arguments).split() == expected


def test_what_it_says_of_the_messages() -> None:
    with responding() as ports:

        def said(*arguments: str) -> str:
            return dig(ports, "+notcp", *arguments)

        answer = said("one.test")
        assert "status: NOERROR" in answer
        assert "EDNS: version: 0, flags:; udp: 1232" in answer
        assert "QUERY: 1, ANSWER: 1, AUTHORITY: 0, ADDITIONAL: 1" in answer
        assert "flags: do;" in said("+dnssec", "one.test")
        assert "status: NXDOMAIN" in said("a.invalid")
        assert "status: BADVERS" in said("+edns=1", "+noednsnegotiation", "one.test")
        assert "status: REFUSED" in said("version.bind", "TXT", "CH")
        assert "status: NOTIMP" in said("+noedns", "+opcode=notify", "one.test")
        assert "EDNS" not in said("+noedns", "one.test")
