"""Scenario tests for machines: a script of what is fed, expected, sent and decided, played in several ways.

A script is played with its input whole, byte by byte, in random cuts, and read as the machine's `NeedData`
says; where the handshake ends, all of that once more with further bytes behind its last message, which must
change nothing and come out as early data.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeAlias, TypeVar

from tabi.errors import Reply, TabiError, UsageError
from tabi.machine.base import Failed, Machine, NeedData

__all__ = ["Script", "ScriptError"]

TRAILING = b"\x05\x01\x00\x04\x01\x00GET / HTTP/1.1\r\n\xff"
"""What goes behind the last message: made to look like messages to whoever reads too far."""

_Take: TypeAlias = Callable[[int, int], int]
"""(bytes that the machine needs, bytes that it has not read) -> bytes that it gets now."""

M = TypeVar("M", bound=Machine[Any])  # Any: the events of either half


class ScriptError(AssertionError):
    """The machine did not follow the script; the text shows the script and where it was left."""


class Script(Generic[M]):
    """Write down a conversation with a machine, then `run` it.

    Args:
        make: makes the machine, a fresh one for each way to play.
        seeds: how many random cuts are tried.

    >>> from tabi.machine.server import RequestReceived, ServerMachine
    >>> script = (
    ...     Script(ServerMachine)
    ...     .feeds("05 01 00")  # RFC 1928 section 3: VER NMETHODS METHODS
    ...     .sends("05 00")
    ...     .feeds("05 01 00 01 c0 00 02 01 00 50")  # section 4
    ...     .expects(RequestReceived)
    ...     .decides(lambda machine: machine.fail(Reply.CONNECTION_REFUSED))
    ...     .sends("05 05 00 01 00 00 00 00 00 00")
    ... )
    >>> script.run()

    Bytes are `bytes`, or text with hexadecimal digits as above. Each step returns the script.
    """

    def __init__(self, make: Callable[[], M], *, seeds: int = 5) -> None:
        self._make = make
        self._steps: list[_Step[M]] = []
        self._seeds = seeds
        self._has_run = False

    def feeds(self, data: bytes | str) -> Self:
        """The peer sends `data`. Consecutive feeds are apart only in the reader's eye."""
        return self._add("feeds", data=_bytes(data))

    def closes(self) -> Self:
        """The peer closes its direction."""
        return self._add("closes")

    def sends(self, data: bytes | str) -> Self:
        """The machine has put out exactly `data` since the last `sends`, b"" for nothing at all."""
        return self._add("sends", data=_bytes(data))

    def expects(self, event: object) -> Self:
        """The next event is equal to `event`, or of that class."""
        return self._add("expects", event=event)

    def fails(self, error: type[TabiError], *, reply: Reply | None = None, text: str = "") -> Self:
        """The next event is `Failed` with such an error, with that reply, with `text` in its text."""
        return self._add("fails", event=error, reply=reply, text=text)

    def needs(self, count: int) -> Self:
        """The machine has digested all that was fed, has no event, and needs `count` bytes more."""
        return self._add("needs", count=count)

    def decides(self, decision: Callable[[M], object]) -> Self:
        """The owner of the machine calls something on it."""
        return self._add("decides", decision=decision)

    def leaves(self, data: bytes | str) -> Self:
        """The handshake is over and `data` lies behind it; without this step nothing may."""
        return self._add("leaves", data=_bytes(data))

    def run(self) -> None:
        """Play the script in all ways.

        Raises:
            ScriptError: the machine did otherwise, or the script ends before the handshake (end it with
            `needs`). UsageError: the script has no steps.
        """
        self._has_run = True
        if not self._steps:
            raise UsageError("the script is empty")
        ways: dict[str, _Take] = {
            "whole": lambda _need, unread: unread,
            "byte by byte": lambda _need, _unread: 1,
            "as needed": _as_needed,
        }
        ways |= {f"in random cuts (seed {seed})": _at_random(seed) for seed in range(self._seeds)}
        for way, take in ways.items():
            play = _Play(self._make(), self._steps, f"input {way}", take)
            play.run()
            if play.may_trail:
                _Play(self._make(), self._steps, f"input {way}, then more", take, TRAILING).run()

    def _add(self, verb: str, **arguments: Any) -> Self:  # Any: the fields of _Step
        self._steps.append(_Step(verb, **arguments))
        return self

    def __del__(self) -> None:
        if self._steps and not self._has_run:
            raise UsageError(f"a script was written and never run; end it with .run(): {self._steps[0]}")


@dataclass(frozen=True, slots=True)
class _Step(Generic[M]):
    verb: str
    data: bytes = b""
    event: Any = None  # Any: an event, a class of events, a class of errors
    reply: Reply | None = None
    text: str = ""
    count: int = 0
    decision: Callable[[M], object] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        if self.verb in ("feeds", "sends", "leaves"):
            return f"{self.verb:8} {_show(self.data)}"
        if self.verb == "fails":
            details = [self.event.__name__, *([self.reply.name] if self.reply is not None else [])]
            return f"{self.verb:8} {' '.join(details)} {self.text!r}"
        if self.verb == "expects":
            return f"{self.verb:8} {self.event.__name__ if isinstance(self.event, type) else self.event}"
        return f"{self.verb:8} {self.count}" if self.verb == "needs" else self.verb


class _Play(Generic[M]):
    """One way to play a script."""

    def __init__(
        self, machine: M, steps: list[_Step[M]], way: str, take: _Take, trailing: bytes = b""
    ) -> None:
        self._machine = machine
        self._steps = steps
        self._way = way
        self._take = take
        self._trailing = trailing
        self._last_feed = max((at for at, step in enumerate(steps) if step.verb == "feeds"), default=-1)
        self._at = 0
        self._unread = b""
        self._at_eof = False
        self._need = 0
        self._event: object = None  # one that the machine told and the script did not ask for yet
        self._failed = False
        self._early = b""

    @property
    def may_trail(self) -> bool:
        """Whether more bytes behind the last one must change nothing."""
        return self._machine.is_over and self._last_feed >= 0 and not self._at_eof

    def run(self) -> None:
        for at, step in enumerate(self._steps):
            self._at = at
            getattr(self, f"_{step.verb}")(step)
        self._finish()

    def _feeds(self, step: _Step[M]) -> None:
        self._unread += step.data
        if self._at == self._last_feed:
            self._unread += self._trailing

    def _closes(self, _step: _Step[M]) -> None:
        self._at_eof = True

    def _decides(self, step: _Step[M]) -> None:
        assert step.decision is not None
        step.decision(self._machine)

    def _sends(self, step: _Step[M]) -> None:
        self._go_on()
        self._check(sent := self._machine.data_to_send(), step.data, f"sends    {_show(sent)}")

    def _expects(self, step: _Step[M]) -> None:
        event = self._next_event()
        if isinstance(step.event, type):
            self._check(isinstance(event, step.event), True, self._shown(event))
        else:
            self._check(event, step.event, self._shown(event))

    def _fails(self, step: _Step[M]) -> None:
        event = self._next_event()
        matches = isinstance(event, Failed) and isinstance(event.error, step.event)
        if matches and isinstance(event, Failed):
            matches = step.reply in (None, event.error.reply) and step.text in event.error.text
        self._check(matches, True, self._shown(event))

    def _needs(self, step: _Step[M]) -> None:
        self._go_on()
        is_waiting = self._event is None and not self._machine.is_over
        self._check((is_waiting, self._need), (True, step.count), self._shown(self._event))

    def _leaves(self, step: _Step[M]) -> None:
        self._early = step.data

    def _go_on(self) -> None:
        """Feed the machine until it tells something or has had all."""
        while self._event is None and not self._machine.is_over:
            event = self._machine.next_event()
            if not isinstance(event, NeedData):
                self._event = event
                self._failed = isinstance(event, Failed)
                return
            self._need = event.need
            if self._unread:
                size = self._take(event.need, len(self._unread))
                self._machine.receive_data(self._unread[:size])
                self._unread = self._unread[size:]
            elif self._at_eof:
                self._machine.receive_data(b"")
            else:
                return

    def _next_event(self) -> object:
        self._go_on()
        event, self._event = self._event, None
        return event

    def _finish(self) -> None:
        self._at = len(self._steps)
        if not self._machine.is_over:
            is_said = self._steps[-1].verb == "needs"
            self._check(is_said, True, "the script ends, the handshake does not; end it with .needs(...)")
            return
        self._check(self._event, None, self._shown(self._event))
        self._check(sent := self._machine.data_to_send(), b"", f"sends    {_show(sent)}")
        if not self._failed:
            early = self._machine.take_early()
            if self._take is _as_needed:
                self._check(early, b"", f"had read {_show(early)} too far, by its own NeedData")
            early += self._unread
            self._check(early, self._early + self._trailing, f"leaves   {_show(early)}")

    def _shown(self, event: object) -> str:
        if event is None:
            return "no more events" if self._machine.is_over else f"needs    {self._need}"
        return f"tells    {event}"

    def _check(self, actual: object, expected: object, shown: str) -> None:
        if actual == expected:
            return
        lines = [f"{'->' if at == self._at else '  '} {step}" for at, step in enumerate(self._steps)]
        if self._at == len(self._steps):
            lines.append("-> end of the script")
        lines.insert(self._at + 1, f" ! {shown}")
        raise ScriptError("\n".join([f"the machine left the script ({self._way}):", *lines]))


def _as_needed(need: int, _unread: int) -> int:
    return need


def _at_random(seed: int) -> _Take:
    dice = random.Random(seed)
    return lambda _need, _unread: dice.randint(1, 8)


def _bytes(data: bytes | str) -> bytes:
    return bytes.fromhex(data) if isinstance(data, str) else data


def _show(data: bytes) -> str:
    """Text as text, other bytes in hexadecimal."""
    text = sum(32 <= byte < 127 or byte in b"\r\n" for byte in data)
    return repr(data) if len(data) > 4 and text * 4 > len(data) * 3 else data.hex(" ") or "nothing"
