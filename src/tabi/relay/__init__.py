"""The data plane: established pairs of sockets in, bytes relayed, ends reported.

`interface` says what an engine is. There are two builds of it, with the same tests: `_engine_py`, in pure Python, which
runs everywhere, and `_engine`, compiled, whose thread never waits for Python's lock. `_choice` takes one.
"""

from tabi.relay._choice import choose
from tabi.relay._engine_py import PureEngine
from tabi.relay.interface import Cause, Closer, End, Engine, FlowLimits, Live
from tabi.relay.lane import LaneEngine

__all__ = [
    "ENGINE_NAME",
    "HAS_LANE",
    "Cause",
    "Closer",
    "End",
    "Engine",
    "FlowLimits",
    "LaneEngine",
    "Live",
    "make_engine",
    "make_lane_engine",
]

_Build = choose()

HAS_LANE: bool = hasattr(_Build, "open_lane")

ENGINE_NAME: str = _Build.name  # type: ignore[attr-defined]  # a class attribute of both builds


def make_engine(*, workers: int = 1, spin: bool = True) -> Engine:
    """Make the engine of one worker process; call its `start` next.

    Args:
        workers: how many processes of this user run an engine; they share the budget of pipes.
        spin: look again for a moment before going to sleep, where that has paid lately; off for measurements only.
    """
    return _Build(workers=workers, spin=spin)


def make_lane_engine(*, workers: int = 1, spin: bool = True) -> LaneEngine:
    """Make an engine that has an express lane: the pure one, for the compiled one has none yet."""
    return PureEngine(workers=workers, spin=spin)
