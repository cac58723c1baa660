"""What becomes of the bytes of a tunnel, of their end, and of a reset."""

import hashlib
import selectors
import time
from collections.abc import Callable
from typing import Final

from tabi.client.doctor.examination import Examination
from tabi.client.doctor.finding import Result, ok, wrong
from tabi.client.doctor.line import Ending, Line, NoAnswerError
from tabi.client.doctor.patient import Need, Patient

__all__ = ["DATA"]

_SIZE: Final = 1 << 20
_PIECE: Final = 1 << 16
_QUESTION: Final = b"question"
_ANSWER: Final = b"answer"


def _banner(patient: Patient) -> Result:
    """Have the target speak before it is spoken to."""
    line, there = patient.tunnel()
    there.send(_ANSWER)
    got = line.read(len(_ANSWER))
    return ok("arrives") if got == _ANSWER else wrong(f"arrives as {got!r}")


def _bulk(patient: Patient) -> Result:
    line, there = patient.tunnel()
    data = hashlib.shake_256(b"tabi doctor").digest(_SIZE)
    up, down = _Stream(line, there, data), _Stream(there, line, data[::-1])
    if not _carry((up, down), patient.patience):
        return wrong(f"stands still after {len(up.came)} of {_SIZE} bytes up and {len(down.came)} down")
    if up.came != data or down.came != data[::-1]:
        return wrong("arrives changed")
    return ok("arrives unchanged")


class _Stream:
    """Bytes on their way from one end to the other."""

    def __init__(self, source: Line, sink: Line, data: bytes) -> None:
        self.source = source
        self.sink = sink
        self.came = bytearray()
        self._left = memoryview(data)

    def give(self) -> bool:
        """Send what fits; says whether there is more."""
        self._left = self._left[self.source.sock.send(self._left[:_PIECE]) :]
        return bool(self._left)

    def take(self) -> bool:
        """Take what came; says whether more is to come."""
        more = self.sink.sock.recv(_PIECE)
        self.came += more
        return bool(more) and len(self.came) < _SIZE


def _carry(streams: tuple[_Stream, _Stream], patience: float) -> bool:
    """Carry both at once; says whether all has arrived before the time was over."""
    end = time.monotonic() + 2 * patience
    with selectors.DefaultSelector() as selector:
        for here, other in (streams, streams[::-1]):  # each socket is one's source and the other's sink
            here.source.sock.setblocking(False)
            acts = {selectors.EVENT_WRITE: here.give, selectors.EVENT_READ: other.take}
            selector.register(here.source.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, acts)
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for key, ready in selector.select(left):
                for event in (selectors.EVENT_READ, selectors.EVENT_WRITE):
                    if ready & event and not _step(key.data[event]):
                        _forget(selector, key, event)
                        break
    return all(len(one.came) == _SIZE for one in streams)


def _step(act: Callable[[], bool]) -> bool:
    try:
        return act()
    except BlockingIOError:
        return True
    except OSError:  # gone: what is missing tells
        return False


def _forget(selector: selectors.BaseSelector, key: selectors.SelectorKey, event: int) -> None:
    left = selector.get_key(key.fileobj).events & ~event
    if left:
        selector.modify(key.fileobj, left, key.data)
    else:
        selector.unregister(key.fileobj)


def _end_of_client(patient: Patient) -> Result:
    line, there = patient.tunnel()
    line.send(_QUESTION)
    line.end()
    got, ending = there.read_to_end()
    if ending is not Ending.CLOSED:
        return wrong("the target never hears of it" if ending is Ending.OPEN else "the target gets a reset")
    if got != _QUESTION:
        return wrong(f"the target gets {len(got)} of {len(_QUESTION)} bytes before it")
    return _answer_after(there, line, "the target's answer after it is lost")


def _end_of_target(patient: Patient) -> Result:
    line, there = patient.tunnel()
    there.send(_QUESTION)
    there.end()
    got, ending = line.read_to_end()
    if ending is not Ending.CLOSED:
        return wrong("the client never hears of it" if ending is Ending.OPEN else "the client gets a reset")
    if got != _QUESTION:
        return wrong(f"the client gets {len(got)} of {len(_QUESTION)} bytes before it")
    return _answer_after(line, there, "what the client still sends is lost")


def _answer_after(speaker: Line, listener: Line, lost: str) -> Result:
    try:
        speaker.send(_ANSWER)
    except NoAnswerError:  # reset already
        return wrong(f"both directions are closed: {lost}")
    speaker.end()
    got, ending = listener.read_to_end()
    if got == _ANSWER and ending is Ending.CLOSED:
        return ok("passed on; the other direction goes on")
    return wrong(f"both directions are closed: {lost}")


def _reset_of_target(patient: Patient) -> Result:
    line, there = patient.tunnel()
    return _reset(there, line, "the client")


def _reset_of_client(patient: Patient) -> Result:
    line, there = patient.tunnel()
    return _reset(line, there, "the target")


def _reset(breaker: Line, listener: Line, who: str) -> Result:
    breaker.send(_ANSWER)
    listener.read(len(_ANSWER))
    breaker.reset()
    _, ending = listener.read_to_end()
    if ending is Ending.RESET:
        return ok("arrives as a reset")
    if ending is Ending.CLOSED:
        return wrong(f"{who} sees an orderly end")
    return wrong(f"{who} never hears of it")


_NEEDS: Final = (Need.NEAR, Need.TUNNEL)

DATA: Final = (
    Examination(
        name="banner", title="a target that speaks first", run=_banner, needs=_NEEDS,
        why="SSH, SMTP, FTP and databases greet first",
    ),
    Examination(
        name="bulk", title="1 MiB each way at once", run=_bulk, needs=_NEEDS,
        why="large transfers stop or come out damaged",
    ),
    Examination(
        name="half-close-up", title="half-close of the client", run=_end_of_client, needs=_NEEDS,
        why="whoever ends its request by the end of its direction (nc -N, rsync, some RPC) gets no answer",
    ),
    Examination(
        name="half-close-down", title="half-close of the target", run=_end_of_target, needs=_NEEDS,
        why="what a client still sends when the target has said all is lost without an error",
    ),
    Examination(
        name="reset-down", title="reset by the target", run=_reset_of_target, needs=_NEEDS,
        why="a transfer that broke off looks complete",
    ),
    Examination(
        name="reset-up", title="reset by the client", run=_reset_of_client, needs=_NEEDS,
        why="the target takes a request that was broken off for a whole one",
    ),
)  # fmt: skip
