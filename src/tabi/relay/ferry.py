"""Carrying datagrams of a UDP association that need no thought, many to a system call.

The control plane judges a datagram; what comes to the same target within the next second is carried without asking,
by `recvmmsg(2)` and `sendmmsg(2)`. A ferry knows headers as bytes and addresses, nothing else: what it does not know it
gives back, in its place between the others, and the control plane goes on with it as if there were no ferry. There is
none where nothing is compiled: Python has neither call.
"""

from typing import Protocol

__all__ = ["KNOWN_FOR", "Ferry"]

KNOWN_FOR = 1.0
"""Seconds that a target or a source is carried for; then one datagram goes the long way again, which can know more."""


class Ferry(Protocol):
    """Of one association whose client is settled. Call all of them from one thread.

    A batch, and what is counted of it, lies in memory of the process: be done with it before another ferry receives.
    Times are in seconds, of any one clock. Hosts are addresses as the socket module writes them.
    """

    def allow(self, header: bytes, fd: int, host: str, port: int, until: float) -> None:
        """Send what comes with exactly this header to a target, by this socket, until then.

        Headers of more than 64 bytes, which have a long name, are passed by.
        """

    def welcome(self, host: str, port: int, until: float) -> None:
        """Let what comes from there pass to the client until then."""

    def forget(self) -> None:
        """Carry nothing any more."""

    def receive(self, fd: int) -> int:
        """Receive a batch, at most 64, in place of the one before; give how many there are. Never waits."""

    def carry_up(self, now: float) -> tuple[bytes, str, int] | None:
        """Go on through a batch from the client: send what is known, up to a datagram that is not.

        Returns:
            that datagram, the address and the port that it came from; None: the batch is done.
        """

    def carry_down(self, now: float) -> tuple[bytes, str, int] | None:
        """Go on through a batch from targets, in the same way."""

    def counts(self) -> tuple[int, int, int]:
        """Say what came of the batch: bytes of payload sent, datagrams too large, datagrams that could not be sent."""

    def take_used(self) -> list[tuple[str, int]]:
        """Give the targets that something was carried to since the last call, in the order of their last use."""
