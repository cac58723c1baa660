"""What the engine is told of the sockets of a tunnel: the knobs of its rule, and for the rest those of the server."""

from functools import lru_cache

from tabi.config.settings import TunnelSettings
from tabi.policy.verdict import Knobs
from tabi.relay.options import KEEPALIVE_IDLE
from tabi.relay.tuning import UNTUNED, Tuning

__all__ = ["tuning_of"]


@lru_cache(maxsize=1024)
def tuning_of(knobs: Knobs, tunnel: TunnelSettings) -> Tuning | None:
    """Merge them; None where all is as it is without any. Those that are alike are one object."""
    keepalive = tunnel.keepalive if knobs.keepalive is None else knobs.keepalive
    tuning = Tuning(
        congestion=knobs.congestion or tunnel.congestion,
        keepalive=None if keepalive == KEEPALIVE_IDLE else keepalive,
        send_buffer=tunnel.send_buffer if knobs.send_buffer is None else knobs.send_buffer,
        receive_buffer=tunnel.receive_buffer if knobs.receive_buffer is None else knobs.receive_buffer,
        splice=tunnel.splice if knobs.splice is None else knobs.splice,
    )
    return None if tuning == UNTUNED else tuning
