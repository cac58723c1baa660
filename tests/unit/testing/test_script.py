"""Scripts: a right machine passes, a wrong one is shown, an unfinished script is an error."""

import gc
import sys
from collections.abc import Generator
from dataclasses import dataclass

import pytest

from tabi.errors import AuthError, ProtocolError, Reply, Stage, TabiError, UsageError
from tabi.machine.base import Failed, Machine
from tabi.machine.server import CredentialsReceived, RequestReceived, ServerMachine, ServerOptions
from tabi.testing import Script, ScriptError
from tabi.wire.socks5 import Method


@dataclass(frozen=True)
class Said:
    """What the machine of these tests tells."""

    word: bytes


class Toy(Machine[Said]):
    """Reads a length byte and a word, answers with the word."""

    stage = Stage.GREETING

    def _run(self) -> Generator[int | Said, None, Said]:
        yield 1
        size = self._buffer[0]
        if size == 0:
            raise ProtocolError("an empty word", reply=Reply.HOST_UNREACHABLE)
        yield 1 + size
        return self._take(1 + size)

    def _take(self, size: int) -> Said:
        word = bytes(self._buffer[1:size])
        del self._buffer[:size]
        self._out += word
        return Said(word)

    def _failed(self, error: TabiError) -> Failed:
        return Failed(error)


class Segmented(Toy):
    """Takes what one read brought for a whole message, as some servers do."""

    def receive_data(self, data: bytes) -> None:
        super().receive_data(data)
        if self._buffer and not self.is_over:
            self._buffer[0] = len(self._buffer) - 1


class Greedy(Toy):
    """Swallows what lies behind its message."""

    def _take(self, size: int) -> Said:
        said = super()._take(size)
        self._buffer.clear()
        return said


class Grasping(Toy):
    """Asks for a byte that is not its own."""

    def _run(self) -> Generator[int | Said, None, Said]:
        yield 1
        yield 2 + self._buffer[0]
        return self._take(1 + self._buffer[0])


class Talkative(Toy):
    """Answers with a byte too many."""

    def _take(self, size: int) -> Said:
        said = super()._take(size)
        self._out += b"!"
        return said


def hello(machine: type[Toy] = Toy) -> Script[Toy]:
    return Script(machine).feeds(b"\x05hello").expects(Said(b"hello")).sends(b"hello")


def complaint(script: Script[Toy]) -> str:
    with pytest.raises(ScriptError) as complaint:
        script.run()
    return str(complaint.value)


def test_right_machine_follows_in_every_way() -> None:
    hello().run()


@pytest.mark.parametrize("wrong", [Segmented, Greedy, Grasping, Talkative])
def test_wrong_machine_leaves_the_script(wrong: type[Toy]) -> None:
    complaint(hello(wrong))


def test_machine_that_takes_a_read_for_a_message_is_shown_with_the_way_that_found_it() -> None:
    script = Script(Segmented).feeds(b"\x05hello").closes().expects(Said).sends(b"hello")
    assert "input byte by byte" in complaint(script)


def test_machine_that_swallows_the_tunnels_bytes_is_shown() -> None:
    text = complaint(hello(Greedy))
    assert "then more" in text
    assert "leaves" in text


def test_machine_that_asks_for_a_byte_of_the_tunnel_is_shown() -> None:
    assert "needs    1" in complaint(hello(Grasping))


def test_complaint_shows_the_script_and_where_it_was_left() -> None:
    text = complaint(Script(Toy).feeds("05").feeds(b"hello").expects(Said(b"hello")).sends("68 65").decides(print))
    assert text.splitlines() == [
        "the machine left the script (input whole):",
        "   feeds    05",
        "   feeds    b'hello'",
        "   expects  Said(word=b'hello')",
        "-> sends    68 65",
        " ! sends    b'hello'",
        "   decides",
    ]


@pytest.mark.parametrize(
    "script",
    [
        Script(Toy).feeds(b"\x05hello").expects(Said(b"hullo")).sends(b"hello"),
        Script(Toy).feeds(b"\x05hello").expects(RequestReceived).sends(b"hello"),
        Script(Toy).feeds(b"\x05hello").expects(Said).expects(Said).sends(b"hello"),
        Script(Toy).feeds(b"\x05hello").expects(Said).sends(b"hell"),
        Script(Toy).feeds(b"\x05hello").expects(Said).sends(""),
        Script(Toy).feeds(b"\x05hello").expects(Said),  # its answer was never looked at
        Script(Toy).feeds(b"\x05hello").sends(b"hello"),  # nor its event
        Script(Toy).feeds(b"\x05hello").fails(ProtocolError),
        Script(Toy).feeds(b"\x05hell").expects(Said),
        Script(Toy).feeds(b"\x05hell").needs(2),
        Script(Toy).feeds(b"\x05hello").needs(1),
        Script(Toy).feeds(b"\x05hell"),
        Script(Toy).feeds(b"\x05hello?").expects(Said).sends(b"hello"),
        Script(Toy).feeds(b"\x05hello").expects(Said).sends(b"hello").leaves(b"?"),
        Script(Toy).feeds(b"\x00").expects(Said),
        Script(Toy).feeds(b"\x00").fails(AuthError),
        Script(Toy).feeds(b"\x00").fails(ProtocolError, reply=Reply.GENERAL_FAILURE),
        Script(Toy).feeds(b"\x00").fails(ProtocolError, text="a full word"),
    ],
)
def test_script_that_says_otherwise_than_the_machine_does_is_refused(script: Script[Toy]) -> None:
    complaint(script)


@pytest.mark.parametrize(
    "script",
    [
        Script(Toy).feeds(b"\x05hell").needs(1),
        Script(Toy).feeds("").needs(1),
        Script(Toy).feeds(b"\x05hell").sends("").needs(1),
        Script(Toy).feeds(b"\x05hello??").expects(Said).sends(b"hello").leaves(b"??"),
        Script(Toy).feeds(b"\x05hello").closes().expects(Said(b"hello")).sends(b"hello"),
        Script(Toy).closes().fails(ProtocolError, text="closed in the greeting, 0 bytes"),
        Script(Toy).feeds(b"\x05hell").closes().fails(ProtocolError, text="5 bytes").sends(""),
        Script(Toy).feeds(b"\x00").fails(ProtocolError, reply=Reply.HOST_UNREACHABLE, text="empty"),
    ],
)
def test_script_that_the_machine_follows_passes(script: Script[Toy]) -> None:
    script.run()


def test_decisions_are_made_on_the_machine_that_plays() -> None:
    options = ServerOptions(methods=frozenset({Method.USERPASS}))
    script = Script(lambda: ServerMachine(options)).feeds("05 01 02 01 01 61 01 62 05").expects(CredentialsReceived)
    script.decides(ServerMachine.authenticated).sends("05 02 01 00").needs(3).run()


def test_undecided_script_is_an_error() -> None:
    options = ServerOptions(methods=frozenset({Method.USERPASS}))
    script = Script(lambda: ServerMachine(options)).feeds("05 01 02 01 01 61 01 62").expects(CredentialsReceived)
    with pytest.raises(ScriptError, match="does not"):
        script.run()


def test_empty_script_is_an_error() -> None:
    with pytest.raises(UsageError, match="empty"):
        Script(Toy).run()


def test_script_that_was_never_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda info: told.append(str(info.exc_value)))
    Script(Toy).feeds("05")
    gc.collect()
    assert told == ["a script was written and never run; end it with .run(): feeds    05"]
