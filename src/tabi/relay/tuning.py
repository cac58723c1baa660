"""How the two sockets of a tunnel are used, where somebody has said other than what is good for most."""

from typing import Final, NamedTuple

__all__ = ["AUTO", "SYSTEM", "UNTUNED", "Tuning"]

AUTO: Final = "auto"
SYSTEM: Final = "system"


class Tuning(NamedTuple):
    """It holds for both sockets from the beginning of a flow to its end. Share one object among flows.

    What the kernel does not grant is left as it is: a flow is not worth less for it, and whoever writes a
    configuration has been warned.

    Args:
        congestion: control of what is sent; AUTO: as `tabi.relay._congestion` says, SYSTEM: what the system's is.
        keepalive: seconds of silence before the first probe, 0: none are sent; None: as `tabi.relay.options` has it.
        send_buffer: bytes (SO_SNDBUF), which the kernel doubles; 0: the kernel sizes it as it goes.
        receive_buffer: likewise (SO_RCVBUF).
        splice: whether a stream that proves bulky goes through a pipe.
    """

    congestion: str = AUTO
    keepalive: int | None = None
    send_buffer: int = 0
    receive_buffer: int = 0
    splice: bool = True


UNTUNED: Final = Tuning()
