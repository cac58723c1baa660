"""The data plane: established pairs of sockets in, bytes relayed, ends reported.

`interface` says what an engine is; `_engine_py` is the engine in pure Python, which runs everywhere.
"""

from tabi.relay._engine_py import PureEngine
from tabi.relay.interface import Cause, Closer, End, Engine, FlowLimits, Live
from tabi.relay.lane import LaneEngine

__all__ = ["ENGINE_NAME", "Cause", "Closer", "End", "Engine", "FlowLimits", "LaneEngine", "Live", "make_engine"]

# The choice of build is made here, once: today there is one, so TABI_PURE=1 (take the pure one) is always
# obeyed.
_Build = PureEngine

ENGINE_NAME: str = _Build.name


def make_engine(*, workers: int = 1) -> LaneEngine:
    """Make the engine of one worker process; call its `start` next.

    Args:
        workers: how many processes of this user run an engine; they share the budget of pipes.
    """
    return _Build(workers=workers)
