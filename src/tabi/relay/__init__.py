"""The data plane: established pairs of sockets in, bytes relayed, ends reported.

`interface` says what an engine is. There are two builds of it, with the same tests: `_engine_py`, in pure Python, which
runs everywhere, and `_engine`, compiled, whose thread never waits for Python's lock. `_choice` takes one.
"""

from tabi.relay._choice import choose, choose_ferry
from tabi.relay.ferry import Ferry
from tabi.relay.interface import Cause, Closer, End, Engine, FlowLimits, Live
from tabi.relay.lane import LaneEngine
from tabi.relay.rows import SharedRows

__all__ = [
    "ENGINE_NAME",
    "Cause",
    "Closer",
    "End",
    "Engine",
    "Ferry",
    "FlowLimits",
    "LaneEngine",
    "Live",
    "make_engine",
    "make_ferry",
    "make_lane_engine",
    "make_rows",
]

_Build = choose()
_Ferry = choose_ferry(_Build)

ENGINE_NAME: str = _Build.name  # type: ignore[attr-defined]  # a class attribute of both builds


def make_engine(*, workers: int = 1, spin: bool = True) -> Engine:
    """Make the engine of one worker process; call its `start` next.

    Args:
        workers: how many processes of this user run an engine; they share the budget of pipes.
        spin: look again for a moment before going to sleep, where that has paid lately.
    """
    return _Build(workers=workers, spin=spin)


def make_lane_engine(*, workers: int = 1, spin: bool = True) -> LaneEngine:
    """Make an engine whose express lane is to be opened."""
    return _Build(workers=workers, spin=spin)


def make_rows(words: memoryview, columns: int, column: int) -> SharedRows:
    """Make the counters (see `tabi.relay.rows`) that such an engine and its control plane share."""
    return _Build.make_rows(words, columns, column)  # type: ignore[attr-defined,no-any-return]  # as above


def make_ferry(leg: int, host: str, port: int) -> Ferry | None:
    """Make the ferry of a UDP association; None where nothing is compiled, or where there is no memory for one.

    Args:
        leg: descriptor of the client's side, connected to the client; stays the caller's.
        host: address of the client.
        port: its port.
    """
    try:
        return None if _Ferry is None else _Ferry(leg, host, port)
    except MemoryError:  # then the control plane carries what there is
        return None
