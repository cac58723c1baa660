"""What the house and its keeper say to each other, in packets. Both are this program; nobody else has the sockets."""

import pickle
import socket
from typing import Final, NamedTuple

from tabi.wrap.program import Program

__all__ = ["Ended", "Made", "Make", "Message", "Plan", "Ready", "Refused", "Signal", "Start", "receive", "send"]

_MOST_FDS: Final = 16
_PACKET: Final = 1 << 16


class Plan(NamedTuple):
    """What the keeper is to do; it comes in a file, for it may be long.

    Args:
        program: to run.
        is_rootless: in a user namespace of its own.
        outside: the network namespace that the program must not be in, as `st_ino` of /proc/self/ns/net.
        mask: the signals that were blocked.
    """

    program: Program
    is_rootless: bool
    outside: int
    mask: frozenset[int]


class Ready(NamedTuple):
    """All is made, and the program waits; the sockets come along in the order of `names`."""

    pid: int
    tproxy: bool
    names: tuple[str, ...]


class Refused(NamedTuple):
    """A step was refused, and nothing is left.

    Args:
        step: in words.
        code: the errno.
        text: of the error.
    """

    step: str
    code: int
    text: str


class Make(NamedTuple):
    """Make a transparent socket in the gate; bind it, and listen, if asked."""

    family: int
    kind: int
    address: tuple[str, int] | None
    is_listening: bool


class Made(NamedTuple):
    """The answer to `Make`: the socket comes along, unless there is an errno."""

    code: int


class Start(NamedTuple):
    """Let the program run."""


class Signal(NamedTuple):
    """Send the program a signal."""

    number: int


class Ended(NamedTuple):
    """The program has ended, with a wait status."""

    status: int


Message = Ready | Refused | Make | Made | Start | Signal | Ended


def send(sock: socket.socket, message: Message, fds: list[int] | None = None) -> None:
    """Send a message, with duplicates of descriptors.

    Raises:
        OSError: nobody is there.
    """
    socket.send_fds(sock, [pickle.dumps(message)], fds or [])


def receive(sock: socket.socket) -> tuple[Message | None, list[int]]:
    """Receive a message, and descriptors that are now ours; None: nobody is there any more.

    Raises:
        BlockingIOError: nothing has come, at a socket that does not wait.
    """
    try:
        data, fds, _, _ = socket.recv_fds(sock, _PACKET, _MOST_FDS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None, []
    if not data:
        return None, []
    message: Message = pickle.loads(data)
    return message, fds
