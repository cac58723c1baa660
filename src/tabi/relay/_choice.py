"""Which build of the engine runs here: the compiled one where there is one, unless TABI_PURE=1 wants the pure one.

A compiled engine that is older than its source, which only a checkout can have, is not used: whoever changes a line
shall not test the line that was there before. It is told as a warning, which is an error in the tests.
"""

import os
import warnings
from collections.abc import Callable

from tabi.relay import _sources
from tabi.relay._engine_py import PureEngine
from tabi.relay.ferry import Ferry
from tabi.relay.lane import LaneEngine

__all__ = ["choose", "choose_ferry"]

_STALE = """\
the compiled engine is older than its source and is left aside for the pure one; `make setup` builds it anew\
"""


def choose() -> Callable[..., LaneEngine]:
    """Give the class of the engine to be used."""
    if os.environ.get("TABI_PURE", "0") not in {"", "0"}:
        return PureEngine
    try:
        from tabi.relay import _engine
    except ImportError:  # it was not built: there was no compiler
        return PureEngine
    if (digest := _sources.digest()) and digest != _engine.DIGEST:
        warnings.warn(_STALE, RuntimeWarning, stacklevel=2)
        return PureEngine
    return _engine.CompiledEngine


def choose_ferry(engine: Callable[..., LaneEngine]) -> Callable[[int, str, int], Ferry] | None:
    """Give the class of ferries that goes with an engine, which was built together with it; None: there is none."""
    if engine is PureEngine:
        return None
    from tabi.relay import _ferry

    return _ferry.CompiledFerry
