"""What has been settled lately: a SYN that comes again must not become another connection.

A program's kernel sends its SYN again until it has heard an answer. One that was under way while we answered is read
after that; one whose answer was lost, or met the socket in use, asks for the answer again. By its sequence number it is
told from a connect that begins anew with the same ports.
"""

from tabi.wrap.packets import Flow, Syn

__all__ = ["Settled"]

_MOST = 8192  # connects; the oldest are forgotten, and a kernel sends a SYN again after a second


class Settled:
    """The answers to connects that are over."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._answers: dict[Flow, tuple[int, bytes | None]] = {}

    def settle(self, syn: Syn, answer: bytes | None) -> None:
        """Remember how a connect was answered; None: by letting its SYN pass, or never."""
        self._answers.pop(syn.flow, None)
        if len(self._answers) >= self._most:
            del self._answers[next(iter(self._answers))]
        self._answers[syn.flow] = syn.sequence, answer

    def knows(self, syn: Syn) -> bool:
        """Say whether this very connect is over."""
        known = self._answers.get(syn.flow)
        return known is not None and known[0] == syn.sequence

    def answer(self, syn: Syn) -> bytes | None:
        """Give the answer to a connect that is known; None: there is nothing to be sent."""
        return self._answers[syn.flow][1]

    def __len__(self) -> int:
        """Count them."""
        return len(self._answers)
